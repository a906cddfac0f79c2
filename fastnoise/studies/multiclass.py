"""How noise in all classes but one affects that one (Khanal and Kanan 2021, sections 3.1, 4.1 and 5.1, Figure 4).

Each label that is not of the clean class is replaced with probability p by another class. In strategy 1 this is any
other class, also the clean one; in strategy 2 it is one of the corrupted classes. Each class is the clean one in turn.
The networks are LeNet-5 with dropout on MNIST, batch 128, 14 epochs, and ResNet18 on CIFAR-10, batch 256, 200 epochs,
on nine tenths of the training set.

The paper leaves some settings open. Ours are Adam at 1e-3 and a dropout of 0.5 on MNIST, and on CIFAR-10 SGD with
momentum 0.9, learning rate 0.1 with a cosine schedule, weight decay 5e-4, crop and flip. The paper's validation labels
are clean; ours are as noisy as the training labels. The figure shows accuracies of the last epoch, which need no
validation.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rich.console import Console

from ..config import RunConfig
from ..errors import ConfigError
from ..recipes import recipe
from ..recipes.ce import HETEROGENEOUS
from .base import (
    Role,
    StudyFolder,
    StudyOptions,
    announce,
    check_limit,
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
    from ..sweeps import Job, SweepResult

RATES = (0.0, 0.5, 0.6, 0.8, 0.9, 0.95, 0.98, 1.0)
QUICK_RATES = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 1.0)
NUM_CLASSES = 10
QUICK_CLASSES = (1, 4, 8)

_QUICK = {"mnist": {"epochs": 4, "limit_train": 30_000}, "cifar10": {"epochs": 2, "limit_train": 4_000}}

CLOSE = 0.03
"""The most that the clean class may lose in accuracy, up to p = LAST_CLOSE, if the paper's finding holds."""
LAST_CLOSE = 0.95
FAR = 0.20
"""The least that the corrupted classes lose in accuracy at p = AT_FAR, if the paper's finding holds."""
AT_FAR = 0.98


