"""How wrong labels of one group affect those of another, if an image has several labels (Khanal and Kanan 2021,
sections 3.3, 4.3 and 5.3, Figure 6).

A ResNet18 with a sigmoid for each of COCO's 80 labels learns from images of 128 x 128 by binary cross-entropy. Each
label of one group that an image has is swapped, with probability p, for another of the group; the other group's stay
right. The groups are labels 1 to 50 and 51 to 80, and either is corrupted in turn. Figures are mean average precisions
over the labels of the clean group, of the corrupted one, and of all, on the test images.

The paper leaves some settings open. Ours are:
a swapped label becomes one that the image does not have, so that the number of
labels stays (`--cardinality free` allows others); the model is that of the epoch with the lowest validation loss of the
clean group's labels, as in the study of two tasks, on a tenth of the training images; the 12 values of p, Adam at 1e-3
down a cosine for 40 epochs of batches of 128, crop and flip.

Without COCO the set is composed of MNIST's digits (`fastnoise.studies.canvas`): one to four on a canvas, the label says
which; the groups are the digits 0 to 5 and 6 to 9.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from ..errors import ConfigError
from .base import (
    StudyFolder,
    StudyOptions,
    announce,
    draw_line,
    mean_sd,
    new_figure,
    run_jobs,
    save_figure,
    workers,
    write_table,
)
from .multitask import check_ranges, chosen

if TYPE_CHECKING:
    from ..sweeps import Job, SweepResult
    from .multilabel_training import MultiLabel

FUNCTION = "fastnoise.studies.multilabel_training:train"

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
_FILES = ("annotations", "images", "test_annotations", "test_images")


@dataclass(frozen=True)
class Options(StudyOptions):
    """Wrong labels in one of two groups, where an image has several labels: do they hurt the other group? (Khanal and
    Kanan 2021, Figure 6)

    --quick trains 6 networks in two minutes on two free CPU cores. The full study trains 72 networks on 25,000 images,
    which takes 2.4e17 floating-point operations: an hour at 70 TFLOP/s on a GPU, 22 days of a CPU core at 0.028 s per
    image. Each start measures steps and prints the time on this machine. The paper's COCO is
    github.com/giddyup/coco-minitrain, tested on val2017. Examples:
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
        """The data set that is meant."""
        named = any(getattr(self, name) is not None for name in _FILES)
        return self.dataset or ("coco" if named else "mnist-canvas")


def run(options: Options, console: Console) -> Path:
    """Train the study's networks and write its figure; returns its folder.

    figure.csv has a row per corrupted group and probability, runs.csv one per network.
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
    jobs = _jobs(settings, options)
    groups = _announce(folder, jobs, options, console)
    runs = _runs(run_jobs(folder, jobs, options, console))
    write_table(folder.path / "runs.csv", runs)
    points = _points(runs)
    write_table(folder.table, points)
    _draw(folder.figure, settings, points, groups)
    finding, text = _finding(points, groups, published=settings["dataset"] == "coco" and not options.quick)
    folder.finish(finding, text)
    console.print(text, highlight=False, soft_wrap=True)
    console.print(f"figure: {folder.figure}, its data beside it", highlight=False, soft_wrap=True)
    return folder.path


def _jobs(settings: dict[str, Any], options: Options) -> "list[Job]":
    """One job per corrupted group, probability and repeat."""
    from ..sweeps import make_jobs

    configs = []
    for seed in range(options.seed, options.seed + settings["repeats"]):
        for rate in settings["rates"]:
            for group in (1, 2):
                config = {
                    **{name: value for name, value in settings.items() if name not in ("rates", "repeats")},
                    "optimizer": "adam",
                    "weight_decay": 0.0,
                    "schedule": "cosine",
                    "data_root": str(Path(options.data_root).absolute()),
                    "download": options.download,
                    "device": options.device,
                    "data_seed": options.seed,
                    "corrupted_group": group,
                    "rate": rate,
                    "seed": seed,
                }
                configs.append(({"corrupted_group": group, "rate": rate}, config))
    return make_jobs(configs, function=FUNCTION)


def _announce(folder: StudyFolder, jobs: "list[Job]", options: Options, console: Console) -> dict[int, str]:
    """Say how long the study will take, by the steps of a network that is then thrown away; the names of the groups.

    Both groups are corrupted at the highest probability here, which refuses images with too many labels before any
    network is trained.
    """
    from .multilabel_training import MultiLabel

    cache = folder.path / "images"
    first, second = (MultiLabel(dict(job.fields), cache, console) for job in jobs[-2:])
    announce(
        console,
        folder,
        jobs,
        steps=lambda job: _steps(job, first),
        seconds_per_step=first.training.seconds_per_step(*next(first.batches(0))),
        workers=workers(options),
    )
    offset = 1 if first.data.flip else 0  # COCO's labels are counted from 1, digits are their names
    return {
        number: f"{study.corrupted.start + offset} to {study.corrupted.stop - 1 + offset}"
        for number, study in ((1, first), (2, second))
    }


def _steps(job: "Job", study: "MultiLabel") -> float:
    """Steps; an image that is only looked at counts as a third of one that is trained on."""
    epochs = job.fields["epochs"]
    looked_at = epochs * len(study.data.validation.labels) + 2 * len(study.data.test.labels)
    return epochs * study.loader.num_batches + looked_at / 3 / job.fields["batch_size"]


def _runs(result: "SweepResult") -> list[dict[str, Any]]:
    """A row per network."""
    names = ("clean", "corrupted", "overall", "swapped", "best_epoch", "last_clean", "last_corrupted", "last_overall")
    rows = []
    for job in result.jobs:
        found = result.summary(job.name)
        rows.append(
            {
                "corrupted_group": job.varied["corrupted_group"],
                "rate": job.varied["rate"],
                "seed": job.fields["seed"],
                **{name: found[name] for name in names},
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
    title = f"Several labels an image: {settings['dataset']} ({repeats} training{'s' * (repeats > 1)} per point)"
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
