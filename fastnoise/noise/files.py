"""Files of labels: csv, tsv, json, npy, npz, pt and txt in; csv out. What is in them is read and never executed."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import shown
from ..data import sheets
from ..data.sheets import FILES, TRUE_LABELS, Sheet, read_sheet, whole_number
from ..data.unpickle import read_torch_arrays
from ..errors import DataError, nearest
from ..files import csv_text, write_atomically
from .result import NoisyLabels
from .targets import load_noisy

Labels = NDArray[np.int64]

FORMATS = (".npy", ".npz", ".csv", ".tsv", ".json", ".pt", ".txt")
_PARTED = {".npz": "ARRAY", ".csv": "COLUMN", ".tsv": "COLUMN", ".json": "KEY", ".pt": "KEY"}
"""The formats of which FILE:PART takes a part."""

LABELS = (*sheets.LABELS, "corrected")
"""What a column of labels is called if no part is named, also in corrected.csv."""
INDEX = ("index", "position", "idx", "")
"""Columns and keys that say which sample of the training set a row is of; pandas writes its own without a name."""


@dataclass(frozen=True, eq=False)
class LabelFile:
    """What a file says of N samples, in the order of its rows.

    source    what messages call it
    values    the labels as they stand there: int64 [N], texts [N], or numbers [N, C]
    columns   what the C columns are called, if the file says so
    names     of the samples, if the file has them
    index     int64 [N], the positions of the samples in the training set, if the file has them
    clean     the true labels, in the form of `values`, if the file has them; -1 where one is not known
    noisy     what fastnoise wrote, if the file is of its own and no part of it is named
    classes   what the classes are called whose numbers are the labels, if the file says so
    texts     whether the labels were written as texts, so that a number may be the name of a class
    others    further columns by name, [N] texts each, of a file without names: one may name the samples after all
    partial   whether it is of a run, and leaves out samples that were held out for validation or not used
    where     says of a row, counted from 0, where in the file it is
    """

    source: str
    values: NDArray[Any]
    columns: tuple[str, ...] = ()
    names: Sequence[str] = ()
    index: Labels | None = None
    clean: NDArray[Any] | None = None
    noisy: NoisyLabels | None = None
    classes: tuple[str, ...] | None = None
    texts: bool = False
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    partial: bool = False
    where: Callable[[int], str] = "position {}".format

    def __len__(self) -> int:
        return len(self.values)


def read_labels(source: str) -> Labels | NoisyLabels:
    """The labels in a file, which are integers: int64 [N]. A file that `NoisyLabels.save` wrote comes back as that,
    unless a part of it is named. `read_label_file` says which files are read.

    Raises DataError for a file that can't be read or holds something else.
    """
    file = read_label_file(source)
    return integers(file) if file.noisy is None else file.noisy


def read_label_file(source: str, columns: Sequence[str] = ()) -> LabelFile:
    """Read FILE.npy, FILE.npz[:ARRAY], FILE.csv[:COLUMN], FILE.tsv[:COLUMN], FILE.json[:KEY], FILE.pt[:KEY] or
    FILE.txt (one integer a line).

    A sheet's first line names its columns. The labels are in the one called "label" or "corrected", in the only one,
    or in `columns`. A JSON file holds a list of labels, a list of objects (rows), an object of lists (columns), or an
    object that gives each sample's name its label. The arrays and keys of other files have the names that columns have.

    Args:
        source: the file, perhaps with the part that holds the labels.
        columns: the names of classes or values. A file with a column for each of them has numbers [N, C].

    Raises:
        DataError: the file can't be read or holds something else.
    """
    path, part = split_source(source)
    with _reading(f"{source}: can't read labels", f"{source}: not a file of labels"):
        match path.suffix.lower():
            case ".npy":
                return LabelFile(source, _labels(source, np.load(path, allow_pickle=False)))
            case ".npz":
                return _from_npz(source, path, part)
            case ".pt":
                return _from_arrays(source, path, read_torch_arrays(path), part)
            case ".json":
                return _from_json(source, path, part, columns)
            case ".csv" | ".tsv":
                return _from_sheet(source, path, part, columns)
            case _:
                return LabelFile(source, _from_lines(source, path.read_text(encoding="utf-8-sig")))


@contextmanager
def _reading(unreadable: str, foreign: str) -> Iterator[None]:
    """Turn what reading raises into a DataError that begins with one of these."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{unreadable}: {error.strerror or error}") from None
    except Exception as error:  # whatever a damaged file makes the readers of npy, zip and csv raise
        raise DataError(f"{foreign}: {' '.join(str(error).split()) or type(error).__name__}") from None


