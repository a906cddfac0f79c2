"""What the commands that run the jobs of a sweep have in common: where jobs run, and what a signal means."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..sweeps import Executor


@dataclass(frozen=True)
class JobsCommand:
    """The options of where jobs run."""

    jobs: int = 0
    """Number of jobs that run at once on this machine. 0: one per GPU, or one per core if there is no GPU."""
    threads: int = 1
    """CPU threads that compute, of each job. The last bits of results depend on it, but not on --jobs."""
    executor: Literal["local", "ray"] = "local"
    """Where jobs run: in processes of this machine (local), or on a Ray cluster (pip install 'fastnoise[ray]').
    All nodes of the cluster must see the sweep's folder, the data and fastnoise under the same paths."""
    address: str | None = None
    """Address of the Ray cluster, or auto for the one on this machine. None starts one here."""
    gpus_per_job: float | None = None
    """GPUs of each job. With several, as 2, as many processes train it together, as fastnoise train --gpus does.
    Ray also takes a share of one, as 0.25. None: 1 if there are GPUs."""
    cpus_per_job: float | None = None
    """CPU cores that Ray reserves for each job. None: as many as --threads."""
    keep: Literal["none", "checkpoint"] = "none"
    """What is left of a finished job to go on from. Its networks are in its model file in either case."""

    def check(self) -> None:
        """ConfigError in one line for options that do not go together."""
        local, each = self.executor == "local", self.gpus_per_job
        for flag, value in (("--address", self.address), ("--cpus-per-job", self.cpus_per_job)):
            if local and value is not None:
                raise ConfigError(f"{flag} is for --executor ray; drop it")
        if local and each is not None and each != int(each):
            raise ConfigError(f"--gpus-per-job {each:g}: a share of a GPU is for --executor ray; here give --jobs")
        if not local and self.jobs:
            raise ConfigError("--jobs is for --executor local; with ray give --gpus-per-job or --cpus-per-job")

    @contextlib.contextmanager
    def opened(self) -> "Iterator[Executor]":
        """The executor, which gets ready in the background while the jobs are read, and is closed at the end."""
        from ..sweeps import LocalExecutor, RayExecutor

        executor: Executor
        if self.executor == "local":
            executor = local = LocalExecutor(
                self.jobs, self.threads, 1 if self.gpus_per_job is None else int(self.gpus_per_job)
            )
            local.warm_up()
        else:
            cores = float(self.threads) if self.cpus_per_job is None else self.cpus_per_job
            executor = RayExecutor(self.address, self.gpus_per_job, cores, self.threads)
        try:
            yield executor
        finally:
            executor.close()


def until_stopped(run: Callable[[], int]) -> int:
    """What `run` returns, or 130 or 143 if a signal has stopped it, whose line is then printed."""
    from ..engine import Interrupted

    try:
        return run()
    except Interrupted as stop:
        print(f"fastnoise: {stop}", file=sys.stderr)
        return 128 + stop.signal_number
