"""Processes that train one run together, started on this machine as torchrun does."""

import logging
import os
import signal
import sys


def launch(count: int, words: list[str], *, max_restarts: int = 0) -> list[int]:
    """Start `count` processes of Python and wait for their end.

    Args:
        words: of each process, those after `python`.
        max_restarts: how often all of them start again if one ends otherwise than well.

    Returns the exit codes of those that failed in the order of time, -N for signal N; [] if none did. If this process
    receives Ctrl-C or SIGTERM, so do they, and the code is 130 or 143.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes say what there is to say
    how = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="fastnoise",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(how, sys.executable)(*words)
    except ChildFailedError as error:
        failures = sorted(error.failures.values(), key=lambda failure: failure.timestamp)
        return [failure.exitcode for failure in failures]
    except SignalException as stop:
        return [128 + int(stop.sigval)]
    except KeyboardInterrupt:
        return [128 + signal.SIGINT]
    return []
