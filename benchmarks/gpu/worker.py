"""The process that holds torch and the GPU: makes the steps that the supervisor names, one after another.

Orders come as lines of JSON on standard input; events go as lines of JSON to the pipe of --events. Figures go to the
folder and the screen by this process itself, as soon as they are measured.
"""

import argparse
import faulthandler
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from . import records
from .bench import Bench


def serve(functions: Mapping[str, Callable[[Bench], str | None]], words: Sequence[str] | None = None) -> None:
    """Make the steps that standard input names until it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--programme", required=True)
    parser.add_argument("--half", type=int, required=True)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--commit", default="")
    parser.add_argument("--events", type=int, required=True)
    given = parser.parse_args(words)
    os.set_inheritable(given.events, False)  # the supervisor takes its end for the worker's
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    bench = Bench(given.out, given.programme, given.half, given.data, given.commit, given.events)
    for text in iter(sys.stdin.readline, ""):
        order = json.loads(text)
        # Looked up within the step: what its import raises is the step's failure.
        bench.run(order["step"], partial(_call, functions, order["step"]), order["seconds"], order["skip"])


def _call(functions: Mapping[str, Callable[[Bench], str | None]], name: str, bench: Bench) -> str | None:
    return functions[name](bench)


def stack(bench: Bench) -> None:
    """The stack loads: torch, a context on the GPU, fastnoise with its extension, Triton with its compiler."""
    import importlib.metadata
    import platform
    import shutil

    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(min(16, os.cpu_count() or 1)))
    # The profiler's library is neither taken down nor brought up again while CUDA graphs live: either may crash.
    os.environ |= {"TEARDOWN_CUPTI": "0", "DISABLE_CUPTI_LAZY_REINIT": "1"}
    start = time.perf_counter()
    import torch

    import_seconds = time.perf_counter() - start
    bench.on_gpu = torch.cuda.is_available()
    if bench.on_gpu:
        start = time.perf_counter()
        torch.ones(1, device="cuda")
        torch.cuda.synchronize()
        torch.backends.cudnn.benchmark = True
        seconds = time.perf_counter() - start
    else:
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which torch does later if ever
    bench.tell("device", on_gpu=bench.on_gpu)
    from .. import record

    stamp: records.Line = {**record.stamp(), "python": platform.python_version()}
    if bench.commit:
        stamp["commit"] = bench.commit
    bench.identify(stamp)
    bench.value("start/import-torch", import_seconds, "s")
    for line in (
        f"{stamp['gpu']}; {stamp['machine']}",
        f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, "
        f"Triton {stamp['triton']}, Python {stamp['python']}; commit {stamp['commit'] or 'unknown'}",
        f"C compiler: {shutil.which('cc') or shutil.which('gcc') or 'none, Triton and Inductor will fail'}",
    ):
        bench.say(line)
    for package in ("nvidia-dali-cuda130", "pytest", "pytest-xdist", "tyro"):
        try:
            bench.say(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            bench.say(f"{package} is not there")
    if bench.on_gpu:
        bench.value("start/context", seconds, "s")
        bench.say(f"{torch.cuda.get_device_properties(0)}, {torch.cuda.mem_get_info()[0] / 2**30:.1f} GiB free")
    start = time.perf_counter()
    from . import steps

    bench.value("start/import-fastnoise", time.perf_counter() - start, "s")
    bench.attempt("start/first-kernel", lambda: steps.first_kernel(bench))


class _Steps(Mapping[str, Callable[[Bench], str | None]]):
    """The steps by name. All but the first import torch, which therefore counts as the first's time."""

    def __getitem__(self, name: str) -> Callable[[Bench], str | None]:
        if name == "stack":
            return stack
        from . import steps

        return steps.STEPS[name]

    def __iter__(self) -> Iterator[str]:
        from . import steps

        return iter(("stack", *steps.STEPS))

    def __len__(self) -> int:
        return len(list(iter(self)))


def main() -> None:
    serve(_Steps())


if __name__ == "__main__":
    main()