@dataclass(frozen=True)
class Options(StudyOptions):
    """Does noise in all classes but one hurt that one? Each class is the clean one in turn (Khanal and Kanan 2021,
    Figure 4).

    --quick trains 37 networks on 30,000 digits each, in some five minutes on two free CPU cores. The full study on
    MNIST trains 141 networks, in about 1.5 hours on two cores. On CIFAR-10 it makes 5 million steps of 256 images,
    which takes a day at 60 steps/s on a GPU. Each start measures steps and prints the time on this machine. Examples:
      fastnoise study multiclass --quick
      fastnoise study multiclass
      fastnoise study multiclass --dataset cifar10
    """

    dataset: Literal["mnist", "cifar10"] = "mnist"
    """mnist with LeNet-5, or cifar10 with ResNet18."""
    rates: tuple[float, ...] | None = None
    """Probabilities p of a wrong label in the corrupted classes. 0 is always added."""
    clean: tuple[int, ...] | None = None
    """Classes to be the clean one in turn. Default: all ten, or three with --quick."""
    strategies: tuple[int, ...] = (1, 2)
    """1: wrong labels come from all classes; 2: from the corrupted ones."""
    epochs: int | None = None
    """Epochs of each training. Default: 14 on mnist, 200 on cifar10."""
    limit_train: int | None = None
    """Number of training images to use, from the first on."""
    stack: int = 1
    """Number of trainings that run as one batched computation, for GPUs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for rate in self.rates or ():
            if not 0 <= rate <= 1:
                raise ConfigError(f"--rates must lie in [0, 1], not {rate}")
        for label in self.clean or ():
            if not 0 <= label < NUM_CLASSES:
                raise ConfigError(f"--clean must name classes from 0 to {NUM_CLASSES - 1}, not {label}")
        if not self.strategies or set(self.strategies) - {1, 2}:
            raise ConfigError(f"--strategies must be 1, 2 or both, not {' '.join(map(str, self.strategies)) or 'none'}")
        if self.stack < 1:
            raise ConfigError(f"--stack must be at least 1, not {self.stack}")


def run(options: Options, console: Console) -> Path:
    """Train the study's networks and write its figure. Returns its folder.

    figure.csv has a row per strategy and probability. classes.csv has a row per strategy, clean class and probability.
    """
    from ..data import load_dataset
    from ..tasks.classification import Classification

    # Here, that it is downloaded once and missing files are told before anything is trained.
    data = load_dataset(options.dataset, options.data_root, download=options.download)
    check_limit(options.limit_train, options.dataset, len(data.train))
    base = _base(options)
    rates = sorted({0.0, *(options.rates or (QUICK_RATES if options.quick else RATES))})
    classes = sorted(set(options.clean or (QUICK_CLASSES if options.quick else range(NUM_CLASSES))))
    strategies = sorted(set(options.strategies))
    settings = {
        "dataset": options.dataset,
        "rates": rates,
        "clean": classes,
        "strategies": strategies,
        "epochs": base.optim.epochs,
        "limit_train": base.data.limit_train,
        "seed": options.seed,
    }
    folder = StudyFolder.open("multiclass", options, settings)
    jobs = _jobs(base, rates, classes, strategies)
    labels = np.zeros(base.data.batch_size, np.int64)
    steps = steps_of(base, base.data.limit_train or len(data.train), len(data.test))
    announce(
        console,
        folder,
        jobs,
        steps=lambda job: steps,
        seconds_per_step=time_steps(make_step(base, Classification(data.class_names), data.train.shape, labels)),
        workers=workers(options),
    )
    rows = _rows(run_jobs(folder, jobs, options, console, stack=options.stack), classes)
    write_table(folder.path / "classes.csv", rows)
    points = _points(rows)
    write_table(folder.table, points)
    _draw(folder.figure, options.dataset, points, len(classes))
    finding, text = _finding(rows)
    folder.finish(finding, text)
    console.print(text, highlight=False, soft_wrap=True)
    console.print(f"figure: {folder.figure}, its data beside it", highlight=False, soft_wrap=True)
    return folder.path


def _base(options: Options) -> RunConfig:
    """The configuration of all trainings, without their noise."""
    changes: dict[str, Any] = {
        **HETEROGENEOUS[options.dataset],
        "val_fraction": 0.1,
        "data_root": options.data_root,
        "download": options.download,
        "device": options.device,
        "seed": options.seed,
        "noise_seed": options.seed,
    }
    if options.quick:
        changes |= _QUICK[options.dataset]
    changes |= {name: value for name in ("epochs", "limit_train") if (value := getattr(options, name)) is not None}
    return recipe("ce", options.dataset, "none").replace(changes)


def _jobs(base: RunConfig, rates: list[float], classes: list[int], strategies: list[int]) -> "list[Job]":
    """One job per strategy, clean class and probability. At probability 0 there is one job for all of them."""
    from ..sweeps import make_jobs

    configs: list[tuple[dict[str, Any], RunConfig]] = [({"strategy": None, "clean": None, "rate": 0.0}, base)]
    for strategy in strategies:
        for label in classes:
            for rate in rates:
                if rate > 0:
                    noise = f"heterogeneous:{rate:g},clean={label},strategy={strategy}"
                    varied = {"strategy": strategy, "clean": label, "rate": rate}
                    configs.append((varied, base.replace({"noise": noise})))
    return make_jobs(configs)


def _rows(result: "SweepResult", classes: list[int]) -> list[dict[str, Any]]:
    """A row per strategy, clean class and probability."""
    strategies = sorted({job.varied["strategy"] for job in result.jobs} - {None})
    rows = []
    for job in result.jobs:
        folder = result.run_folder(job.name)
        last = result.summary(job.name)["test_class_accuracy"]
        best = max(epochs_of(folder), key=lambda epoch: epoch["validation_accuracy"])["test_class_accuracy"]
        shared = job.varied["strategy"] is None
        for strategy in strategies if shared else [job.varied["strategy"]]:
            for label in classes if shared else [job.varied["clean"]]:
                rows.append(
                    {
                        "strategy": strategy,
                        "clean": label,
                        "rate": job.varied["rate"],
                        "clean_accuracy": last[label],
                        "corrupted_accuracy": _others(last, label),
                        "clean_accuracy_at_best_validation": best[label],
                        "corrupted_accuracy_at_best_validation": _others(best, label),
                        "run": job.name,
                    }
                )
    return sorted(rows, key=lambda row: (row["strategy"], row["clean"], row["rate"]))


def _others(accuracies: list[float], label: int) -> float:
    """Mean accuracy of all classes but one."""
    return (sum(accuracies) - accuracies[label]) / (len(accuracies) - 1)


def _points(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per strategy and probability: mean and standard deviation over the clean classes."""
    points = []
    for strategy, rate in sorted({(row["strategy"], row["rate"]) for row in rows}):
        group = [row for row in rows if (row["strategy"], row["rate"]) == (strategy, rate)]
        point: dict[str, Any] = {"strategy": strategy, "rate": rate, "clean_classes": len(group)}
        for name in group[0]:
            if "accuracy" in name:
                mean, sd = mean_sd([row[name] for row in group])
                point |= {name: mean, f"{name}_sd": sd}
        points.append(point)
    return points


