"""A job of a sweep in several processes of a Ray cluster, which Ray Train places and starts."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .job import Assignment

TICK = 0.2
"""Seconds between two looks at a process."""


def train_on_ray(
    assignment: Assignment, asked: Path, *, cores: float, gpus: bool, threads: int, stop: str
) -> list[int]:
    """Train the job that the file `asked` describes in `assignment.processes` workers of Ray Train.

    Each worker starts `sweeps.worker`, a process of its own, since Ray runs its own code in a thread, which signals do
    not reach. Nodes must see the sweep's folder under the same path.

    Args:
        cores: of each worker.
        gpus: whether each has a GPU.
        threads: torch threads of each.
        stop: the file at whose coming the workers save their state and end.

    Returns the exit codes of those that failed, [] if none did.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    storage = asked.with_suffix(".ray")
    trainer = TorchTrainer(
        _work,
        train_loop_config={"asked": str(asked), "log": str(assignment.log), "threads": threads, "stop": stop},
        torch_config=TorchConfig(backend="gloo"),  # of Ray's own workers; fastnoise's meet by themselves
        scaling_config=ScalingConfig(
            num_workers=assignment.processes,
            use_gpu=gpus,
            resources_per_worker={"CPU": cores, **({"GPU": 1} if gpus else {})},
        ),
        run_config=RunConfig(name="job", storage_path=str(storage), failure_config=FailureConfig(max_failures=0)),
    )
    try:
        trainer.fit()
    except Exception as error:  # Ray's own kinds, of which it has had several
        codes = [int(code) for code in re.findall(r"fastnoise ended with exit code (-?\d+)", str(error))]
        if not codes:
            raise
        return codes
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    return []


def _work(settings: dict[str, Any]) -> None:
    """What each worker of Ray Train does."""
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero
    from ray.util import get_node_ip_address

    context = get_context()
    rank = context.get_world_rank()
    host, port = broadcast_from_rank_zero([get_node_ip_address(), _free_port()] if rank == 0 else None)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC")}
    environment |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(context.get_world_size()),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
        "MASTER_ADDR": str(host),
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(settings["threads"]),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),  # Ray has set it for this process alone
    }
    words = [sys.executable, "-m", "fastnoise.sweeps.worker", settings["asked"], str(os.getpid())]
    with open(settings["log"], "ab") as log:
        process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    stopped = False
    while (code := process.poll()) is None:
        if not stopped and os.path.exists(settings["stop"]):
            stopped = True
            process.terminate()
        time.sleep(TICK)
    if code:
        raise RuntimeError(f"fastnoise ended with exit code {code}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        port: int = one.getsockname()[1]
        return port
