"""A set for regression of files: a CSV that says which image has which values."""

import csv
from pathlib import Path

import numpy as np

from ..errors import DataError
from .folder import IMAGENET_MEAN_STD
from .names import read_options
from .table import SPLIT_SEED, TEST_FRACTION, ImageDataset, ImageTable, stratified_split


def load_values(name: str, root: Path | None, download: bool) -> ImageDataset:
    """The images and values in `train`=FILE.csv, and in `test`=FILE.csv; without it a fifth is held out for the test.

    A file's first line names its columns: `file`, a path relative to the CSV, and one or more of numbers, the values.
    Images are decoded by the loaders, and resized to --image-size or, if their sizes differ, to 224.
    """
    options = read_options(name)
    names, train = _read(Path(str(options["train"])))
    if options["test"] == "-":
        kept, held_out = stratified_split(train.labels, TEST_FRACTION, SPLIT_SEED)
        if not len(held_out):
            raise DataError(f"{options['train']}: {len(train)} images are too few to hold some out for the test")
        train, test = train.take(kept), train.take(held_out)
    else:
        others, test = _read(Path(str(options["test"])))
        if others != names:
            raise DataError(f"{options['test']}: its columns are {', '.join(others)}, and not {', '.join(names)}")
    return ImageDataset(name, train, test, names, *IMAGENET_MEAN_STD, given_labels=True, task="regression")


def _read(path: Path) -> tuple[tuple[str, ...], ImageTable]:
    """The names of the values, and the images with them; DataError says what is wrong with the file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            header, *rows = csv.reader(stream)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, csv.Error):
        raise DataError(f"{path}: not a CSV file with a line of column names and lines of values") from None
    if "file" not in header or len(header) < 2 or not rows:
        raise DataError(f"{path}: needs a line of column names, file among them, and a line for each image")
    place = header.index("file")
    files, values = [], []
    for number, row in enumerate(rows, 2):
        try:
            values.append([float(text) for column, text in enumerate(row) if column != place])
            files.append(path.parent / row[place])
        except (ValueError, IndexError):
            raise DataError(f"{path}: line {number} must have a file and {len(header) - 1} numbers") from None
        if len(row) != len(header) or not files[-1].is_file():
            reason = f"has {len(row)} columns, not {len(header)}" if len(row) != len(header) else "names no file there"
            raise DataError(f"{path}: line {number} {reason}")
    names = tuple(text for column, text in enumerate(header) if column != place)
    return names, ImageTable(
        np.array(values), files=tuple(map(str, files)), names=tuple(row[place] for row in rows), form="values"
    )
