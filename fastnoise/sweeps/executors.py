"""Where a sweep's assignments run: in processes of this machine, or on a Ray cluster."""

import logging
import os
import select
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..checks import cpu_cores
from ..errors import ConfigError
from ..texts import counted
from .forkserver import ForkServer
from .job import Assignment
from .spec import Job


class Ended(NamedTuple):
    """How an assignment ended."""

    number: int
    code: int | None
    """Exit code of its process, or -N if signal N ended it. None if the exit code is unknown."""
    message: str = ""
    """What is known if the exit code is unknown."""


class Executor(Protocol):
    """Runs assignments, each in a process of its own. The sweep gives each assignment a number."""

    slots: int
    """How many assignments the executor takes at once."""

    def open(self, jobs: Sequence[Job]) -> str:
        """Get ready for a sweep of `jobs`. Returns a line that says where they will run."""

    def start(self, number: int, assignment: Assignment) -> None:
        """Take an assignment and run it as soon as possible."""

    def wait(self, seconds: float) -> list[Ended]:
        """The assignments that have ended since the last call. Waits at most `seconds` for one."""

    def stop(self) -> None:
        """Ask running assignments to save their state and end (SIGTERM). Those that have not begun are dropped."""

    def close(self) -> None:
        """Kill all running assignments and free all resources."""


