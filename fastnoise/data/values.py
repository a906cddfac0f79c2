"""A set for regression of files: a CSV that says which image has which values."""

from pathlib import Path

import numpy as np

from ..checks import shown
from ..errors import DataError
from .facts import IMAGENET_MEAN_STD
from .names import read_options
from .sheets import FILES, read_sheet
from .table import SPLIT_SEED, TEST_FRACTION, ImageDataset, ImageTable, stratified_split


def load_values(name: str, root: Path | None, download: bool) -> ImageDataset:
    """The images and values in `train`=FILE.csv, and in `test`=FILE.csv; without it a fifth is held out for the test.

    A file's first line names its columns: one that says which file (`sheets.FILES`), by a path relative to the CSV, and
    one or more of numbers, the values (`read_sheet` says which files are read). Images are decoded by the
    loaders, and resized to --image-size or, if their sizes differ, to 224.
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
    sheet = read_sheet(path)
    key = sheet.require(*FILES)
    names = tuple(name for name in sheet.names if name != key)
    if not names:
        raise DataError(f"{path}: needs one or more columns of numbers beside {key!r}")
    if not all(names):
        raise DataError(f"{path}: the first column has no name, and isn't a value then; name it or remove it")
    files = sheet.column(key, different=True)
    values = np.empty((len(sheet), len(names)))
    for column, name in enumerate(names):
        for row, text in enumerate(sheet.column(name)):
            try:
                values[row, column] = float(text)
            except ValueError:
                values[row, column] = np.nan
            if not np.isfinite(values[row, column]):
                raise sheet.error(row, f"column {name!r} holds {shown(text)} instead of a finite number")
    for row, file in enumerate(files):
        if not (path.parent / file).is_file():
            raise sheet.error(row, f"there is no file {path.parent / file}")
    located = tuple(str(path.parent / file) for file in files)
    return names, ImageTable(values, files=located, names=tuple(files), form="values")