def split_source(source: str) -> tuple[Path, str]:
    """The file and what stands behind the colon after its suffix. DataError for a file of another kind."""
    path, part = Path(source), ""
    if path.suffix.lower() not in FORMATS:
        file, colon, part = source.rpartition(":")
        path = Path(file)
        if not colon or path.suffix.lower() not in _PARTED:
            parts = ", ".join(f"FILE{ending}:{what}" for ending, what in _PARTED.items())
            raise DataError(f"{source}: unknown kind of label file: give {', '.join(FORMATS)}, or {parts}")
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise DataError(f"{source}: can't read labels: not a regular file")
    return path, part


def _labels(source: str, array: Any) -> NDArray[Any]:
    """An array as `LabelFile.values` holds it."""
    if not isinstance(array, np.ndarray):
        raise DataError(f"{source}: need labels [N], found several arrays")
    if array.ndim == 1 and array.dtype.kind == "U" and array.size:
        return array
    if array.size and array.dtype.kind in ("biuf" if array.ndim == 2 else "f" if array.ndim == 1 else ""):
        return array
    if array.ndim != 1 or array.dtype.kind not in "iu" or not array.size:
        raise DataError(f"{source}: need integers [N], found {array.dtype} {list(array.shape)}")
    if array.max() > np.iinfo(np.int64).max:
        raise DataError(f"{source}: label {array.max()} is out of range")
    return array.astype(np.int64)


def integers(file: LabelFile) -> Labels:
    """The labels of a file that has an integer for each sample; else DataError."""
    values = file.values
    if values.dtype.kind == "U":
        texts = list(map(plain_number, values.tolist()))
        row = next((row for row, text in enumerate(texts) if not _is_integer(text)), None)
        if row is None:
            return _from_integers(file.source, list(map(int, texts)))
        raise DataError(f"{file.source}: {file.where(row)} holds {shown(str(values[row]))} instead of an integer")
    if values.dtype.kind != "i" or values.ndim != 1:
        raise DataError(f"{file.source}: need integers [N], found {values.dtype} {list(values.shape)}")
    return values


def plain_number(text: str) -> str:
    """A whole number without its decimal places (`whole_number`), any other text as it is."""
    number = whole_number(text)
    return number if number is not None and _is_integer(number) else text


def _from_npz(source: str, path: Path, part: str) -> LabelFile:
    found = np.load(path, allow_pickle=False)
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise DataError(f"{source}: an npy file under another name")
    with found as content:
        if {"metadata", "sha256", "labels"} <= set(content.files):
            return _from_own(source, path, part)
        return _from_arrays(source, path, {name: content[name] for name in content.files}, part)


def _from_own(source: str, path: Path, part: str) -> LabelFile:
    """Labels that fastnoise wrote, or another of the arrays beside them by its name."""
    noisy = load_noisy(path)
    arrays = {"labels": noisy.labels, "clean_labels": noisy.clean_labels, "index": noisy.index}
    values = _part(source, path, part or "labels", {key: array for key, array in arrays.items() if array is not None})
    return LabelFile(
        source,
        values,
        columns=noisy.class_names or () if values.ndim == 2 else (),
        names=noisy.names,
        index=noisy.index,
        clean=None if part == "clean_labels" else noisy.clean_labels,
        noisy=None if part else noisy,
        classes=noisy.class_names if part != "index" else None,
        partial=noisy.index is not None,
    )


