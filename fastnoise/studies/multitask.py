"""How wrong labels of one task affect another that shares its network (Khanal and Kanan 2021, sections 3.2, 4.2 and
5.2, Figure 5).

The classes of CIFAR-100 are split at random into two tasks of 50, three times. A ResNet18 of double width with Mish has
a head for each task and gets a batch of each task in turn; the two cross-entropies are summed. Each label of task 2 is
replaced with probability p by another class of the task. The labels of task 1 and all test labels stay right. The model
is that of the epoch with the lowest validation loss of task 1, on a tenth of its training images. The single-task
baseline is the same network with the first head alone. The transfer is what task 1 gains over the baseline.

The paper leaves some settings open. Ours are 12 values of p, 200 epochs, batches of 128, SGD with Nesterov momentum
0.9, learning rate 0.05 with a cosine schedule, weight decay 5e-4, crop and flip.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from ..config import RunConfig
from ..data.datasets import load_dataset
from ..errors import ConfigError
from ..noise.spec import parse
from ..recipes import recipe
from ..texts import counted
from .base import (
    StudyFolder,
    StudyOptions,
    announce,
    draw_line,
    epochs_of,
    make_step,
    mean_sd,
    new_figure,
    run_jobs,
    save_figure,
    steps_of,
    time_steps,
    workers,
    write_table,
)

if TYPE_CHECKING:
    from ..data import ImageDataset
    from ..sweeps import Job, SweepResult

FULL: dict[str, Any] = {
    "rates": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
    "repeats": 3,
    "epochs": 200,
    "limit_train": None,
    "width": 2.0,
    "batch_size": 128,
    "learning_rate": 0.05,
}
QUICK: dict[str, Any] = {
    "rates": (0.0, 0.6, 1.0),
    "repeats": 1,
    "epochs": 8,
    "limit_train": 3000,
    "width": 0.125,
    "batch_size": 32,
    "learning_rate": 0.03,
}
VALIDATION = 0.1
"""Share of the training images that are held out, as in the paper."""
PUBLISHED = {"baseline": 0.7563, "task1": 0.7950, "task2": 0.809}
"""Test accuracies at p = 0 (section 5.2)."""


@dataclass(frozen=True)
class Options(StudyOptions):
    """Two tasks share a network: do wrong labels in one task take from the other what it gains? (Khanal and Kanan 2021,
    Figure 5)

    --quick trains 4 networks in five minutes on two free CPU cores; they are too narrow for much transfer. The full
    study trains 39 networks on CIFAR-100, which takes 4.6e18 floating-point operations: 13 hours at 100 TFLOP/s on a
    GPU, 640 days of a CPU core at 0.16 s per image. Each start measures steps and prints the time. Examples:
      fastnoise study multitask --quick
      fastnoise study multitask
      fastnoise study multitask --rates 0 0.5 1 --repeats 1 --width 1
    """

    dataset: str = "cifar100"
    """Data set whose classes are split into two tasks: cifar100, cifar10, mnist, digits or folder:PATH."""
    rates: tuple[float, ...] | None = None
    """Probabilities p of a wrong label in task 2. Default: 12 from 0 to 1, or three with --quick. 0 is always added."""
    repeats: int | None = None
    """Splits of the classes, each with different weights and noise. Default: 3, or one with --quick."""
    epochs: int | None = None
    """Epochs of each training. Default: 200, or 8 with --quick."""
    limit_train: int | None = None
    """Training images of each task. Default: all, or 3000 with --quick."""
    width: float | None = None
    """Factor that multiplies ResNet18's channels. Default: 2, or 0.125 with --quick."""
    batch_size: int | None = None
    """Images of each task per training step. Default: 128, or 32 with --quick."""
    learning_rate: float | None = None
    """Learning rate at the start. Default: 0.05, or 0.03 with --quick."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, ("repeats", "epochs", "limit_train", "batch_size"), ("width", "learning_rate"))


def check_ranges(options: Any, counts: tuple[str, ...], sizes: tuple[str, ...]) -> None:
    """Refuse rates outside [0, 1], counts below 1, and sizes that aren't positive. Options that are None pass."""
    for rate in options.rates or ():
        if not 0 <= rate <= 1:
            raise ConfigError(f"--rates must lie in [0, 1], not {rate}")
    for name in (*counts, *sizes):
        value, flag = getattr(options, name), f"--{name.replace('_', '-')}"
        if value is not None and not (value >= 1 if name in counts else 0 < value < math.inf):
            raise ConfigError(f"{flag} must be {'at least 1' if name in counts else 'positive'}, not {value}")


