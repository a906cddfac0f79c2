"""fastnoise evaluate: how good the networks of a run are on a data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from rich.table import Table

from ..data import names as data_names
from ..errors import ConfigError, DataError, alternatives
from ..files import write_json
from ..helptext import REQUIRED
from ..texts import counted, printable
from .datasets import read_dataset
from .predict import loaded

if TYPE_CHECKING:
    from ..data import ImageDataset, ImageTable
    from ..engine import Predictor

_WHOLE = 12
"""Classes up to which the confusion matrix is printed whole."""
_PAIRS = 10
"""Pairs of classes that are confused most, printed beyond."""


@dataclass(frozen=True)
class EvaluateCommand:
    """Measure the networks of a run on a data set, whose classes are matched by name.

    It prints accuracy, macro F1, precision, recall and F1 of each class, and which classes are taken for which; for
    other tasks their figures. Examples:
      fastnoise evaluate runs/nal-photos folder:photos
      fastnoise evaluate runs/nal-photos/model-best.safetensors folder:new --split all --out figures.json
    """

    network: Annotated[str | None, REQUIRED, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|MODEL")] = None
    """Folder of a run, or a model file (model.safetensors)."""
    dataset: Annotated[
        str | None,
        REQUIRED,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="DATASET", help=f"Data set, of `fastnoise datasets`. {alternatives(data_names.FORMS)}."),
    ] = None
    split: Literal["test", "train", "all"] = "test"
    """Images to measure on."""
    out: str | None = None
    """JSON file for all figures, with the whole confusion matrix."""
    best: bool = False
    """Of a run take the networks with the best validation score, not those of the last epoch."""
    batch_size: int = 64
    """Images that are computed at a time."""
    loader_threads: int = 2
    """CPU threads of the input pipeline, which decode image files."""
    device: str = "auto"
    """Device: auto (CUDA if there is a GPU), cpu, cuda or cuda:N."""
    data_root: str = "data"
    """Folder that holds the data sets, in torchvision's layout."""
    download: bool = True
    """Download a data set that is not under data-root."""
    skip_unreadable: bool = False
    """Leave out images of folder:PATH or list:FILE that cannot be decoded, and name them. Otherwise refuse them."""
    model: str | None = None
    """FILE.py:NAME, if the network is of your own."""
    task: str | None = None
    """FILE.py:NAME, if the task is of your own."""
    method: str | None = None
    """FILE.py:NAME, if the method is of your own and answers in its own way."""


def run(command: EvaluateCommand) -> int:
    """Print the figures; FastnoiseError in one line."""
    if command.network is None or command.dataset is None:
        raise ConfigError("give a run or a model file, and a data set, as in fastnoise evaluate runs/NAME folder:new")
    data_names.check_dataset(command.dataset)
    data_names.check_skipping(command.dataset, command.skip_unreadable)
    predictor = loaded(command)
    dataset = read_dataset(command.dataset, command)
    figures: dict[str, Any] = {"dataset": command.dataset, "split": command.split, "epoch": predictor.header.epoch}
    parts = _parts(dataset, command.split)
    tables = [table for table, _ in parts]
    truth = np.concatenate([labels for _, labels in parts])
    truth = _as_the_network_counts(predictor, dataset, truth)
    figures |= _measured(command, predictor, tables, truth)
    if command.out is not None:
        write_json(Path(command.out), figures)
    _print(command, predictor, dataset, figures)
    if dataset.drawn_test and command.split == "test":
        print(
            f"{printable(command.dataset)} has no test images of its own, so these are the fifth of it that a training "
            "would hold out; --split all takes all"
        )
    if command.out is not None:
        print(f"written: {printable(command.out)}")
    return 0


def _parts(dataset: "ImageDataset", split: str) -> "list[tuple[ImageTable, np.ndarray]]":
    """The images to measure on with the best labels that are known of them: the true ones, else the given ones."""
    train, test = dataset.train, (dataset.test, dataset.test.labels)
    clean = train.labels if dataset.clean_labels is None else dataset.clean_labels
    known = np.where(clean < 0, train.labels, clean) if train.form == "classes" else clean
    if split == "test":
        return [test]
    parts = [(train, known)]
    held = dataset.validation
    if split == "all" and held is not None:
        same = held.files == dataset.test.files and held.images is dataset.test.images
        same |= held.is_features and bool(held.names) and held.names == dataset.test.names
        parts += [] if same else [(held, held.labels)]  # images for validation may be the test set too
    return parts if split == "train" else [*parts, test]


