"""How wrong labels of one group affect the labels of another group, if an image has several labels (Khanal and Kanan
2021, sections 3.3, 4.3 and 5.3, Figure 6).

A ResNet18 with a sigmoid for each of COCO's 80 labels learns from images of 128 x 128 by binary cross-entropy. In one
group each label of an image is swapped with probability p for another label of the group. The labels of the other group
stay right. The groups are labels 1 to 50 and 51 to 80; each of them is the corrupted one in turn. The figures are mean
average precisions on the test images over the labels of the clean group, of the corrupted group, and of both.

The paper leaves some settings open. Ours are:

- A swapped label becomes one that the image does not have, so that the number of labels stays. `--cardinality free`
  allows any other label.
- The model is that of the epoch with the lowest validation loss of the clean group's labels, as in the study of two
  tasks. Each repeat draws another tenth of the training images for validation.
- 12 values of p, Adam at 1e-3 with a cosine schedule for 40 epochs, batches of 128, crop and flip.

Without COCO the images are composed of MNIST's digits (`fastnoise.data.canvas`): one to four digits on a canvas, and a
label for each digit that is there. The groups are the digits 0 to 5 and 6 to 9.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rich.console import Console

from ..config import RunConfig
from ..data.canvas import group_ranges
from ..data.datasets import load_dataset
from ..errors import ConfigError, DataError
from ..noise.spec import parse
from ..noise.targets import load_noisy, swap_labels
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
from .multitask import check_ranges, chosen

if TYPE_CHECKING:
    from ..data import ImageDataset
    from ..sweeps import Job, SweepResult

FULL: dict[str, Any] = {
    "rates": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
    "repeats": 3,
    "epochs": 40,
    "limit_train": None,
    "image_size": 128,
    "width": 1.0,
    "batch_size": 128,
    "learning_rate": 1e-3,
}
QUICK: dict[str, Any] = {
    "rates": (0.0, 0.6, 1.0),
    "repeats": 1,
    "epochs": 6,
    "limit_train": 5000,
    "image_size": 80,
    "width": 0.25,
    "batch_size": 64,
    "learning_rate": 2e-3,
}
PUBLISHED = {1: (0.3130, 0.0638), 2: (0.2797, 0.1142)}
"""Mean average precision of the corrupted group at p = 0 and p = 1, by group (section 5.3)."""
FIGURES = ("clean", "corrupted", "overall")
"""Groups of labels whose mean average precision is drawn."""
VALIDATION = 0.1
"""Share of the training images that are held out, as in the paper."""
CANVASES = 25_000, 5_000
"""Number of training and test canvases of a full study: as many as mini-COCO has images."""
_FILES = ("annotations", "images", "test_annotations", "test_images")
_COCO = ("train", "images", "test", "test_images")
"""The names of these four options in the name of the data set."""
_TIMED_IMAGES = 16


@dataclass(frozen=True)
class Options(StudyOptions):
    """Images have several labels in two groups: do wrong labels in one group hurt the other? (Khanal and Kanan 2021,
    Figure 6)

    --quick trains 6 networks in three minutes on two free CPU cores. The full study trains 72 networks on 25,000
    images, which takes 2.4e17 floating-point operations: an hour at 70 TFLOP/s on a GPU, 22 days of a CPU core at
    0.028 s per image. Each start measures steps and prints the time on this machine. The paper trains on
    github.com/giddyup/coco-minitrain and tests on val2017. Examples:
      fastnoise study multilabel --quick
      fastnoise study multilabel --dataset mnist-canvas
      fastnoise study multilabel --annotations instances_minitrain2017.json --images train2017
        --test-annotations instances_val2017.json --test-images val2017
    """

    dataset: Literal["coco", "mnist-canvas"] | None = None
    """coco (from the files that you name) or mnist-canvas (composed of MNIST's digits).
    Default: coco if you name a file, else mnist-canvas."""
    annotations: str | None = None
    """Annotation file of the training images, JSON in COCO's format."""
    images: str | None = None
    """Folder of the training images."""
    test_annotations: str | None = None
    """Annotation file of the test images, with the same categories."""
    test_images: str | None = None
    """Folder of the test images."""
    rates: tuple[float, ...] | None = None
    """Probabilities p of a swapped label. Default: 12 from 0 to 1, or three with --quick. 0 is always added."""
    repeats: int | None = None
    """Trainings at each p, with different weights and noise. Default: 3, or one with --quick."""
    epochs: int | None = None
    """Epochs of each training. Default: 40, or 6 with --quick."""
    limit_train: int | None = None
    """Training images. Default: all of COCO's, or 25,000 canvases; 5000 with --quick."""
    image_size: int | None = None
    """Side of images and canvases. Default: 128, or 80 with --quick."""
    width: float | None = None
    """Factor that multiplies ResNet18's channels. Default: 1, or 0.25 with --quick."""
    batch_size: int | None = None
    """Images per training step. Default: 128, or 64 with --quick."""
    learning_rate: float | None = None
    """Learning rate at the start. Default: 0.001, or 0.002 with --quick."""
    first_group: int | None = None
    """Number of labels in the first group. Default: five eighths of all."""
    cardinality: Literal["kept", "free"] = "kept"
    """kept swaps a label for one that the image does not have, free for any other of the group."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("repeats", "epochs", "limit_train", "image_size", "batch_size")
        check_ranges(self, counts, ("width", "learning_rate"))
        for name in _FILES:
            given, flag = getattr(self, name) is not None, f"--{name.replace('_', '-')}"
            if given and self.source == "mnist-canvas":
                raise ConfigError(f"{flag} is for --dataset coco; mnist-canvas is composed of MNIST's digits")
            if not given and self.source == "coco":
                raise ConfigError(f"--dataset coco needs {flag}; or take --dataset mnist-canvas, which needs no COCO")

    @property
    def source(self) -> str:
        """The data set: as named, or else coco if a file is named, or else mnist-canvas."""
        named = any(getattr(self, name) is not None for name in _FILES)
        return self.dataset or ("coco" if named else "mnist-canvas")


def run(options: Options, console: Console) -> Path:
    """Train the study's networks and write its figure. Returns its folder.

    figure.csv has a row per corrupted group and probability, runs.csv has a row per network.
    """
    files = {name: None if (file := getattr(options, name)) is None else str(Path(file).absolute()) for name in _FILES}
    settings = {
        "dataset": options.source,
        **files,
        "seed": options.seed,
        **chosen(options, FULL, QUICK),
        "first_group": options.first_group,
        "cardinality": options.cardinality,
    }
    folder = StudyFolder.open("multilabel", options, settings)
    dataset = _dataset(settings, options)
    data = load_dataset(dataset, _root(folder, options), download=options.download)
    ranges = group_ranges(data.num_classes, options.first_group)
    for group in ranges:
        if not data.test.labels[:, group.start : group.stop].any():
            raise DataError(f"no test image has a label of {group.start + 1} to {group.stop}; give a larger test set")
    jobs = _jobs(dataset, settings, options, folder, ranges)
    first = jobs[0].config
    assert isinstance(first, RunConfig)
    for job in jobs[-2:]:  # the highest probability refuses images with too many labels, before any network is trained
        assert isinstance(job.config, RunConfig)
        swap_labels(data.train.labels, job.config.noise.noise, seed=job.config.noise.noise_seed)
    steps = steps_of(first, len(data.train), len(data.test))
    announce(
        console,
        folder,
        jobs,
        steps=lambda job: steps,
        seconds_per_step=_seconds_per_step(first, data),
        workers=workers(options),
    )
    runs = _runs(run_jobs(folder, jobs, options, console), ranges)
    offset = 0 if options.source == "mnist-canvas" else 1  # COCO's labels are counted from 1, digits are their names
    groups = {number: f"{group.start + offset} to {group.stop - 1 + offset}" for number, group in enumerate(ranges, 1)}
    write_table(folder.path / "runs.csv", runs)
    points = _points(runs)
    write_table(folder.table, points)
    _draw(folder.figure, settings, points, groups)
    finding, text = _finding(points, groups, published=settings["dataset"] == "coco" and not options.quick)
    folder.finish(finding, text)
    console.print(text, highlight=False, soft_wrap=True)
    console.print(f"figure: {folder.figure}, its data beside it", highlight=False, soft_wrap=True)
    return folder.path


def _root(folder: StudyFolder, options: Options) -> Path:
    """The data root of the trainings: MNIST's folder, or the folder for COCO's decoded images."""
    return folder.path.absolute() if options.source == "coco" else Path(options.data_root).absolute()


def _dataset(settings: dict[str, Any], options: Options) -> str:
    """The name of the data set of all trainings."""
    side, seed, limit = settings["image_size"], options.seed, settings["limit_train"]
    if options.source == "coco":
        files = ",".join(f"{key}={settings[name]}" for key, name in zip(_COCO, _FILES, strict=True))
        return f"coco:{files},side={side},limit={limit or 0},seed={seed}"
    group = options.first_group or 0
    return f"mnist-canvas:images={limit or CANVASES[0]},test={CANVASES[1]},side={side},first_group={group},seed={seed}"


def _jobs(
    dataset: str, settings: dict[str, Any], options: Options, folder: StudyFolder, ranges: tuple[range, range]
) -> "list[Job]":
    """One job per corrupted group, probability and repeat."""
    from ..sweeps import make_jobs

    base = recipe("plain", dataset, "none").replace(
        {
            **{name: settings[name] for name in ("epochs", "width", "batch_size", "learning_rate")},
            "crop_padding": settings["image_size"] // 16,
            "val_fraction": VALIDATION,
            "save_every": "60s",
            "data_root": str(_root(folder, options)),
            "download": options.download,
            "device": options.device,
        }
    )
    configs = []
    for seed in range(options.seed, options.seed + settings["repeats"]):
        for rate in settings["rates"]:
            for number, group in enumerate(ranges, 1):
                labels = f"{group.start}-{group.stop - 1}"
                noise = str(parse(f"swap:{rate!r},group={labels},cardinality={options.cardinality}"))
                config = base.replace({"noise": noise, "seed": seed, "noise_seed": seed})
                configs.append(({"corrupted_group": number, "rate": rate}, config))
    return make_jobs(configs)


def _seconds_per_step(config: RunConfig, data: "ImageDataset") -> float:
    """Seconds of a step. On a CPU it is measured on a few images, because time is proportional to their number and a
    whole step can take a minute."""
    from ..engine.step import choose_device
    from ..tasks.multilabel import MultiLabel

    size = config.data.batch_size
    part = size if choose_device(config.engine.device).type == "cuda" else min(size, _TIMED_IMAGES)
    labels = np.zeros((part, data.num_classes), np.uint8)
    step = make_step(config.replace({"batch_size": part}), MultiLabel.of(data), data.train.shape, labels)
    return time_steps(step) * size / part


def _runs(result: "SweepResult", ranges: tuple[range, range]) -> list[dict[str, Any]]:
    """A row per network, at the epoch with the lowest validation loss of the clean group's labels."""
    rows = []
    for job in result.jobs:
        folder, number = result.run_folder(job.name), job.varied["corrupted_group"]
        corrupted, clean = (slice(group.start, group.stop) for group in ranges[:: 3 - 2 * number])
        epochs = epochs_of(folder)
        losses = [float(np.mean(epoch["validation_label_loss"][clean])) for epoch in epochs]
        best = int(np.argmin(losses))
        noisy = load_noisy(folder / "labels.npz")
        assert noisy.clean_labels is not None
        before, after = noisy.clean_labels[:, corrupted], noisy.labels[:, corrupted]

        def figures(epoch: dict[str, Any], corrupted: slice = corrupted, clean: slice = clean) -> dict[str, float]:
            found = np.array(epoch["test_average_precision"], np.float64)  # None becomes NaN
            return {
                "clean": float(np.nanmean(found[clean])),
                "corrupted": float(np.nanmean(found[corrupted])),
                "overall": float(np.nanmean(found)),
            }

        rows.append(
            {
                "corrupted_group": number,
                "rate": job.varied["rate"],
                "seed": job.fields["seed"],
                **figures(epochs[best]),
                "swapped": float((after < before).sum() / max(1, before.sum())),
                "best_epoch": best + 1,
                **{f"last_{name}": value for name, value in figures(epochs[-1]).items()},
                "run": job.name,
            }
        )
    return sorted(rows, key=lambda row: (row["corrupted_group"], row["rate"], row["seed"]))


def _points(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means and standard deviations over the repeats, per corrupted group and probability."""
    points = []
    for group, rate in sorted({(row["corrupted_group"], row["rate"]) for row in runs}):
        rows = [row for row in runs if (row["corrupted_group"], row["rate"]) == (group, rate)]
        point: dict[str, Any] = {"corrupted_group": group, "rate": rate, "repeats": len(rows)}
        for name in FIGURES:
            point[name], point[f"{name}_sd"] = mean_sd([row[name] for row in rows])
        points.append(point)
    return points


def _draw(path: Path, settings: dict[str, Any], points: list[dict[str, Any]], groups: dict[int, str]) -> None:
    repeats = points[0]["repeats"]
    title = f"Several labels an image: {settings['dataset']} ({counted(repeats, 'training')} per point)"
    figure, axes = new_figure(columns=2, title=title)
    for group, part in zip((1, 2), axes, strict=True):
        rows = [point for point in points if point["corrupted_group"] == group]
        for name, label, role in (
            ("clean", f"clean: labels {groups[3 - group]}", "clean"),
            ("corrupted", f"corrupted: labels {groups[group]}", "corrupted"),
            ("overall", "all labels", "overall"),
        ):
            mean, spread = ([100 * row[name + suffix] for row in rows] for suffix in ("", "_sd"))
            draw_line(part, [row["rate"] for row in rows], mean, spread, label=label, role=role)  # type: ignore[arg-type]
        part.set(xlabel="probability p of a swapped label in the corrupted group", ylabel="mean average precision (%)")
        part.legend(frameon=False)
    axes[0].set_ylim(0, 108 * max(point[name] + point[f"{name}_sd"] for point in points for name in FIGURES))
    save_figure(figure, path)


def _finding(points: list[dict[str, Any]], groups: dict[int, str], *, published: bool) -> tuple[dict[str, Any], str]:
    finding: dict[str, Any] = {}
    lines = []
    for group in (1, 2):
        rows = [point for point in points if point["corrupted_group"] == group]
        first, last = rows[0], rows[-1]
        lines.append(
            f"labels {groups[group]} corrupted: from p = 0 to p = {last['rate']:g} their mean average precision goes "
            f"from {first['corrupted']:.2%} to {last['corrupted']:.2%}, that of the clean labels from "
            f"{first['clean']:.2%} to {last['clean']:.2%}"
        )
        finding[f"group{group}"] = {"labels": groups[group], "at_0": first, "at_last": last}
        if published:
            before, after = PUBLISHED[group]
            lines[-1] += f" (published, corrupted labels: {before:.2%} to {after:.2%})"
            finding[f"group{group}"]["published"] = PUBLISHED[group]
    return finding, "\n".join(lines)