def chosen(options: Any, full: dict[str, Any], quick: dict[str, Any]) -> dict[str, Any]:
    """The settings of a full or quick study, replaced by those that the options give. Rates are sorted and begin with
    0."""
    settings = dict(quick if options.quick else full)
    settings |= {name: value for name in settings if (value := getattr(options, name)) is not None}
    return settings | {"rates": sorted({0.0, *settings["rates"]})}


def run(options: Options, console: Console) -> Path:
    """Train the study's networks and write its figure. Returns its folder.

    figure.csv has a row per probability, runs.csv has a row per network.
    """
    settings = {"dataset": options.dataset, "seed": options.seed, **chosen(options, FULL, QUICK)}
    folder = StudyFolder.open("multitask", options, settings)
    data = load_dataset(options.dataset, options.data_root, download=options.download)
    jobs = _jobs(settings, options, data)
    _announce(folder, jobs, options, data, console)
    runs = _runs(run_jobs(folder, jobs, options, console))
    write_table(folder.path / "runs.csv", runs)
    points = _points(runs)
    write_table(folder.table, points)
    _draw(folder.figure, settings, points)
    finding, text = _finding(points, published=options.dataset == "cifar100" and not options.quick)
    folder.finish(finding, text)
    console.print(text, highlight=False, soft_wrap=True)
    console.print(f"figure: {folder.figure}, its data beside it", highlight=False, soft_wrap=True)
    return folder.path


def _name(settings: dict[str, Any], seed: int, tasks: int) -> str:
    """The name of a training's data set: both tasks, or the first alone."""
    limit = settings["limit_train"] or 0
    return f"two-tasks:of={settings['dataset']},seed={seed},limit={limit},only={0 if tasks == 2 else 1}"


def _jobs(settings: dict[str, Any], options: Options, data: "ImageDataset") -> "list[Job]":
    """One job per probability and split, and a baseline for each split. The baselines come last, since they are
    shorter."""
    from ..sweeps import make_jobs

    classes = data.num_classes
    second = f"{classes // 2}-{classes - 1}"
    changes: dict[str, Any] = {
        **{name: settings[name] for name in ("epochs", "width", "learning_rate")},
        "crop_padding": data.train.shape[1] // 8,
        "flip": data.train.shape[0] == 3,  # mirrored, digits are others
        "val_fraction": VALIDATION,
        "save_every": "60s",
        "data_root": str(Path(options.data_root).absolute()),
        "download": options.download,
        "device": options.device,
    }
    configs = []
    for tasks, rates in ((2, settings["rates"]), (1, [0.0])):
        for seed in range(options.seed, options.seed + settings["repeats"]):
            base = recipe("multitask", _name(settings, seed, tasks), "none").replace(changes)
            for rate in rates:
                noise = str(parse(f"symmetric:{rate!r},classes={second}")) if rate else "none"
                own = {"noise": noise, "seed": seed, "noise_seed": seed, "batch_size": tasks * settings["batch_size"]}
                configs.append(({"tasks": tasks, "rate": rate}, base.replace(own)))
    return make_jobs(configs)


