"""Two processes that train together, for all tests of one module: each waits for cases and reports what came out.

As a program this file is one of them: it reads a line of JSON for each case and writes one.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = 2


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Pair:
    """The two processes. `run` has both do a case."""

    def __init__(self) -> None:
        environment = {**os.environ, "WORLD_SIZE": str(SIZE), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        self.processes = [
            subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(SIZE)
        ]

    def run(self, case: str, folder: Path, **arguments: Any) -> list[dict[str, Any]]:
        """What each process reports of a case, in the order of ranks: its result, or its error as [type, message].

        Args:
            case: the name of a function of this file.
            folder: in which both work.
            arguments: of the function; JSON.
        """
        line = json.dumps({"case": case, "folder": str(folder), "port": free_port(), "arguments": arguments})
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
        found = []
        for process in self.processes:
            assert process.stdout is not None
            found.append(json.loads(process.stdout.readline()))
        return found

    def close(self) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes:
            process.wait(300)


# -- in one of the processes ---------------------------------------------------------------------------------


def digest(tensors: Any) -> str:
    """A hash of tensors, bit for bit."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def watched(calls: list[str], weights: list[str]) -> Callable[[], None]:
    """Note every collective, and the weights before the first process's replace the others' at an epoch's end.

    Returns what undoes it.
    """
    import torch.distributed as dist

    from fastnoise.engine import trainer

    names = ("all_reduce", "all_gather", "broadcast")
    before = {name: getattr(dist, name) for name in names}
    equalise = trainer.equalise

    def noting(name: str) -> Callable[..., Any]:
        def call(first: Any, *rest: Any, **options: Any) -> Any:
            one = first[0] if isinstance(first, list) else first
            calls.append(f"{name} {one.dtype} {list(one.shape)}")
            return before[name](first, *rest, **options)

        return call

    def noted(world: Any, networks: Any, records: Any) -> None:
        weights.append(digest(networks.parameters()))
        equalise(world, networks, records)

    for name in names:
        setattr(dist, name, noting(name))
    trainer.equalise = noted

    def undo() -> None:
        for name in names:
            setattr(dist, name, before[name])
        trainer.equalise = equalise

    return undo


def train(method: str, fields: dict[str, Any], *, resume: bool = False, fault: str = "") -> dict[str, Any]:
    """A run on digits with 40 % symmetric noise, and what this process saw of it."""
    import numpy as np
    from _pair_faults import arranged

    import fastnoise
    from fastnoise.recipes import recipe

    calls: list[str] = []
    weights: list[str] = []
    undo = watched(calls, weights)
    try:
        config = recipe(method, "digits", "symmetric:0.4").replace({"device": "cpu", "loader_threads": 1, **fields})
        with arranged(fault):
            summary = fastnoise.train(config, resume=resume)
    finally:
        undo()
    return {
        "weights": weights,
        "calls": hashlib.sha256("\n".join(calls).encode()).hexdigest(),
        "count": len(calls),
        "accuracy": summary["test_accuracy"]["last"],
        "finite": bool(np.isfinite(summary["test_accuracy"]["last"])),
    }


def gradients() -> dict[str, Any]:
    """The mean of two processes' gradients in both ways, of a whole network and without one layer in the middle."""
    import torch
    from torch import nn

    from fastnoise.engine.distributed import together
    from fastnoise.engine.gradient_mean import GradientMean

    found: dict[str, Any] = {"own": [], "whole": [], "bucketed": [], "early": []}
    with together("cpu") as world:
        for skipped in (None, 3):
            for kind in ("own", "whole", "bucketed"):
                torch.manual_seed(0)
                layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))
                mean = None
                if kind != "own":
                    mean = GradientMean(layers.parameters(), world, overlapped=kind == "bucketed", sizes=(100, 1000))
                torch.manual_seed(1 + world.rank)
                values = torch.randn(8, 16)
                for number, layer in enumerate(layers):
                    values = values if number == skipped else layer(values).relu()
                values.square().mean().backward()
                if mean is not None:
                    sent = len(mean._sent)
                    mean()
                    found["seconds"] = [mean.seconds_of(1), mean.alone()]
                    if kind == "bucketed":
                        found["early"].append(sent)
                        found["buckets"] = len(mean.buckets)
                found[kind].append(digest(p.grad for p in layers.parameters() if p.grad is not None))
    return found


def equal() -> dict[str, Any]:
    """Tensors that differ between the processes, before and after they are made those of the first."""
    import torch

    from fastnoise.engine.distributed import together

    with together("cpu") as world:
        torch.manual_seed(world.rank)
        tensors = [torch.randn(3, 5), torch.randn(5, 3).T, torch.tensor(world.rank)]
        before = digest(tensors)
        world.equalise_(tensors)
        return {"before": before, "after": digest(tensors)}


def words(words: list[str]) -> dict[str, Any]:
    """The exit code of a command line."""
    from fastnoise.cli import main as command

    return {"code": command(words)}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        asked = json.loads(line)
        os.environ["MASTER_PORT"] = str(asked["port"])
        os.chdir(asked["folder"])
        try:
            found = {"result": globals()[asked["case"]](**asked["arguments"])}
        except SystemExit as end:
            found = {"error": [type(end).__name__, str(end.code)]}
        except BaseException as error:
            traceback.print_exc()
            found = {"error": [type(error).__name__, str(error)]}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
