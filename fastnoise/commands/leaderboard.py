"""fastnoise leaderboard: methods, data sets and noises beside each other, by accuracy and by time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tomli_w
import tyro

from ..errors import ConfigError
from ..texts import counted
from .jobs import JobsCommand, until_stopped

if TYPE_CHECKING:
    from ..sweeps import Executor, Job

SUBMISSIONS = "submissions"
"""The folder of the rows within that of a leaderboard."""


@dataclass(frozen=True)
class LeaderboardCommand(JobsCommand):
    """Train methods on data sets under noises, and rank them by accuracy and time beside the published values.

    What runs is every combination of --methods, --datasets, --noises and --recipes, or what a sweep's file says. The
    names quick (digits and MNIST, minutes on two cores) and human (CIFAR-10N and CIFAR-100N) stand for boards that come
    with fastnoise. Out come a page, its tables as Markdown and CSV, and a TOML file for each row. Rows of earlier
    commands with the same --out stay on the page. If a leaderboard was killed, the same command continues it.
    Examples:
      fastnoise leaderboard quick
      fastnoise leaderboard --methods ce elr nal --datasets cifar10 --noises symmetric:0.2 symmetric:0.4
      fastnoise leaderboard --methods elr --datasets cifar10n --noises human:worse --target-accuracy 0.85
      fastnoise leaderboard --methods ce elr nal --datasets cifar10 --recipes cpu --noises symmetric:0.4
      fastnoise leaderboard SPEC.toml --dry-run
      fastnoise leaderboard --submissions benchmarks/results/leaderboard
    """

    spec: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="SPEC.toml")] = None
    """A sweep's file, or the name of a board that comes with fastnoise."""
    methods: tuple[str, ...] = ()
    """Methods, as --method of fastnoise train takes them."""
    datasets: tuple[str, ...] = ()
    """Data sets, as --dataset takes them."""
    noises: tuple[str, ...] = ()
    """Noises, as --noise takes them. None: each data set's default, human labels for CIFAR-N."""
    recipes: tuple[str, ...] = ()
    """Recipes, as --recipe takes them. None: published."""
    seeds: int | None = None
    """Number of seeds of each row. None: 3, or what the file says."""
    data_root: str | None = None
    """Folder that holds the data sets, in torchvision's layout. None: data, or what the file says."""
    target_accuracy: float = 0.9
    """Test accuracy, a share, to which the page gives the minutes."""
    out: str | None = None
    """Folder of the leaderboard. None: leaderboard."""
    submit: str | None = None
    """Folder to which the TOML files of this command's rows are written too, as benchmarks/results/leaderboard."""
    submissions: str | None = None
    """Train nothing: make the page of the TOML files in this folder. It goes there, or to --out if that is given."""
    dry_run: bool = False
    """Print the jobs with their names, and run none."""


def run(command: LeaderboardCommand) -> int:
    """Do what the command says; returns 0, 1 where jobs failed, 130 or 143 when stopped by a signal."""
    from ..leaderboard.board import board_content, board_jobs, keep_where

    if not 0 < command.target_accuracy <= 1:
        raise ConfigError(f"--target-accuracy must be a share in (0, 1], not {command.target_accuracy:g}")
    if command.seeds is not None and command.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, not {command.seeds}")
    command.check()
    words: Any = (command.spec, command.methods, command.datasets, command.noises, command.recipes)
    words += (command.seeds, command.data_root)
    if command.submissions is not None:
        if any(word for word in words):
            raise ConfigError("--submissions trains nothing: drop it, or what says what to train")
        return _page_of(Path(command.submissions), command)
    content = board_content(*words)
    jobs = board_jobs(content, command.spec or "leaderboard")
    out = Path(command.out or "leaderboard").absolute()
    if command.dry_run:
        done = [job for job in jobs if _is_done(out, job)]
        for job in jobs:
            print(job.name, job.describe(), *(["done"] if job in done else []))
        print(f"{counted(len(jobs), 'job')}, {len(done)} done in {out}")
        return 0
    from ..noise.plot import check_plot

    check_plot("a leaderboard")  # now rather than after hours of training
    with command.opened() as executor:
        where = _where(command, executor, jobs)
        keep_where(out, where)
        return until_stopped(lambda: _train(command, out, content, jobs, executor, where))


def _is_done(out: Path, job: "Job") -> bool:
    from ..sweeps.job import summary_file

    return summary_file(out, job.name).exists()


def _where(command: LeaderboardCommand, executor: "Executor", jobs: "Sequence[Job]") -> str:
    """What the times are measured with, in a line."""
    if command.executor == "local":
        return executor.open(jobs)
    gpus = "1 GPU or none" if command.gpus_per_job is None else f"{command.gpus_per_job:g} GPUs"
    cores = command.threads if command.cpus_per_job is None else command.cpus_per_job
    return f"jobs of a Ray cluster, {gpus} and CPU cores {cores:g} each"


def _train(
    command: LeaderboardCommand,
    out: Path,
    content: dict[str, Any],
    jobs: "Sequence[Job]",
    executor: "Executor",
    where: str,
) -> int:
    from ..engine.display import make_console
    from ..leaderboard.board import submissions_of
    from ..leaderboard.page import write_pages
    from ..leaderboard.submission import read_submissions, write_submission
    from ..leaderboard.tables import tables_of
    from ..sweeps import run_sweep

    console = make_console()
    result = run_sweep(
        jobs,
        out,
        executor=executor,
        console=console,
        title="leaderboard",
        spec=tomli_w.dumps(content),
        tables=False,
        keep=command.keep,
    )
    rows = submissions_of(out, jobs, where)
    for row in rows:
        write_submission(out / SUBMISSIONS, row)
        if command.submit is not None:
            print(f"submission: {write_submission(Path(command.submit), row)}")
    names = {job.name: job for job in jobs}
    missing = [f"{names[name].describe()} failed: {error}" for name, error in result.failed.items()]
    if not rows:
        return 1
    for table in tables_of(rows, command.target_accuracy, brief=True):
        console.print(table.rich())
    page = write_pages(out, read_submissions(out / SUBMISSIONS), command.target_accuracy, missing, f"Folder {out}")
    print(f"written: {page}, and beside it {page.stem}.md, {page.stem}.csv and {SUBMISSIONS}")
    return 1 if result.failed else 0


def _page_of(folder: Path, command: LeaderboardCommand) -> int:
    """Make the page of a folder's submissions."""
    from ..errors import DataError
    from ..leaderboard.submission import read_submissions

    rows = read_submissions(folder)
    from ..leaderboard.page import write_pages
    from ..noise.plot import check_plot

    check_plot("a leaderboard")
    out = folder if command.out is None else Path(command.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder --out {out}: {error.strerror}; choose another") from None
    page = write_pages(out, rows, command.target_accuracy, what=f"Submissions in {folder}")
    print(f"written: {page}, of {counted(len(rows), 'submission')}")
    return 0
