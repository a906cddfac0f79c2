"""fastnoise train --gpus N: the processes that train one run together, on this machine."""

import os
import signal
import sys
from collections.abc import Sequence

from ..config import RunConfig
from ..errors import ConfigError
from ..words import Processes


def start(asked: Processes, words: Sequence[str], config: RunConfig) -> int:
    """Start `fastnoise train` with `words` in several processes, as torchrun does, and wait for their end.

    Args:
        asked: how many, and how often they may start again.
        words: of each process, those after `fastnoise train`.
        config: what the words say.

    Returns the exit code of the process that failed first, 0 if none did; 130 or 143 after Ctrl-C or SIGTERM.
    ConfigError if there are too few GPUs, or this process is one of several itself.
    """
    import logging

    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if "WORLD_SIZE" in os.environ:
        raise ConfigError("--gpus starts processes of its own, and this is one of torchrun's; drop one of the two")
    count, gpus = asked.gpus, torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.engine.device != "cpu" and gpus < count and (gpus or config.engine.device != "auto"):
        raise ConfigError(f"--gpus {count}: PyTorch sees {gpus} GPU(s); give a smaller number, or --device cpu")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes say what there is to say
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="fastnoise",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=asked.max_restarts,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(launch, sys.executable)("-m", "fastnoise.cli", "train", *words)
    except ChildFailedError as error:
        first = min(error.failures.values(), key=lambda failure: failure.timestamp)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException as stop:
        return 128 + int(stop.sigval)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0