def _as_the_network_counts(predictor: "Predictor", dataset: "ImageDataset", truth: np.ndarray) -> np.ndarray:
    """Labels with classes in the network's order; DataError for labels of another form, or names that it does not
    know."""
    type(predictor.task).of(dataset)  # which refuses labels that are not the task's
    ours, theirs = list(predictor.class_names), list(dataset.class_names)
    if truth.ndim > 1:
        if ours != theirs:
            raise DataError(f"{dataset.name} has {', '.join(theirs[:5])}, and the network {', '.join(ours[:5])}")
        return truth
    if unknown := [name for name in theirs if name not in ours]:
        raise DataError(
            f"{dataset.name} has classes that the network does not know: {', '.join(unknown[:3])}; its classes are "
            f"{', '.join(ours[:10])}{', ...' if len(ours) > 10 else ''}"
        )
    return np.array([ours.index(name) for name in theirs])[truth]


def _measured(
    command: EvaluateCommand, predictor: "Predictor", tables: "list[ImageTable]", truth: np.ndarray
) -> dict[str, Any]:
    """The task's figures, and those of single classes."""
    options = {"batch_size": command.batch_size, "threads": command.loader_threads}
    found, figures = predictor.evaluate(tables, truth, **options)
    figures = {"images": len(truth)} | figures
    if found.answers.ndim == 1 and found.answers.dtype == np.int64:
        from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

        classes = np.arange(len(predictor.class_names))
        parts = precision_recall_fscore_support(truth, found.answers, labels=classes, zero_division=0)
        keys = ("precision", "recall", "f1", "images")
        figures["classes"] = {
            name: dict(zip(keys, (*map(float, row[:3]), int(row[3])), strict=True))
            for name, *row in zip(predictor.class_names, *(part.tolist() for part in parts), strict=True)
        }
        figures["confusion"] = confusion_matrix(truth, found.answers, labels=classes).tolist()
    return figures


def _print(command: EvaluateCommand, predictor: "Predictor", dataset: "ImageDataset", figures: dict[str, Any]) -> None:
    from ..engine.display import make_console, output_lost

    console = make_console()
    given = dataset.given_labels and dataset.clean_labels is None
    if command.split == "test":
        given = dataset.test_labels == "given"
    against = " against the given labels, of which some may be wrong" * given
    images = counted(figures["images"], "image")
    print(f"{printable(command.network or '')} on {images} of {printable(dataset.name)}{against}")
    for name, value in figures.items():
        if isinstance(value, float):
            share = name in ("accuracy", "macro_f1", "top5", "mean_average_precision")
            print(f"{name.replace('_', ' ')}: {f'{100 * value:.2f} %' if share else f'{value:.6g}'}")
    if "classes" not in figures:
        for name in ("average_precision", "task_accuracy"):
            for output, value in zip(predictor.class_names, figures.get(name, []), strict=False):
                print(f"{name.replace('_', ' ')} of {output}: {'none' if value is None else f'{100 * value:.2f} %'}")
        return
    table = Table()
    for name in ("class", "images", "precision", "recall", "F1"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for name, row in figures["classes"].items():
        shares = [f"{100 * row[key]:.2f} %" for key in ("precision", "recall", "f1")]
        table.add_row(printable(name), str(row["images"]), *shares)
    console.print(table)
    if output_lost(console) is not None:
        raise BrokenPipeError
    for line in _confusions(predictor.class_names, np.array(figures["confusion"])):
        print(line)


def _confusions(names: tuple[str, ...], matrix: np.ndarray) -> list[str]:
    """The matrix, or of many classes the pairs that are confused most."""
    if len(names) <= _WHOLE:
        width = max(6, len(str(matrix.max())) + 1, *(min(12, len(name)) + 1 for name in names))
        head = f"{'true':>{width}} |" + "".join(f"{printable(name)[:12]:>{width}}" for name in names) + "  (predicted)"
        return [
            head,
            *(
                f"{printable(name)[:12]:>{width}} |" + "".join(f"{count:>{width}}" for count in row)
                for name, row in zip(names, matrix.tolist(), strict=True)
            ),
        ]
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [divmod(int(place), len(names)) for place in order]
    said = [f"{names[a]} taken for {names[b]} {wrong[a, b]}" for a, b in pairs if wrong[a, b]]
    return [f"commonest mistakes: {printable(', '.join(said)) or 'none'}"]
