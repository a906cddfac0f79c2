"""One assignment of a sweep in its own process: one run, or several stacked runs."""

import contextlib
import fcntl
import os
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import lazy
from ..config import RunConfig
from ..errors import ConfigError, FastnoiseError
from ..fields import stored
from ..files import write_json, write_text
from ..options import AUTO
from .spec import Config, Job

if TYPE_CHECKING:
    from ..auto import Choice

OUT_OF_MEMORY = 75
"""Exit code of a job for which a GPU had too little memory."""

LOCK_PATIENCE = 60.0
"""Seconds that a job waits until a process of an earlier sweep, which is just ending, releases the job's lock."""


@dataclass(frozen=True)
class Assignment:
    """What one process does: one job, or with `stacked` several training runs at once."""

    folder: Path
    """The sweep's folder."""
    jobs: tuple[Job, ...]
    stacked: bool = False
    devices: str | None = None
    """Value of CUDA_VISIBLE_DEVICES. None leaves it unchanged."""
    processes: int = 1
    """How many train its job together, each on a GPU of its own if there are GPUs."""

    def to_json(self) -> dict[str, Any]:
        """The assignment for another process, without the varied fields, which only tables need."""
        return {
            "folder": str(self.folder),
            "stacked": self.stacked,
            "devices": self.devices,
            "processes": self.processes,
            "jobs": [
                {"name": job.name, "function": job.function, "run": isinstance(job.config, RunConfig)}
                | {"config": dict(job.fields)}
                for job in self.jobs
            ],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Assignment":
        """The assignment that `to_json` wrote."""
        jobs = []
        for entry in content["jobs"]:
            config: Config = stored(entry["config"]) if entry["run"] else entry["config"]
            jobs.append(Job(entry["name"], config, {}, entry["function"]))
        return cls(Path(content["folder"]), tuple(jobs), content["stacked"], content["devices"], content["processes"])

    @property
    def log(self) -> Path:
        """The file for the assignment's output."""
        return self.folder / "logs" / f"{self.jobs[0].name}.log"


def run_folder(folder: Path, name: str) -> Path:
    """The folder of a job within a sweep's folder."""
    return folder / "jobs" / name


def summary_file(folder: Path, name: str) -> Path:
    """The file that exists when a job is done."""
    return run_folder(folder, name) / "summary.json"


def error_file(folder: Path, name: str) -> Path:
    """The file that says why a job failed. Its last line is the error."""
    return run_folder(folder, name) / "error.txt"


class Locks:
    """Locks of a sweep's folder. A lock ends when the process that holds it ends in any way.

    They are record locks (fcntl) on bytes of one file: byte SWEEP for the sweep, and for each job the byte whose offset
    is its name as a number. They leave no files behind, forks do not inherit them, and they work over network file
    systems. A process must open the file only once, because closing it anywhere releases all locks of the process.
    """

    SWEEP = 1 << 49  # beyond twelve hexadecimal digits

    def __init__(self, folder: Path):
        self.path = folder / "sweep.lock"
        self._stream = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")

    def take(self, offset: int, patience: float = 0.0) -> bool:
        """Try for `patience` seconds to take the lock at `offset`. Returns whether this process holds it now."""
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
                return True
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= deadline:
                    return False
            time.sleep(0.1)

    def sign(self, text: str) -> None:
        """Write into the file who holds the sweep's lock."""
        self._stream.seek(0)
        self._stream.truncate()
        self._stream.write(text.encode())
        self._stream.flush()

    def signature(self) -> str:
        """The text that `sign` wrote."""
        self._stream.seek(0)
        return self._stream.read().decode(errors="replace").strip()

    def close(self) -> None:
        """Release all locks."""
        self._stream.close()


Together = Callable[[Assignment, Path], list[int]]
"""Starts the processes of a job, each of which does what `sweeps.worker` says of the file; returns the exit codes of
those that failed."""


def here(assignment: Assignment, asked: Path) -> list[int]:
    """Processes of this machine."""
    from ..engine.launch import launch

    return launch(assignment.processes, ["-m", "fastnoise.sweeps.worker", str(asked), str(os.getpid())])


def run_assignment(assignment: Assignment, together: Together = here) -> int:
    """Do the assignment. Returns the exit code of its process, 0 if all its jobs are done.

    If a job fails, error.txt says why. A job that a process of an earlier sweep has already done is not run again.
    `together` starts the processes of jobs that have several.
    """
    from rich.console import Console

    console = Console(width=120, markup=False, emoji=False)
    locks = Locks(assignment.folder)
    try:
        for job in assignment.jobs:
            if not locks.take(int(job.name, 16), LOCK_PATIENCE):
                raise ConfigError(f"another process still runs {job.name}; end it, then run the sweep again")
        jobs = [job for job in assignment.jobs if not summary_file(assignment.folder, job.name).exists()]
        folders = [_prepare(assignment.folder, job) for job in jobs]
        if assignment.stacked and len(jobs) > 1:
            _train_stacked(jobs, folders, console)
        else:
            for job, folder in zip(jobs, folders, strict=True):
                if assignment.processes > 1:
                    if code := _run_together(assignment, job, folder, together, console):
                        return code
                else:
                    _run(job, folder, console)
        return 0
    except BaseException as error:
        return explain(assignment, error)
    finally:
        locks.close()


def _prepare(sweep: Path, job: Job) -> Path:
    """The job's folder, without an earlier error, and without a training run that was killed before it began."""
    folder = run_folder(sweep, job.name)
    folder.mkdir(parents=True, exist_ok=True)
    error_file(sweep, job.name).unlink(missing_ok=True)
    if isinstance(job.config, RunConfig) and not (folder / "config.toml").exists():
        shutil.rmtree(folder)
        folder.mkdir()
    return folder


def _run(job: Job, folder: Path, console: Any) -> None:
    if job.function is not None:
        summary = lazy.named(job.function)(dict(job.fields), folder, console)
        write_json(folder / "summary.json", summary)
        return
    from ..engine import train

    config, choice = _decided(job, folder, console)
    told = {} if choice is None else choice.told()
    train(config, resume=(folder / "config.toml").exists(), console=console, **told)
    _say_doubts(folder, console)


def _decided(job: Job, folder: Path, console: Any, *, parallel: bool = False) -> "tuple[RunConfig, Choice | None]":
    """The configuration of a job's run and, if method auto has just chosen its method, the choice. A run that has begun
    goes on by the method that was chosen for it."""
    assert isinstance(job.config, RunConfig)
    config = job.config.replace({"run_dir": str(folder)})
    if config.method.method != AUTO:
        return config, None
    if (folder / "config.toml").exists():
        from ..engine import RunFolder

        return RunFolder.open(folder).read_config().replace({"run_dir": str(folder)}), None
    from ..auto import choose

    choice = choose(config, console=console, parallel=parallel, fall_back=True)
    return choice.config(config), choice


def _say_doubts(folder: Path, console: Any) -> None:
    from ..auto.check import doubts_of_run

    for line in doubts_of_run(folder):
        console.print(f"warning: {line}", highlight=False, soft_wrap=True)


def _run_together(assignment: Assignment, job: Job, folder: Path, together: Together, console: Any) -> int:
    """Train a job in several processes; returns the exit code."""
    if not isinstance(job.config, RunConfig):
        raise ConfigError("a study's own jobs take one GPU each: give --gpus-per-job 1 or less")
    config, choice = _decided(job, folder, console, parallel=True)
    asked = folder.with_name(f"{job.name}.json")  # not in the run's folder, which must be empty
    content = replace(assignment, jobs=(replace(job, config=config),)).to_json()
    content |= {"resume": (folder / "config.toml").exists(), "told": {} if choice is None else choice.told()}
    write_json(asked, content)
    try:
        codes = together(assignment, asked)
    finally:
        asked.unlink()
    if not codes:
        _say_doubts(folder, console)
    return OUT_OF_MEMORY if OUT_OF_MEMORY in codes else next(iter(codes), 0)


def _train_stacked(jobs: Sequence[Job], folders: Sequence[Path], console: Any) -> None:
    from ..engine.stacked import train_stacked

    configs = [
        job.config.replace({"run_dir": str(folder)})
        for job, folder in zip(jobs, folders, strict=True)
        if isinstance(job.config, RunConfig)
    ]
    train_stacked(configs, console=console)


def explain(assignment: Assignment, error: BaseException) -> int:
    """Write what went wrong for each job that is not done. Returns the exit code."""
    import torch

    from ..engine import Interrupted

    if isinstance(error, Interrupted | KeyboardInterrupt):
        print(error)
        return 128 + (error.signal_number if isinstance(error, Interrupted) else 2)
    traceback.print_exc()
    code = 1
    if isinstance(error, FastnoiseError):
        text = " ".join(str(error).split())
    elif isinstance(error, torch.OutOfMemoryError):
        text = f"{str(error).splitlines()[0]} Lower batch_size or width, or run fewer jobs at once"
        code = OUT_OF_MEMORY
    else:
        said = " ".join(str(error).split()) or "no message"
        text = f"{traceback.format_exc()}{type(error).__name__}: {said}"
    for job in assignment.jobs:
        if not summary_file(assignment.folder, job.name).exists():
            write_error(assignment.folder, job.name, text)
    return code


def drop_checkpoint(folder: Path, name: str) -> None:
    """Remove the checkpoint of a finished job, whose networks are in its model file; of one without that it stays."""
    run = run_folder(folder, name)
    if (run / "model.safetensors").exists():
        (run / "checkpoint.pt").unlink(missing_ok=True)
        shutil.rmtree(run / "checkpoints", ignore_errors=True)


def write_error(folder: Path, name: str, text: str) -> None:
    """Write a job's error.txt. The last line of `text` is the error itself."""
    with contextlib.suppress(FileExistsError):
        os.makedirs(run_folder(folder, name))
    write_text(error_file(folder, name), text + "\n")


def read_error(folder: Path, name: str) -> str | None:
    """The last line of a job's error.txt; None if there is none."""
    try:
        lines = error_file(folder, name).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    return lines[-1] if lines else "no message"