def _announce(folder: StudyFolder, jobs: "list[Job]", options: Options, data: "ImageDataset", console: Console) -> None:
    """Say how long the study will take. A few steps of a network that is not used further are measured for it."""
    from ..tasks.multitask import MultiTask

    sets: dict[int, ImageDataset] = {}
    for job in (jobs[-1], jobs[0]):
        sets[job.varied["tasks"]] = load_dataset(job.fields["dataset"], options.data_root, download=False)
    shared = jobs[0].config
    assert isinstance(shared, RunConfig)
    task, batch = MultiTask.of(sets[2]), shared.data.batch_size
    labels = np.repeat(np.array(task.starts), batch // 2)
    # A step of one task counts as half of one of two.
    announce(
        console,
        folder,
        jobs,
        steps=lambda job: _steps(job, sets[job.varied["tasks"]]) * job.varied["tasks"] / 2,
        seconds_per_step=time_steps(make_step(shared, task, data.train.shape, labels)),
        workers=workers(options),
    )


def _steps(job: "Job", data: "ImageDataset") -> float:
    assert isinstance(job.config, RunConfig)
    return steps_of(job.config, len(data.train), len(data.test))


def _runs(result: "SweepResult") -> list[dict[str, Any]]:
    """A row per shared network, with the baseline of its split. Each is taken at the epoch with the lowest validation
    loss of task 1."""
    best, last = {}, {}
    for job in result.jobs:
        epochs = epochs_of(result.run_folder(job.name))
        best[job.name] = min(epochs, key=lambda epoch: epoch["validation_task_loss"][0])
        last[job.name] = epochs[-1]
    alone = {
        job.fields["seed"]: best[job.name]["test_task_accuracy"][0] for job in result.jobs if job.varied["tasks"] == 1
    }
    rows = []
    for job in result.jobs:
        if job.varied["tasks"] == 2:
            seed, (task1, task2) = job.fields["seed"], best[job.name]["test_task_accuracy"]
            rows.append(
                {
                    "rate": job.varied["rate"],
                    "seed": seed,
                    "baseline": alone[seed],
                    "task1": task1,
                    "task2": task2,
                    "gain": task1 - alone[seed],
                    "best_epoch": best[job.name]["epoch"],
                    "last_task1": last[job.name]["test_task_accuracy"][0],
                    "last_task2": last[job.name]["test_task_accuracy"][1],
                    "run": job.name,
                }
            )
    return sorted(rows, key=lambda row: (row["rate"], row["seed"]))


def _points(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means and standard deviations over the splits, per probability."""
    points = []
    for rate in sorted({row["rate"] for row in runs}):
        rows = [row for row in runs if row["rate"] == rate]
        point: dict[str, Any] = {"rate": rate, "splits": len(rows)}
        for name in ("baseline", "task1", "task2", "gain"):
            point[name], point[f"{name}_sd"] = mean_sd([row[name] for row in rows])
        points.append(point)
    return points


def _draw(path: Path, settings: dict[str, Any], points: list[dict[str, Any]]) -> None:
    splits = points[0]["splits"]
    title = f"Two tasks of {settings['dataset']}, wrong labels in task 2 ({counted(splits, 'split')})"
    figure, (left, right) = new_figure(columns=2, title=title, share_y=False)
    x = [point["rate"] for point in points]

    def line(axes: Any, name: str, label: str, role: Any) -> None:
        mean, spread = ([100 * point[name + suffix] for point in points] for suffix in ("", "_sd"))
        draw_line(axes, x, mean, spread, label=label, role=role)

    line(left, "task1", "task 1, shared network", "clean")
    line(left, "task2", "task 2, wrong labels", "corrupted")
    line(left, "baseline", "task 1 alone", "baseline")
    left.set(xlabel="probability p of a wrong label in task 2", ylabel="test accuracy (%)")
    left.set_ylim(bottom=0)
    left.legend(frameon=False)
    line(right, "gain", "task 1, shared minus alone", "clean")
    right.axhline(0, color="#009E73", linestyle=":", linewidth=1.8)
    right.set(xlabel="probability p of a wrong label in task 2", ylabel="transfer gain of task 1 (points)")
    save_figure(figure, path)


def _finding(points: list[dict[str, Any]], *, published: bool) -> tuple[dict[str, Any], str]:
    first, last = points[0], points[-1]
    text = (
        f"task 1 alone {first['baseline']:.2%}; shared it gains {100 * first['gain']:+.2f} points at p = 0 and "
        f"{100 * last['gain']:+.2f} at p = {last['rate']:g}, where task 2 falls from {first['task2']:.2%} "
        f"to {last['task2']:.2%}"
    )
    finding = {
        "baseline": first["baseline"],
        "gain_at_0": first["gain"],
        "gain_at_last": last["gain"],
        "task2_at_0": first["task2"],
        "task2_at_last": last["task2"],
        "last_rate": last["rate"],
    }
    if published:
        finding["published"] = PUBLISHED
        text += (
            f"\npublished at p = 0: {PUBLISHED['baseline']:.2%} alone, task 1 {PUBLISHED['task1']:.2%}, "
            f"task 2 {PUBLISHED['task2']:.1%}; differences {100 * (first['baseline'] - PUBLISHED['baseline']):+.2f}, "
            f"{100 * (first['task1'] - PUBLISHED['task1']):+.2f}, {100 * (first['task2'] - PUBLISHED['task2']):+.2f}"
        )
    return finding, text
