"""The common parts of all studies: a folder from which a killed study continues, trainings, tables, figures.

A study's folder:

study.json     the study's name, every setting that decides its results and, once it is done, its finding
figure.csv     the data of the figure, one row per point
figure.png
jobs/          and the other files of a sweep (fastnoise.sweeps): each training is a job
"""

import csv
import io
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from ..checks import cpu_cores
from ..errors import CheckpointError, ConfigError, DataError, TrainingError
from ..files import write_atomically, write_json, write_text
from ..texts import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ..config import RunConfig
    from ..sweeps import Job, SweepResult
    from ..tasks import Task


@dataclass(frozen=True)
class StudyOptions:
    """Options that all studies have."""

    quick: bool = False
    """Run a small version, with fewer values, repeats, samples and epochs."""
    out: str | None = None
    """Folder of the study. The same command continues a study there. None: a folder under ./studies."""
    jobs: int = 0
    """Number of trainings at once, each in its own process. 0: one per core, or one per GPU with CUDA."""
    data_root: str = "data"
    """Folder that holds the data sets, in torchvision's layout."""
    download: bool = True
    """Download a data set that is not under data-root."""
    device: str = "auto"
    """Device: auto (CUDA if there is a GPU), cpu, cuda or cuda:N."""
    seed: int = 0
    """Seed of weights, batch order and noise."""

    def __post_init__(self) -> None:
        if self.jobs < 0:
            raise ConfigError(f"--jobs must be 0 or more, not {self.jobs}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"--seed must lie in [0, 2^63), not {self.seed}")


# -- the folder ------------------------------------------------------------------------------------------------


class StudyFolder:
    """Paths of a study's folder at `path`."""

    def __init__(self, path: Path, study: str, settings: dict[str, Any]):
        self.path, self.study, self.settings = path, study, settings
        self.description = path / "study.json"
        self.table = path / "figure.csv"
        self.figure = path / "figure.png"

    @classmethod
    def open(cls, study: str, options: StudyOptions, settings: Mapping[str, Any]) -> "StudyFolder":
        """The folder that `options` name. It is made, or continued if it holds the same study.

        Args:
            settings: everything that decides the results, JSON-ready; its "dataset" is part of the default name.

        Raises:
            ConfigError: matplotlib is missing, or the folder's study has other settings.
            CheckpointError: the folder holds something else, is damaged or cannot be made.
        """
        from ..noise.plot import check_plot

        check_plot("a study")  # now rather than after hours of training
        plain: dict[str, Any] = json.loads(json.dumps(settings))
        words = [study, *([str(plain["dataset"])] if "dataset" in plain else []), *(["quick"] if options.quick else [])]
        name = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in "-".join(words))
        folder = cls(Path(options.out) if options.out is not None else Path("studies") / name, study, plain)
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            if not folder.description.exists() and any(folder.path.iterdir()):
                raise CheckpointError(f"--out {folder.path} is not empty and holds no study; choose another")
        except OSError as error:
            reason = error.strerror
            raise CheckpointError(f"cannot make the folder {folder.path}: {reason}; choose another --out") from error
        folder._claim()
        return folder

    def _claim(self) -> None:
        if not self.description.exists():
            write_json(self.description, {"study": self.study, "settings": self.settings})
            return
        stored = read_json(self.description)
        if stored.get("study") != self.study:
            raise ConfigError(f"--out {self.path} holds the study {stored.get('study')}; choose another folder")
        before = stored.get("settings", {})
        for name in [*self.settings, *before]:
            if before.get(name) != self.settings.get(name):
                raise ConfigError(
                    f"--out {self.path} holds a study with {name} {before.get(name)}, not {self.settings.get(name)}; "
                    f"choose another folder, or the same options"
                )

    def finish(self, finding: Mapping[str, Any], text: str) -> None:
        """Add the finding to study.json: `finding` has figures, `text` says in a line or two what they mean."""
        write_json(
            self.description,
            {"study": self.study, "settings": self.settings, "finding": dict(finding), "text": text},
        )


def check_limit(limit: int | None, dataset: str, images: int) -> None:
    """ConfigError if `--limit-train` is not in [1, `images`], the number of training images of `dataset`."""
    if limit is not None and not 1 <= limit <= images:
        raise ConfigError(f"--limit-train must lie in [1, {images}], the training images of {dataset}, not {limit}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON document in a study's folder. CheckpointError if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no object")
        return content
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); remove it to measure again") from error


# -- trainings -------------------------------------------------------------------------------------------------


def workers(options: StudyOptions) -> int:
    """The number of trainings at once that `--jobs` asks for. 0 means one per core, or one per GPU on CUDA."""
    if options.jobs:
        return options.jobs
    import torch

    if options.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.device_count()
    return cpu_cores()


def run_jobs(
    folder: StudyFolder, jobs: "Sequence[Job]", options: StudyOptions, console: Console, *, stack: int = 1
) -> "SweepResult":
    """Run the jobs that are not done yet, each in its own process or `stack` together. Returns the results of all.

    If a job fails, TrainingError is raised when all others are done. Interrupted after Ctrl-C or SIGTERM.
    """
    from ..sweeps import LocalExecutor, run_sweep

    result = run_sweep(
        jobs,
        folder.path.absolute(),
        executor=LocalExecutor(options.jobs),
        stack=stack,
        console=console,
        title=f"study {folder.study}",
        tables=False,
    )
    for name, error in result.failed.items():
        raise TrainingError(
            f"{len(result.failed)} of {len(jobs)} trainings failed, the first in {result.run_folder(name)}: {error}; "
            "repeat the command to try them again"
        )
    return result


# -- time ------------------------------------------------------------------------------------------------------


