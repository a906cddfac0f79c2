"""Runs a sweep's jobs, each in its own process. A sweep that was killed anywhere continues where it stopped."""

import json
import os
import shlex
import signal
import socket
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..config import RunConfig
from ..errors import CheckpointError, ConfigError
from ..files import write_text
from ..sources import digests
from ..texts import counted
from .executors import Ended, Executor
from .job import OUT_OF_MEMORY, Assignment, Locks, drop_checkpoint, read_error, run_folder, summary_file, write_error
from .results import ResultsFile, SweepResult, make_row, read_summary, write_tables
from .spec import Job

if TYPE_CHECKING:
    from rich.console import Console

    from .display import SweepDisplay

TICK = 0.5
"""Seconds between two looks at the progress of running jobs."""


def run_sweep(
    jobs: Sequence[Job],
    folder: Path,
    *,
    executor: Executor,
    stack: int = 1,
    console: "Console | None" = None,
    title: str = "sweep",
    spec: str | None = None,
    tables: bool = True,
    keep: Literal["none", "checkpoint"] = "none",
) -> SweepResult:
    """Run the jobs that are not done yet. If this call is stopped or killed, the same call continues.

    `folder` holds: for each job its run folder jobs/NAME and its output logs/NAME.log; results.csv, with one row per
    finished job; tables.md; sweep.toml, if `spec` is given; sweep.lock. If a job failed, its run folder holds error.txt
    until the job runs again. A job is done when its summary.json exists. If a job fails or its process is killed, the
    other jobs continue, and the next call runs it again from its last checkpoint.

    Args:
        jobs: what to run, in this order.
        folder: made if it is missing.
        executor: where to run.
        stack: number of runs that train as one batched computation; they may differ in seeds, noise and labels only.
        console: where progress and tables go; standard output by default.
        title: names the sweep.
        spec: the text of the sweep's file, kept in `folder`.
        tables: print the tables at the end.
        keep: what is left of a finished job to go on from. Its networks are in its model file in either case.

    Raises:
        ConfigError: another sweep works in `folder`, the executor can't run, or a file that finished jobs learnt from
            has changed since.
        CheckpointError: `folder` can't be written, or a summary in it is damaged.
        Interrupted: after Ctrl-C or SIGTERM, when running jobs have saved their state.
    """
    from ..engine import Interrupted
    from ..engine.display import make_console
    from ..engine.signals import deferred_signals
    from .display import SweepDisplay

    console = console or make_console()
    if stack < 1:
        raise ConfigError(f"--stack must be positive, not {stack}")
    try:
        for path in (folder / "jobs", folder / "logs"):
            path.mkdir(parents=True, exist_ok=True)
        locks = Locks(folder)
    except OSError as error:
        raise CheckpointError(f"cannot work in the sweep's folder {folder}: {error.strerror}; choose another") from None
    try:
        if not locks.take(Locks.SWEEP):
            raise ConfigError(
                f"{folder}: another sweep works here ({locks.signature()}); end it, or choose another folder"
            )
        locks.sign(f"process {os.getpid()} on {socket.gethostname()}")
        if spec is not None:
            write_text(folder / "sweep.toml", spec)
        results = ResultsFile(folder, jobs)
        result = SweepResult(list(jobs), folder)
        pending = []
        _check_files(folder, jobs)
        for job in jobs:
            if summary_file(folder, job.name).exists():
                results.keep(make_row(job, read_summary(folder, job.name)))
                if keep == "none":
                    drop_checkpoint(folder, job.name)
            else:
                pending.append(job)
        results.rewrite()
        display = SweepDisplay(console, title, folder, len(jobs), pending)
        others = len({path.name for path in (folder / "jobs").iterdir()} - {job.name for job in jobs})
        if others:
            display.say(
                f"{title}: {others} earlier runs in {folder / 'jobs'} are no jobs of this sweep; they stay there"
            )
        if pending:
            line = executor.open(pending)
            try:
                assignments = _make_assignments(folder, pending, stack, display)
                with display, deferred_signals() as signals:
                    display.announce(line)
                    _Loop(executor, assignments, results, result, display, signals, keep).run()
            finally:
                executor.close()
        result.rows = results.rows
        results.rewrite()
        found = write_tables(result, title)
        if pending and signals:
            left = len(jobs) - len(result.rows) - len(result.failed)
            raise Interrupted(
                f"stopped with {left} of {counted(len(jobs), 'job')} left, all saved; the same command continues",
                signals[0],
            )
        if tables:
            for table in found:
                console.print(table.rich())
        display.conclude(result)
        return result
    finally:
        locks.close()


