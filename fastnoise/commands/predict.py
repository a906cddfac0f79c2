"""fastnoise predict: what the networks of a run say of new images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from ..data.names import FEATURES
from ..errors import ConfigError, DataError
from ..files import csv_text, write_atomically
from ..helptext import REQUIRED
from ..texts import counted, printable

if TYPE_CHECKING:
    from ..data import ImageTable
    from ..engine import Predictor

_SHOWN = 20
"""Images whose answer is printed, if there is a file for all."""


@dataclass(frozen=True)
class PredictCommand:
    """Say what the networks of a run make of new images.

    Every network of the method takes part, as in the run's evaluation. Images are resized to the size that the networks
    take. Examples:
      fastnoise predict runs/nal-photos new
      fastnoise predict runs/nal-photos new a.jpg more.csv --out predictions.csv --top 3
    """

    network: Annotated[str | None, REQUIRED, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|MODEL")] = None
    """Folder of a run, or a model file (model.safetensors)."""
    images: Annotated[tuple[str, ...], REQUIRED, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")] = ()
    """Image files, folders of them, lists or tar shards. list:FILE or FILE.csv with a column path or file, or FILE.txt
    with a path in each line; tar shards: tar:SHARDS or FILE.tar, without labels. For networks on frozen features:
    features:FILE.npy."""
    out: str | None = None
    """CSV file for all answers: file, predicted class, its probability, and those of all classes."""
    top: int | None = None
    """Number of likeliest classes to list for each image, in place of all classes in their order."""
    best: bool = False
    """Of a run take the networks with the best validation score, not those of the last epoch."""
    batch_size: int = 64
    """Images that are computed at a time."""
    loader_threads: int = 2
    """CPU threads of the input pipeline, which decode image files."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, and name them. Otherwise they are refused. Every image is then decoded
    twice."""
    device: str = "auto"
    """Device: auto (CUDA if there is a GPU), cpu, cuda or cuda:N."""
    model: str | None = None
    """FILE.py:NAME, if the network is of your own."""
    task: str | None = None
    """FILE.py:NAME, if the task is of your own."""
    method: str | None = None
    """FILE.py:NAME, if the method is of your own and answers in its own way."""


def run(command: PredictCommand) -> int:
    """Print the answers or write them; FastnoiseError in one line."""
    if command.network is None or not command.images:
        raise ConfigError("give a run or a model file, and images, as in fastnoise predict runs/NAME photos")
    if command.top is not None and command.top < 1:
        raise ConfigError(f"--top must be at least 1, not {command.top}")
    predictor = loaded(command)
    table, files = (_of_features if command.images[0].startswith(FEATURES) else _of_files)(command, predictor)
    try:
        found = predictor.run(table, batch_size=command.batch_size, threads=command.loader_threads)
    except DataError:
        if table.files:
            _require_readable(files, command.loader_threads)  # names all of them, not the first alone
        raise
    columns: Mapping[str, Any] = predictor.task.columns(found.answers, found.outcome)
    if command.top is not None:
        columns = _likeliest(predictor, found.outcome, command.top)
    if command.out is None:
        for file, line in zip(files, _lines(columns, command.top is None), strict=True):
            print(f"{printable(file)}: {line}")
        return 0
    _write(Path(command.out), files, columns)
    for file, line in list(zip(files, _lines(columns, command.top is None), strict=True))[:_SHOWN]:
        print(f"{printable(file)}: {line}")
    print(
        f"written: {printable(command.out)}, {counted(len(files), 'image')}"
        + ", the first above" * (len(files) > _SHOWN)
    )
    return 0


def _of_files(command: PredictCommand, predictor: "Predictor") -> "tuple[ImageTable, list[str]]":
    """The images that a command names, and their paths."""
    from ..data.given import given_files

    files, left_out = given_files(command.images)
    if left_out:
        print(f"{counted(left_out, 'file is no image and is', 'files are no images and are')} left out")
    if command.skip_unreadable:
        files = _readable(files, command.loader_threads)
    return predictor.from_files(files), files


def _of_features(command: PredictCommand, predictor: "Predictor") -> "tuple[ImageTable, list[str]]":
    """The features that a command names, and the names or numbers of their rows."""
    from ..data.features import given_features

    if len(command.images) > 1:
        raise ConfigError(f"{command.images[0]} stands alone: give no further images")
    table, names = given_features(command.images[0])
    return predictor.fitting(table), names


def _readable(files: list[str], threads: int) -> list[str]:
    """The files that can be decoded; the others are named. DataError if there is none."""
    from ..data.scan import unreadable

    lost = unreadable(files, threads)
    for place, reason in lost.items():
        print(f"left out {printable(files[place])}: {reason}")
    if len(lost) == len(files):
        raise DataError(f"none of the images can be read ({len(files)} given)")
    return [file for place, file in enumerate(files) if place not in lost]


def _require_readable(files: list[str], threads: int) -> None:
    """DataError that names the files which cannot be decoded, if there are any."""
    from ..data.scan import cannot_read, unreadable

    if lost := unreadable(files, threads):
        errors = {files[place]: reason for place, reason in lost.items()}
        raise DataError(cannot_read(errors, len(files), "--skip-unreadable"))


def loaded(command: Any) -> "Predictor":
    """The networks that a command names, on its device; warnings of code that has changed since they were trained."""
    from ..engine import load
    from ..engine.predictor import changed_code
    from ..engine.step import choose_device

    given = {"model": command.model, "task": command.task, "method": command.method}
    device = choose_device(command.device)
    predictor = load(command.network, best=command.best, device=device, **given)
    for name in changed_code(predictor.header, given):
        print(f"warning: {name} has changed since the networks were trained")
    if predictor.decoder_note:
        print(f"warning: {predictor.decoder_note}")
    return predictor


def _likeliest(predictor: "Predictor", outcome: np.ndarray, top: int) -> dict[str, Any]:
    """The likeliest classes of each image with their probabilities."""
    task = predictor.task
    if "predicted" not in task.columns(task.unseen(0, predictor.device).cpu().numpy(), outcome[:0]) or (
        not np.allclose(outcome.sum(1), 1, atol=1e-3)
    ):
        raise ConfigError(f"--top lists classes by probability, and the task {task.name} has no one class an image")
    order = np.argsort(-outcome, axis=1, kind="stable")[:, :top]
    names, columns = np.array(predictor.class_names), dict[str, Any]()
    for place, classes in enumerate(order.T, 1):
        columns[f"class_{place}"] = names[classes]
        columns[f"probability_{place}"] = np.take_along_axis(outcome, classes[:, None], 1)[:, 0]
    return columns


def _lines(columns: Mapping[str, Any], brief: bool) -> Sequence[str]:
    """An image's answer in a line each; `brief` leaves out the single outputs if there is more to say."""
    chosen = [name for name in columns if ":" not in name or name.startswith("predicted")] if brief else list(columns)
    kept = chosen or list(columns)

    def cell(name: str, value: Any) -> str:
        if isinstance(value, str):
            return value or "none"
        label = name.partition(":")[2] if not chosen else ""
        number = f"{100 * value:.2f} %" if name.startswith("probability") else f"{value:.6g}"
        return f"{label} {number}".strip()

    rows = zip(*(columns[name].tolist() for name in kept), strict=True)
    return [", ".join(cell(name, value) for name, value in zip(kept, row, strict=True)) for row in rows]


def _write(path: Path, files: Sequence[str], columns: Mapping[str, Any]) -> None:
    """The CSV file with a line for each image."""
    rows = (
        (file, *(value if isinstance(value, str) else f"{value:.9g}" for value in values))
        for file, *values in zip(files, *(column.tolist() for column in columns.values()), strict=True)
    )
    text = csv_text(("file", *columns), rows)
    content = text.encode(errors="surrogateescape")  # names that are not UTF-8 stay as they are
    write_atomically(path, lambda stream: stream.write(content), DataError)