def time_steps(step: Callable[[], object]) -> float:
    """Seconds of one step with one torch thread, as in trainings that run at the same time.

    It is the median of up to 30 steps, or of as many as fit into 3 s. If steps are fast, three are made before.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times: list[float] = []
    if torch.cuda.is_initialized():
        for _ in range(3):  # which compile, load libraries and choose kernels, for up to a minute
            step()
        torch.cuda.synchronize()
    for number in range(33):
        began = time.perf_counter()
        step()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        if number >= 3 or seconds > 1:  # a slow one needs no others before it
            times.append(seconds)
        if sum(times) > 3:
            break
    torch.set_num_threads(threads)
    return statistics.median(times)


def make_step(
    config: "RunConfig", task: "Task", shape: tuple[int, int, int], labels: "NDArray[Any]"
) -> Callable[[], object]:
    """A training step of a run, in eager mode, on random images of a shape [channels, height, width].

    labels: of a batch, [B, ...] as `Task.table` gives them.
    """
    import torch

    from ..engine.optimizer import create_optimizer
    from ..engine.step import Step, choose_device
    from ..methods import Setting, create_method
    from ..models import create_model

    device, batch = choose_device(config.engine.device), config.data.batch_size
    channels, height, width = shape
    method = create_method(config.method, num_samples=batch, num_classes=task.num_outputs, task=task).to(device)
    method.configure(Setting(config.optim, (0.5,) * channels, (0.5,) * channels, batch))
    network = create_model(
        config.model.model,
        num_classes=task.num_outputs,
        channels=channels,
        image_size=(height, width),
        width=config.model.width,
        dropout=config.model.dropout,
        head=task.head,
    ).to(device)
    method.attach([network])
    step = Step(
        [network],
        method,
        create_optimizer(config.optim, network),
        torch.from_numpy(labels).to(device),
        batch_size=batch,
        config=config.replace({"gear": "eager"}).engine,
        device=device,
        clip_norm=config.optim.clip_norm,
    )
    images = torch.randn(batch, *shape, device=device).to(memory_format=torch.channels_last)
    index = torch.arange(batch, device=device)
    return lambda: step.train(images, index)


def steps_of(config: "RunConfig", images: int, test_images: int) -> float:
    """Steps of one training. An image that is evaluated counts as a third of a trained one: it has no backward pass.

    Args:
        images: number of training images in the data set, some of which may be held out for validation.
        test_images: number of test images. They are evaluated after each epoch, like those held out.
    """
    held_out = config.data.val_fraction * images
    trained = math.ceil((images - held_out) / config.data.batch_size) * config.optim.epochs
    evaluated = config.optim.epochs * (test_images + held_out) + images - held_out
    return trained + evaluated / 3 / config.data.batch_size


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    """The figures of each epoch in the metrics.jsonl of a run's folder."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def announce(
    console: Console,
    folder: StudyFolder,
    jobs: "Sequence[Job]",
    *,
    steps: "Callable[[Job], float]",
    seconds_per_step: float,
    workers: int,
) -> float:
    """Print what is left to do and how long it will take. Returns the seconds.

    Args:
        steps: the number of steps of a job. Evaluations are included as fractions of a step.
        seconds_per_step: of one of `workers` trainings that run at the same time (`time_steps`).
    """
    from ..sweeps.display import duration
    from ..sweeps.job import summary_file

    missing = [job for job in jobs if not summary_file(folder.path, job.name).exists()]
    left = sum(steps(job) for job in missing)
    # Beside the steps, a process takes some seconds to begin: importing torch, reading images, the first step.
    seconds = (left * seconds_per_step + START_SECONDS * len(missing)) / min(workers, max(1, len(missing)))
    console.print(
        f"{folder.study} in {folder.path}: {counted(len(jobs), 'training')}, {len(jobs) - len(missing)} done; "
        f"{left:,.0f} steps to make, about {duration(seconds)} "
        f"({1 / seconds_per_step:,.0f} steps/s measured, {workers} at a time)",
        highlight=False,
        soft_wrap=True,
    )
    return seconds


START_SECONDS = 3.0
"""Seconds that each training takes before its first step."""


# -- figures ---------------------------------------------------------------------------------------------------


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (with n - 1; 0 for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same keys as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    write_text(path, stream.getvalue())


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


Role = Literal["clean", "corrupted", "overall", "baseline"]

# Okabe and Ito's colours, told apart in every form of colour vision, and markers for prints in grey.
_LOOKS: dict[str, dict[str, Any]] = {
    "clean": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "corrupted": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    "overall": {"color": "#555555", "marker": "^", "linestyle": "-."},
    "baseline": {"color": "#009E73", "marker": "", "linestyle": ":"},
}


def new_figure(
    columns: int = 1, rows: int = 1, *, title: str = "", share_y: bool = True
) -> "tuple[Figure, list[Axes]]":
    """A figure with axes in rows. Axes that show the same quantity share their y axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.8 + 4.6 * columns, 0.5 + 3.6 * rows), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share_y)
    axes = list(grid.flat)
    for part in axes:
        part.grid(color="#dddddd", linewidth=0.6)
        part.set_axisbelow(True)
        part.spines[["top", "right"]].set_visible(False)
        part.tick_params(labelleft=True)
    return figure, axes


def draw_line(
    axes: "Axes",
    x: Sequence[float],
    mean: Sequence[float],
    spread: Sequence[float] | None = None,
    *,
    label: str,
    role: Role,
) -> None:
    """Draw a line with markers, and a band of +- `spread` around it."""
    look = _LOOKS[role]
    axes.plot(x, mean, label=label, markersize=5, linewidth=1.8, **look)
    if spread is not None and any(spread):
        low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a PNG. DataError if it can't be written."""
    write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=150), DataError)
