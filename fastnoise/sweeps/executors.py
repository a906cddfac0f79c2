"""Where a sweep's assignments run: in processes of this machine, or on a Ray cluster."""

import logging
import os
import select
import signal
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..checks import cpu_cores
from ..errors import ConfigError
from ..texts import counted
from .forkserver import ForkServer
from .job import Assignment, run_assignment
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

    def fewer(self, number: int) -> str | None:
        """Called when an assignment has ended because a GPU had too little memory: let fewer share one from now on.

        Returns a line that says how the assignment may be tried again; None if it had a GPU to itself.
        """

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
        gpus_per_job: GPUs of each assignment. Above 1 as many processes train its job together; they do so on the CPU
            too if jobs say --device cpu, or if there is no GPU.
    """

    def __init__(self, jobs: int = 0, threads: int = 1, gpus_per_job: int = 1):
        if jobs < 0 or threads < 1:
            raise ConfigError(f"--jobs must be 0 or more and --threads positive, not {jobs} and {threads}")
        if gpus_per_job < 1:
            raise ConfigError(f"--gpus-per-job of jobs on this machine must be 1 or more, not {gpus_per_job}")
        self.jobs, self.threads, self.slots, self.gpus_per_job = jobs, threads, jobs, gpus_per_job
        self._server: ForkServer | None = None
        self._slot_of: dict[int, int] = {}
        self._slots_at: dict[int, int] = {}
        """How many assignments might run at once when each was started."""
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
        cores, each = cpu_cores(), self.gpus_per_job
        if each > 1 and self._gpus:
            if each > len(self._gpus):
                raise ConfigError(f"--gpus-per-job {each}: PyTorch sees {len(self._gpus)} GPU(s); give fewer")
            if not self._gpus[0]:
                raise ConfigError(f"--gpus-per-job {each}: a job names a GPU of its own (cuda:N); give --device cuda")
            if self.jobs > len(self._gpus) // each:
                raise ConfigError(
                    f"--jobs {self.jobs} with {each} GPUs each take more than {len(self._gpus)} GPUs; give fewer"
                )
        self.slots = self.jobs or len(self._gpus) // each or max(1, cores // (self.threads * each))
        where = f"{counted(len(self._gpus), 'GPU')}" if self._gpus else f"{counted(cores, 'CPU core')}"
        together = "" if each == 1 else f", {each} processes each"
        return f"{self.slots} at once on {where}{together}, {counted(self.threads, 'torch thread')} each"

    def start(self, number: int, assignment: Assignment) -> None:
        slot = min(set(range(self.slots)) - set(self._slot_of.values()))
        self._slot_of[number], self._slots_at[number] = slot, self.slots
        each = self.gpus_per_job
        if each > 1:
            devices = ",".join(self._gpus[slot * each : (slot + 1) * each]) or None
            assignment = replace(assignment, devices=devices, processes=each)
        elif len(self._gpus) > 1 and self._gpus[0]:
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

    def fewer(self, number: int) -> str | None:
        if self._slots_at[number] == self.slots:  # else there are fewer already
            least = max(1, len(self._gpus) // self.gpus_per_job)
            if self.slots <= least:
                return None
            self.slots = max(least, self.slots - least)
        return f"it goes on later, with {self.slots} at once"

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
        gpus_per_job: share of a GPU for each assignment, for example 0.25, or several: as many workers of Ray Train
            then train its job together, on the CPU if all jobs say --device cpu. None: 1 in a cluster with GPUs,
            else 0.
        cpus_per_job: CPU cores reserved for each assignment.
        threads: torch threads of each assignment, as in LocalExecutor.
    """

    slots = 1
    """Assignments given to Ray at once: twice as many as the cluster can run, so that it can plan (`open`)."""

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
        if gpus_per_job is not None and gpus_per_job > 1 and gpus_per_job != int(gpus_per_job):
            raise ConfigError(f"--gpus-per-job {gpus_per_job}: give a share of one GPU, or a whole number")
        self.address, self.gpus_per_job, self.cpus_per_job = address, gpus_per_job, cpus_per_job
        self.threads = threads
        self._numbers: dict[Any, int] = {}
        self._share, self._on_gpus = 0.0, True
        self._share_at: dict[int, float] = {}
        """What of a GPU each assignment was given."""
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
        self._on_gpus = share <= 1 or {str(job.fields.get("device", "auto")) for job in jobs} != {"cpu"}
        cores = self.cpus_per_job * max(1, int(share))
        if (self._on_gpus and share > gpus) or cores > resources.get("CPU", 0):
            self.close()
            raise ConfigError(
                f"no Ray task fits: it asks for {share:g} GPUs and {cores:g} cores, and the whole cluster "
                f"has {gpus:g} and {resources.get('CPU', 0):g}; lower --gpus-per-job or --cpus-per-job"
            )
        self._ask(share)
        return f"Ray cluster of {counted(len(ray.nodes()), 'node')}, {resources.get('CPU', 0):g} cores, {gpus:g} GPUs"

    def _ask(self, share: float) -> None:
        """Let later assignments have this share of a GPU, or so many."""
        resources = self._ray.cluster_resources()
        together = max(1, int(share))
        asked = [(resources.get("CPU", 0), self.cpus_per_job * together)]
        if self._on_gpus:
            asked.append((resources.get("GPU", 0), share))
        fitting = [there / each for there, each in asked if each > 0]
        self.slots = max(2, int(2 * min(fitting, default=128)))
        self._share = share
        own = (self.cpus_per_job, share) if together == 1 else (0, 0)  # else its workers have all
        self._remote = self._ray.remote(num_cpus=own[0], num_gpus=own[1], max_retries=2)(_run_on_ray)

    def start(self, number: int, assignment: Assignment) -> None:
        if self._share > 1:
            assignment = replace(assignment, processes=int(self._share))
        self._share_at[number] = self._share
        if self._stop is None:
            self._stop = assignment.folder / "stop"
            self._stop.unlink(missing_ok=True)  # one that a killed sweep left
        self._numbers[
            self._remote.remote(assignment.to_json(), self.threads, str(self._stop), self.cpus_per_job, self._on_gpus)
        ] = number

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

    def fewer(self, number: int) -> str | None:
        if self._share_at[number] == self._share:
            if self._share == 0 or self._share >= 1:
                return None
            self._ask(min(1.0, 2 * self._share))
        return f"it goes on later, with {self._share:g} of a GPU"

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


def _run_on_ray(content: dict[str, Any], threads: int, stop: str, cores: float, gpus: bool) -> int:
    """Run an assignment inside a Ray worker and return its exit code. The worker keeps a fork server for later ones; a
    job of several processes is Ray Train's, whose workers have so many `cores` and a GPU if `gpus`.

    If the file `stop` exists, assignments do not begin, and a running one is asked to save its state and end.
    """
    assignment = replace(Assignment.from_json(content), devices=os.environ.get("CUDA_VISIBLE_DEVICES"))
    if os.path.exists(stop):
        return -signal.SIGTERM
    if assignment.processes > 1:
        from .ray_train import train_on_ray

        return run_assignment(assignment, partial(train_on_ray, cores=cores, gpus=gpus, threads=threads, stop=stop))
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
