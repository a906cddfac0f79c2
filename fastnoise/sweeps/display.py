"""The output of a sweep: a live table on a terminal, plain lines elsewhere."""

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..tasks.names import SCORES, score_in
from ..texts import counted
from .job import Assignment, run_folder
from .results import SweepResult
from .spec import Job

_MOST_SHOWN = 16
_HEARTBEAT = 60.0
"""Seconds after which a line says that the sweep is still running, if there is no terminal."""


def duration(seconds: float) -> str:
    """As in `42 s`, `12 min` or `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class _Running:
    """A running job. It reads new lines from the job's metrics.jsonl, which gets one each epoch."""

    def __init__(self, assignment: Assignment, job: Job):
        self.job = job
        self.epochs = _epochs(job)
        self.began: float | None = None
        self._handed = time.time() - 0.1  # file systems date by a clock of coarser ticks
        self._log = assignment.log
        self._path = run_folder(assignment.folder, job.name) / "metrics.jsonl"
        self._offset = 0
        self.last: dict[str, Any] = {}
        self.read()
        self.before = self.epoch

    @property
    def epoch(self) -> int:
        return min(self.epochs, int(self.last.get("epoch", 0)))

    @property
    def seconds(self) -> float:
        """Seconds since its process began, which on a cluster can be long after the job was handed over."""
        return 0.0 if self.began is None else time.monotonic() - self.began

    def look(self) -> None:
        """Check whether the process has begun. It first opens its log."""
        with contextlib.suppress(OSError):
            if self.began is None and self._log.stat().st_mtime >= self._handed:
                self.began = time.monotonic()

    def read(self) -> None:
        """Read the new lines."""
        try:
            if self._path.stat().st_size < self._offset:  # a resumed run drops what its checkpoint does not know
                self._offset = 0
            with open(self._path, "rb") as stream:
                stream.seek(self._offset)
                data = stream.read()
        except OSError:
            return
        end = data.rfind(b"\n") + 1
        if end:
            self._offset += end
            try:
                line = json.loads(data[:end].splitlines()[-1])
            except ValueError:  # read while it was replaced
                return
            self.last = line if isinstance(line, dict) else self.last


def _epochs(job: Job) -> int:
    epochs = job.fields.get("epochs")
    return epochs if isinstance(epochs, int) and epochs > 0 else 1


class SweepDisplay:
    """Progress of a sweep and the time left, estimated from the finished and the remaining epochs.

    Args:
        console: a terminal shows a table that is redrawn, anything else plain lines.
        title: names the sweep.
        folder: of the sweep.
        total: number of all jobs, including those that were done before.
        pending: the jobs to run now.
    """

    def __init__(self, console: Console, title: str, folder: Path, total: int, pending: Sequence[Job]):
        self.console, self.title, self.folder, self.total = console, title, folder, total
        self.earlier = total - len(pending)
        self.finished = self.broken = 0
        self._to_come = float(sum(_epochs(job) for job in pending))
        self._made = 0.0
        self._running: dict[str, _Running] = {}
        self._began = self._spoke = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> "SweepDisplay":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)
        self._spoke = time.monotonic()

    def announce(self, where: str) -> None:
        """Print the first line: what will run where."""
        done = f", {self.earlier} done before" if self.earlier else ""
        self.say(f"{self.title}: {counted(self.total, 'job')}{done}; {where}; folder {self.folder}")

    def start(self, assignment: Assignment) -> None:
        """Note that an assignment was handed over."""
        for job in assignment.jobs:
            self._running[job.name] = _Running(assignment, job)
            self._to_come -= self._running[job.name].before

    def done(self, job: Job, row: dict[str, Any]) -> None:
        """Note that a job is done."""
        running = self._running.pop(job.name)
        self._made += running.epochs - running.before
        self.finished += 1
        reached = next(
            (s.shown(row[f"test_{s.name}_last"]) for s in SCORES.values() if f"test_{s.name}_last" in row), ""
        )
        accuracy = f" test {reached} " if reached else " done "
        self.say(
            f"{self._count()} {job.name} {job.describe()} {accuracy} {duration(running.seconds)}{self._left_words()}"
        )

    def failed(self, job: Job, error: str) -> None:
        """Note that a job failed."""
        self._forget(job)
        self.broken += 1
        self.say(f"{self._count()} {job.name} {job.describe()}  failed: {error}")

    def left(self, job: Job) -> None:
        """Note that a job was stopped with the sweep."""
        self._forget(job)

    def again(self, job: Job) -> None:
        """Note that a job has ended, and will go on later."""
        running = self._running.pop(job.name)
        self._made += running.epoch - running.before
        self._to_come += running.epoch  # of which `start` takes off what it finds done

    def _forget(self, job: Job) -> None:
        running = self._running.pop(job.name)
        self._made += running.epoch - running.before
        self._to_come -= running.epochs - running.epoch

    def _count(self) -> str:
        return f"[{self.earlier + self.finished + self.broken}/{self.total}]"

    def _done_epochs(self) -> float:
        return self._made + sum(running.epoch - running.before for running in self._running.values())

    def seconds_left(self) -> float | None:
        """The time left, estimated from the epochs per second so far. None if there are none yet."""
        made = self._done_epochs()
        return (time.monotonic() - self._began) / made * (self._to_come - made) if made > 0 else None

    def _left_words(self) -> str:
        left = self.seconds_left()
        return "" if left is None else f", {duration(left)} left"

    def update(self) -> None:
        """Look at the running jobs and show them."""
        for running in self._running.values():
            running.look()
        if self._live is None:
            if time.monotonic() - self._spoke >= _HEARTBEAT:
                for running in self._running.values():
                    running.read()
                begun = sum(running.began is not None for running in self._running.values())
                self.say(f"{self._count()} {begun} running{self._left_words()}")
            return
        for running in self._running.values():
            running.read()
        self._live.update(self._table(), refresh=True)

    def _table(self) -> Group:
        table = Table(title=self.title)
        for column in ("job", "", "epoch", "test", "for"):
            table.add_column(column, justify="left" if column in ("job", "") else "right")
        shown = sorted(self._running.values(), key=lambda running: -running.epoch)[:_MOST_SHOWN]
        for running in shown:
            score = score_in(running.last)
            reached = running.last.get(f"test_{score.name}")
            table.add_row(
                running.job.name,
                Text(running.job.describe()),
                f"{running.epoch}/{running.epochs}",
                "" if reached is None else score.shown(reached),
                "" if running.began is None else duration(running.seconds),
            )
        if len(self._running) > len(shown):
            table.caption = f"and {len(self._running) - len(shown)} others"
        ended = self.earlier + self.finished + self.broken
        bottom = Table.grid(padding=(0, 1))
        words = f"{self.earlier + self.finished} of {self.total} done, {self.broken} failed{self._left_words()}"
        bottom.add_row(ProgressBar(total=self.total, completed=ended, width=40), words)
        return Group(table, bottom)

    def conclude(self, result: SweepResult) -> None:
        """Print the last lines: what failed, and where the results are."""
        names = {job.name: job for job in result.jobs}
        for name, error in result.failed.items():
            self.say(f"failed: {name} ({names[name].describe()}): {error}")
        took = duration(time.monotonic() - self._began)
        failed = f", {len(result.failed)} failed (the same command runs them again)" if result.failed else ""
        self.say(f"{len(result.rows)} of {counted(self.total, 'job')} done{failed} in {took}; results in {self.folder}")