def _check_files(folder: Path, jobs: Sequence[Job]) -> None:
    """ConfigError if a file of labels, images, weights or noise has changed since a job that names it has finished."""
    from ..engine import RunFolder

    changed: dict[str, list[str]] = {}
    for job in jobs:
        if isinstance(job.config, RunConfig) and summary_file(folder, job.name).exists():
            before = RunFolder(run_folder(folder, job.name)).detail("files")
            fields = job.config.flat()
            now = digests(fields)
            for name in now:
                if isinstance(before, dict) and before.get(name, now[name]) != now[name]:
                    changed.setdefault(str(fields[name]), []).append(str(run_folder(folder, job.name)))
    for file, finished in changed.items():
        raise ConfigError(
            f"{file} has changed since {counted(len(finished), 'job')} finished with it: choose another folder for the "
            f"sweep, or remove {shlex.join(finished[:3])}{' and so on' * (len(finished) > 3)} to train anew"
        )


def _make_assignments(folder: Path, jobs: Sequence[Job], stack: int, display: "SweepDisplay") -> deque[Assignment]:
    """The assignments of pending jobs in their order. With `stack`, jobs that can be stacked share an assignment."""
    if stack == 1:
        return deque(Assignment(folder, (job,)) for job in jobs)
    from ..engine.stacked import PER_RUN, stackable

    groups: dict[str, list[Job]] = {}
    for job in jobs:
        alike = {key: value for key, value in job.fields.items() if key not in PER_RUN}
        groups.setdefault(json.dumps([job.function, alike], sort_keys=True), []).append(job)
    assignments: deque[Assignment] = deque()
    for members in groups.values():
        for start in range(0, len(members), stack):
            part = tuple(members[start : start + stack])
            configs = [job.config for job in part if isinstance(job.config, RunConfig)]
            reason = "jobs of a study's own" if len(configs) < len(part) else stackable(configs)
            if reason is None and len(part) > 1:
                assignments.append(Assignment(folder, part, stacked=True))
            else:
                assignments.extend(Assignment(folder, (job,)) for job in part)
                if len(part) > 1:
                    display.say(f"not stacked: {part[0].describe()} and {len(part) - 1} others: {reason}")
    return assignments


class _Loop:
    """Hands assignments to the executor and records how each of them ends."""

    def __init__(
        self,
        executor: Executor,
        assignments: deque[Assignment],
        results: ResultsFile,
        result: SweepResult,
        display: "SweepDisplay",
        signals: list[int],
        keep: Literal["none", "checkpoint"],
    ):
        self.executor, self.assignments, self.results, self.result = executor, assignments, results, result
        self.display, self.signals = display, signals
        self.keep = keep
        self.running: dict[int, Assignment] = {}
        self.started = 0

    def run(self) -> None:
        stopping = False
        while self.running or (self.assignments and not stopping):
            if self.signals and not stopping:
                stopping = True
                self.executor.stop()
                self.display.say("stopping: running jobs save their state; Ctrl-C again ends them at once")
            while self.assignments and not stopping and len(self.running) < self.executor.slots:
                assignment = self.assignments.popleft()
                self.running[self.started] = assignment
                self.display.start(assignment)
                self.executor.start(self.started, assignment)
                self.started += 1
            for end in self.executor.wait(TICK):
                self.end(self.running.pop(end.number), end, stopping)
            self.display.update()

    def end(self, assignment: Assignment, end: Ended, stopping: bool) -> None:
        folder = assignment.folder
        if end.code == OUT_OF_MEMORY and not stopping and (line := self.executor.fewer(end.number)) is not None:
            self.display.say(f"{assignment.jobs[0].describe()}: a GPU had too little memory; {line}")
            self.assignments.appendleft(assignment)
            for job in assignment.jobs:
                self.display.again(job)
            return
        for job in assignment.jobs:
            if summary_file(folder, job.name).exists():
                row = make_row(job, read_summary(folder, job.name))
                self.results.add(row)
                self.display.done(job, row)
                if self.keep == "none":
                    drop_checkpoint(folder, job.name)
                continue
            error = read_error(folder, job.name)
            if error is None and stopping:
                self.display.left(job)
                continue
            if error is None:
                error = f"{_death(end)}; see logs/{assignment.log.name}, and run the sweep again to continue"
                write_error(folder, job.name, error)
            self.result.failed[job.name] = error
            self.display.failed(job, error)


def _death(end: Ended) -> str:
    """What ended a process that has written no error."""
    if end.code is None:
        return f"its process was lost ({end.message})"
    if end.code >= 0:
        return f"its process ended with exit code {end.code}"
    name = signal.Signals(-end.code).name
    likely = ", as the system does when memory runs out" if -end.code == signal.SIGKILL else ""
    return f"its process was killed by {name}{likely}"