class LocalExecutor:
    """Processes of this machine, several at once.

    Args:
        jobs: number of assignments at once. 0: one per GPU, or one per core without GPUs. Assignments take the GPUs in
            turn.
        threads: torch threads of each assignment. torch splits sums by it, so the last bits of a CPU's results can
            depend on the number of threads. They do not depend on the number of jobs.
    """

    def __init__(self, jobs: int = 0, threads: int = 1):
        if jobs < 0 or threads < 1:
            raise ConfigError(f"--jobs must be 0 or more and --threads positive, not {jobs} and {threads}")
        self.jobs, self.threads, self.slots = jobs, threads, jobs
        self._server: ForkServer | None = None
        self._slot_of: dict[int, int] = {}
        self._gpus: list[str] = []

    def warm_up(self) -> None:
        """Start the server in the background, which takes seconds and needs no sweep. `close` ends it."""
        if self._server is None:
            self._server = ForkServer(self.threads)

    def open(self, jobs: Sequence[Job]) -> str:
        wanted = {str(job.fields.get("device", "auto")) for job in jobs}
        if wanted != {"cpu"}:
            import torch

            if torch.cuda.is_available():
                visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count()))))
                movable = wanted <= {"auto", "cpu", "cuda"}
                count = torch.cuda.device_count()  # CUDA stops at the first name that it does not know
                self._gpus = visible.split(",")[:count] if movable else [""] * count
        cores = cpu_cores()
        self.slots = self.jobs or len(self._gpus) or max(1, cores // self.threads)
        where = f"{counted(len(self._gpus), 'GPU')}" if self._gpus else f"{counted(cores, 'CPU core')}"
        return f"{self.slots} at once on {where}, {counted(self.threads, 'torch thread')} each"

    def start(self, number: int, assignment: Assignment) -> None:
        slot = min(set(range(self.slots)) - set(self._slot_of.values()))
        self._slot_of[number] = slot
        if len(self._gpus) > 1 and self._gpus[0]:
            assignment = replace(assignment, devices=self._gpus[slot % len(self._gpus)])
        if self._server is not None and not self._server.alive and not self._server.running:
            self._server.close()
            self._server = None
        self.warm_up()
        assert self._server is not None
        self._server.start(number, assignment)

    def wait(self, seconds: float) -> list[Ended]:
        if self._server is None or not select.select([self._server], [], [], seconds)[0]:
            return []
        ended = [Ended(number, code) for number, code in self._server.ended()]
        for end in ended:
            del self._slot_of[end.number]
        return ended

    def stop(self) -> None:
        if self._server is not None:
            for number in self._server.running:
                self._server.signal(number, signal.SIGTERM)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._slot_of.clear()


class RayExecutor:
    """A Ray cluster with Ray's scheduler. All nodes must see the sweep's folder, data and fastnoise under equal paths.

    If a node or worker is lost, Ray runs its assignment again, at most twice. The assignment continues from its
    checkpoint.

    Args:
        address: of a running cluster, or `auto` for the cluster of this machine. None starts a cluster here.
        gpus_per_job: share of a GPU for each assignment, for example 0.25. None: 1 in a cluster with GPUs, else 0.
        cpus_per_job: CPU cores reserved for each assignment.
        threads: torch threads of each assignment, as in LocalExecutor.
    """

    slots = 256
    """Number of assignments given to Ray at once: more than it needs to plan, but few enough to ask for cheaply."""

    def __init__(
        self,
        address: str | None = None,
        gpus_per_job: float | None = None,
        cpus_per_job: float = 1.0,
        threads: int = 1,
    ):
        if (gpus_per_job is not None and gpus_per_job < 0) or cpus_per_job < 0 or threads < 1:
            raise ConfigError(
                f"--gpus-per-job and --cpus-per-job must be 0 or more and --threads positive, "
                f"not {gpus_per_job}, {cpus_per_job} and {threads}"
            )
        self.address, self.gpus_per_job, self.cpus_per_job = address, gpus_per_job, cpus_per_job
        self.threads = threads
        self._numbers: dict[Any, int] = {}
        self._ours = False
        self._stop: Path | None = None
        """If this file exists, assignments stop. Ray's own cancelling does not reach a worker that waits."""

    def open(self, jobs: Sequence[Job]) -> str:
        try:
            import ray
        except ImportError:
            raise ConfigError("--executor ray needs Ray: pip install 'fastnoise[ray]'") from None
        if not ray.is_initialized():
            try:
                ray.init(
                    address=self.address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ConfigError(f"--address {self.address}: no Ray cluster there: {_first_line(error)}") from error
            self._ours = True
        self._ray = ray
        resources = ray.cluster_resources()
        gpus = resources.get("GPU", 0)
        share = self.gpus_per_job if self.gpus_per_job is not None else float(gpus > 0)
        if share > gpus or self.cpus_per_job > resources.get("CPU", 0):
            self.close()
            raise ConfigError(
                f"no Ray task fits: it asks for {share:g} GPUs and {self.cpus_per_job:g} cores, and the whole cluster "
                f"has {gpus:g} and {resources.get('CPU', 0):g}; lower --gpus-per-job or --cpus-per-job"
            )
        self._remote = ray.remote(num_cpus=self.cpus_per_job, num_gpus=share, max_retries=2)(_run_on_ray)
        return f"Ray cluster of {counted(len(ray.nodes()), 'node')}, {resources.get('CPU', 0):g} cores, {gpus:g} GPUs"

    def start(self, number: int, assignment: Assignment) -> None:
        if self._stop is None:
            self._stop = assignment.folder / "stop"
            self._stop.unlink(missing_ok=True)  # one that a killed sweep left
        self._numbers[self._remote.remote(assignment.to_json(), self.threads, str(self._stop))] = number

    def wait(self, seconds: float) -> list[Ended]:
        if not self._numbers:
            return []
        ready, _ = self._ray.wait(list(self._numbers), num_returns=1, timeout=seconds)
        ended = []
        for reference in ready:
            number = self._numbers.pop(reference)
            try:
                ended.append(Ended(number, self._ray.get(reference)))
            except self._ray.exceptions.RayError as error:
                ended.append(Ended(number, None, _first_line(error)))
        return ended

    def stop(self) -> None:
        if self._stop is not None:
            self._stop.touch()

    def close(self) -> None:
        for reference in self._numbers:
            self._ray.cancel(reference, force=True)
        self._numbers.clear()
        if self._stop is not None:
            self._stop.unlink(missing_ok=True)
            self._stop = None
        if self._ours:
            self._ray.shutdown()
            self._ours = False


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


_servers: dict[int, ForkServer] = {}


def _run_on_ray(content: dict[str, Any], threads: int, stop: str) -> int:
    """Run an assignment inside a Ray worker and return its exit code. The worker keeps a fork server for later ones.

    If the file `stop` exists, assignments do not begin, and a running one is asked to save its state and end.
    """
    assignment = replace(Assignment.from_json(content), devices=os.environ.get("CUDA_VISIBLE_DEVICES"))
    if os.path.exists(stop):
        return -signal.SIGTERM
    server = _servers.get(threads)
    if server is None or not server.alive:
        server = _servers[threads] = ForkServer(threads)
    server.start(0, assignment)
    asked = False
    while True:
        if select.select([server], [], [], 0.5)[0] and (ended := server.ended()):
            return ended[0][1]
        if not asked and os.path.exists(stop):
            asked = True
            server.signal(0, signal.SIGTERM)