def _draw(path: Path, dataset: str, points: list[dict[str, Any]], count: int) -> None:
    strategies = sorted({point["strategy"] for point in points})
    network = {"mnist": "MNIST, LeNet-5", "cifar10": "CIFAR-10, ResNet18"}[dataset]
    figure, axes = new_figure(columns=len(strategies), title=f"{network}: noise in all classes but one")
    for part, strategy in zip(axes, strategies, strict=True):
        own = [point for point in points if point["strategy"] == strategy]
        lines: tuple[tuple[Role, str], ...] = (("clean", "clean class"), ("corrupted", "corrupted classes, mean"))
        for name, label in lines:
            draw_line(
                part,
                [point["rate"] for point in own],
                [100 * point[f"{name}_accuracy"] for point in own],
                [100 * point[f"{name}_accuracy_sd"] for point in own],
                label=label,
                role=name,
            )
        drawn = {1: "any other class", 2: "any other corrupted class"}[strategy]
        part.set_title(f"strategy {strategy}: wrong labels name {drawn}", fontsize=10)
        part.set(xlabel="probability p of a wrong label", ylim=(-3, 103), xlim=(-0.02, 1.02))
    axes[0].set_ylabel("test accuracy (%)")
    spread = f"band: ± 1 sd over {count} clean classes" if count > 1 else None
    axes[0].legend(loc="lower left", frameon=False, title=spread, title_fontsize=8)
    save_figure(figure, path)


def _finding(rows: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """Whether the paper's finding holds here, judged by the clean class and strategy with the worst figures."""
    before = {(row["strategy"], row["clean"]): row for row in rows if row["rate"] == 0}

    def loss(row: dict[str, Any], name: str) -> float:
        return before[row["strategy"], row["clean"]][f"{name}_accuracy"] - row[f"{name}_accuracy"]

    near = [row for row in rows if 0 < row["rate"] <= LAST_CLOSE]
    far = [row for row in rows if row["rate"] == AT_FAR]
    finding: dict[str, Any] = {"holds": None}
    if not near or not far:
        return finding, f"the finding needs probabilities up to {LAST_CLOSE} and {AT_FAR}: not measured"
    worst = max(near, key=lambda row: loss(row, "clean"))
    least = min(far, key=lambda row: loss(row, "corrupted"))
    finding = {
        "clean_largest_loss": loss(worst, "clean"),
        "clean_largest_loss_at": {name: worst[name] for name in ("strategy", "clean", "rate")},
        "corrupted_least_loss": loss(least, "corrupted"),
        "corrupted_least_loss_at": {name: least[name] for name in ("strategy", "clean", "rate")},
    }
    finding["holds"] = finding["clean_largest_loss"] <= CLOSE and finding["corrupted_least_loss"] > FAR
    text = (
        f"up to p = {LAST_CLOSE} no clean class loses more than {100 * loss(worst, 'clean'):.2f} points (class "
        f"{worst['clean']}, strategy {worst['strategy']}, p = {worst['rate']:g}); at p = {AT_FAR} the corrupted "
        f"classes lose {100 * loss(least, 'corrupted'):.1f} points or more: the paper's finding "
        + ("holds" if finding["holds"] else f"does not hold here (within {100 * CLOSE:g}, more than {100 * FAR:g})")
    )
    return finding, text