def _part(source: str, path: Path, part: str, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The labels in the array of this name; DataError without one."""
    if part not in arrays:
        raise DataError(f"{source}: name one of its arrays, as {path}:ARRAY: {nearest(part, list(arrays))}")
    return _labels(source, arrays[part])


def _from_arrays(source: str, path: Path, found: Any, part: str) -> LabelFile:
    """Labels from an array, or from one of several by their names."""
    if isinstance(found, list) and found and not part:
        found = np.asarray(found)
    if not isinstance(found, dict):
        if part:
            raise DataError(f"{source}: it holds no arrays by name; drop :{part}")
        return LabelFile(source, _labels(source, found))
    arrays = {str(key): np.asarray(value) for key, value in found.items()}
    if not part:
        known = [name for name in LABELS if name in arrays]
        alone = list(arrays) if len(arrays) == 1 else []
        part = (known or alone or [""])[0]
    labels = _part(source, path, part, arrays)
    count = len(labels)
    names = next((arrays[key] for key in (*FILES, "names", "files") if key in arrays and key != part), None)
    index = next((arrays[key] for key in INDEX if key in arrays and key != part), None)
    clean = next((arrays[key] for key in TRUE_LABELS if key in arrays and key != part), None)
    for what, array, kinds in (("names", names, "U"), ("positions", index, "iu"), ("true labels", clean, "iuU")):
        if array is not None and (array.shape != (count,) or array.dtype.kind not in kinds):
            raise DataError(f"{source}: {what} must be [{count}] as the labels, not {array.dtype} {list(array.shape)}")
    return LabelFile(
        source,
        labels,
        names=() if names is None else tuple(names.tolist()),
        index=None if index is None else index.astype(np.int64),
        clean=None if clean is None else _labels(source, clean),
        partial={"position", "corrected"} <= arrays.keys(),
    )


def _from_json(source: str, path: Path, part: str, columns: Sequence[str]) -> LabelFile:
    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in found]
        if len(set(keys)) < len(keys):
            twice = next(key for place, key in enumerate(keys) if key in keys[:place])
            raise DataError(f"{source}: {shown(twice)} is given twice; drop one")
        return dict(found)

    content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=pairs)
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        names = tuple(content[0])
        for number, row in enumerate(content):
            if tuple(row) != names and set(row) != set(names):
                raise DataError(f"{source}: object {number + 1} has other keys than the first: {', '.join(row)}")
        content = {name: [row[name] for row in content] for name in names}
    elif (
        isinstance(content, dict) and content and not any(isinstance(value, list | dict) for value in content.values())
    ):
        if part:
            raise DataError(f"{source}: it gives each sample a label; drop :{part}")
        content = {"name": list(content), "label": list(content.values())}
    if isinstance(content, list):
        if part:
            raise DataError(f"{source}: it is a list of labels; drop :{part}")
        if content and isinstance(content[0], list):
            return LabelFile(source, _labels(source, np.array(content)))
        content = {"label": content}
    if not isinstance(content, dict) or not all(isinstance(column, list) for column in content.values()):
        raise DataError(f"{source}: need a list of labels, of objects, or an object of lists or of labels by name")
    lengths = {name: len(column) for name, column in content.items()}
    if len(set(lengths.values())) != 1 or not max(lengths.values()):
        raise DataError(f"{source}: its lists must have one length, not {lengths}")
    for name, column in content.items():
        for number, value in enumerate(column):
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise DataError(f"{source}: {name} {number + 1} is {shown(value)}, neither a number nor a text")
    rows = tuple(zip(*([str(value) for value in column] for column in content.values()), strict=True))
    sheet = Sheet(source, tuple(content), rows, tuple(range(1, len(rows) + 1)))
    return _from_columns(source, sheet, part, columns, lambda row: f"item {row + 1}")


def _from_sheet(source: str, path: Path, part: str, columns: Sequence[str]) -> LabelFile:
    sheet = read_sheet(path, source=source, headless=lambda fields: all(map(_is_number, fields)))
    return _from_columns(source, sheet, part, columns, lambda row: f"line {sheet.lines[row]}")


def _from_columns(
    source: str, sheet: Sheet, part: str, columns: Sequence[str], where: Callable[[int], str]
) -> LabelFile:
    width = len(sheet.rows[0])
    if not sheet.names:
        if part:
            raise DataError(f"{source}: its {width} columns have no names in a first line: which are the labels?")
        if width > 1:
            values = _numbers(sheet, range(width))
            if values is None or not _is_one_hot(values):
                raise DataError(f"{source}: its {width} columns have no names in a first line: which are the labels?")
            return LabelFile(source, values, where=where)
        return LabelFile(source, _texts(sheet, 0), texts=True, where=where)
    key = _key(sheet, FILES, part)
    index = _key(sheet, INDEX, part)
    clean = _key(sheet, TRUE_LABELS, part)
    rest = [name for name in sheet.names if name not in (key, index, clean)]
    label = part or sheet.find(*LABELS)
    names: tuple[str, ...] = ()
    if columns and not part and len(columns) > 1 and set(columns) <= set(rest):
        names = tuple(columns)
    elif label is None and len(rest) > 1 and _is_one_hot(_numbers(sheet, [sheet.names.index(name) for name in rest])):
        names = tuple(rest)
    elif label is None and len(sheet.names) == 1:
        label = sheet.names[0]
    elif label is None and len(rest) == 1 and tuple(columns) == tuple(rest):
        label = rest[0]
    if names:
        values = _numbers(sheet, [sheet.names.index(name) for name in names])
        if values is None:
            raise DataError(f"{source}: the columns {', '.join(names)} must hold numbers")
    else:
        found = sheet.find(label) if label is not None else None
        if found is None:
            wanted = part or LABELS[0]
            raise DataError(
                f"{source}: no column {wanted!r}, name one as FILE.csv:COLUMN: {nearest(wanted, list(sheet.names))}"
            )
        values = _texts(sheet, sheet.names.index(found))
        rest = [name for name in rest if name != found]
    unused = [] if key else [name for name in rest if name and name not in names]
    return LabelFile(
        source,
        values,
        columns=names,
        names=() if key is None else tuple(sheet.column(key, different=True)),
        index=None if index is None else _positions(sheet, index),
        clean=None if clean is None or names else _texts(sheet, sheet.names.index(clean), empty="-1"),
        texts=True,
        others={name: tuple(row[sheet.names.index(name)] for row in sheet.rows) for name in unused},
        partial={"position", "corrected"} <= set(sheet.names),
        where=where,
    )


def _key(sheet: Sheet, names: Sequence[str], part: str) -> str | None:
    """The column of the sheet that is called one of `names`, unless it is the `part` that holds the labels."""
    found = sheet.find(*(name for name in names if name or sheet.names[0] == ""))
    return None if part and found == part else found


def _texts(sheet: Sheet, place: int, empty: str = "") -> NDArray[Any]:
    """A column as integers if all of its fields are some, else as texts, as 01 is too, which may be a name. Fields may
    be empty if `empty` says what stands for them."""
    name = sheet.names[place] if sheet.names else place
    found = sheet.column(name, empty=bool(empty), advice="fill it in, or write -1 if the label is unknown")
    texts = [text.strip() or empty for text in found]
    if all(map(is_plain_integer, texts)):
        return _from_integers(sheet.source, list(map(int, texts)))
    return np.array(texts)


def _positions(sheet: Sheet, name: str) -> Labels:
    texts = sheet.column(name)
    for row, text in enumerate(texts):
        if not _is_integer(text):
            raise sheet.error(row, f"column {name!r} holds {shown(text)} instead of the position of a sample")
    return _from_integers(sheet.source, list(map(int, texts)))


def _numbers(sheet: Sheet, places: Sequence[int]) -> NDArray[np.float64] | None:
    """float64 [N, C] of these columns; None if one of their fields is no number."""
    try:
        return np.array([[float(row[place]) for place in places] for row in sheet.rows])
    except ValueError:
        return None


def _is_one_hot(values: NDArray[Any] | None) -> bool:
    return values is not None and bool(((values == 0) | (values == 1)).all() and (values.sum(1) == 1).all())


def _from_lines(source: str, text: str) -> Labels:
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not _is_integer(line):
            raise DataError(f"{source}: line {number} holds {line.strip()!r} instead of an integer")
    return _from_integers(source, [int(line) for line in lines])


def _from_integers(source: str, values: list[int]) -> Labels:
    try:
        array = np.array(values, dtype=np.int64)
    except OverflowError:
        raise DataError(f"{source}: a label is out of range") from None
    return _labels(source, array)


def _is_integer(text: str) -> bool:
    text = text.strip()
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20


def is_plain_integer(text: str) -> bool:
    """Whether a text is an integer as it is written as a rule; 01 may be a name."""
    return _is_integer(text) and str(int(text)) == text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_array(what: str, path: str | Path) -> NDArray[Any]:
    """The real numbers in an npy file. Raises DataError that begins with `what`."""
    with _reading(f"{what}: can't read {str(path)!r}", f"{what}: {str(path)!r} is no npy file of numbers"):
        array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise DataError(f"{what}: {str(path)!r} holds no array of real numbers: save one with numpy.save")
    return array


def write_csv(noisy: NoisyLabels, path: Path) -> None:
    """The columns index, name if the samples have some, label and, if known, clean_label; classes by their names.

    clean_label is called given_label if people brought it and noise was added to it. Raises DataError when it can't be
    written.
    """
    columns: dict[str, list[Any]] = {"index": noisy.positions.tolist()}
    if noisy.names:
        columns["name"] = list(map(written_name, noisy.names))
    columns["label"] = noisy.named(noisy.labels)
    if noisy.clean_labels is not None:
        columns["clean_label" if noisy.clean_are is None else "given_label"] = noisy.named(noisy.clean_labels)
    content = csv_text(columns, zip(*columns.values(), strict=True)).encode()
    write_atomically(path, lambda stream: stream.write(content), DataError)


def written_name(name: str) -> str:
    """A sample's name as text files have it: bytes of a file's name that are not UTF-8 are written as \\udcXX."""
    return name.encode("utf-8", "backslashreplace").decode()
