"""Label files: npy, npz, csv and txt in; csv out."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, nearest
from ..files import write_atomically
from .result import NoisyLabels

Labels = NDArray[np.int64]

FORMATS = (".npy", ".npz", ".csv", ".txt")
_COLUMN = "label"  # what a csv file of ours calls the labels a run trains on


def read_labels(source: str) -> Labels | NoisyLabels:
    """Labels from FILE.npy, FILE.npz[:ARRAY], FILE.csv[:COLUMN] or FILE.txt (one integer a line): int64 [N].

    A file that `NoisyLabels.save` wrote comes back as that, unless ARRAY names one of its arrays. A csv file's first
    line may name its columns; the one called "label", or the only one, is taken where COLUMN doesn't say otherwise.
    Raises DataError for a file that can't be read or holds something else.
    """
    path, part = _split(source)
    with _reading(f"{source}: can't read labels", f"{source}: not a file of labels"):
        match path.suffix.lower():
            case ".npy":
                return _integers(source, np.load(path, allow_pickle=False))
            case ".npz":
                return _from_npz(source, path, part)
            case ".csv":
                return _from_csv(source, path.read_text(encoding="utf-8-sig"), part)
            case _:
                return _from_lines(source, path.read_text(encoding="utf-8-sig"))


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


def _split(source: str) -> tuple[Path, str]:
    """The file and what stands behind the colon after its suffix."""
    if Path(source).suffix.lower() in FORMATS:
        return Path(source), ""
    file, colon, part = source.rpartition(":")
    if colon and Path(file).suffix.lower() in (".npz", ".csv"):
        return Path(file), part
    raise DataError(
        f"{source}: unknown kind of label file: give {', '.join(FORMATS)}, FILE.npz:ARRAY or FILE.csv:COLUMN"
    )


def _integers(source: str, array: NDArray) -> Labels:
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iu" or not array.size:
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else "several arrays"
        raise DataError(f"{source}: need integers [N], found {found}")
    if array.max() > np.iinfo(np.int64).max:
        raise DataError(f"{source}: label {array.max()} is out of range")
    return array.astype(np.int64)


def _from_npz(source: str, path: Path, part: str) -> Labels | NoisyLabels:
    found = np.load(path, allow_pickle=False)
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise DataError(f"{source}: an npy file under another name")
    with found as content:
        names = list(content.files)
        if not part and {"metadata", "sha256", "labels"} <= set(names):
            return NoisyLabels.load(path)
        if not part and len(names) == 1:
            part = names[0]
        if part not in names:
            raise DataError(f"{source}: name one of its arrays, as {path}:ARRAY: {nearest(part, names)}")
        return _integers(source, content[part])


def _from_csv(source: str, text: str, part: str) -> Labels:
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    if not rows:
        raise DataError(f"{source}: empty")
    header = [name.strip() for name in rows[0]]
    named = not all(_is_integer(name) for name in header)
    column = 0
    if part or len(header) > 1:
        if not named:
            raise DataError(f"{source}: its {len(header)} columns have no names in a first line: which are the labels?")
        wanted = part or _COLUMN
        if wanted not in header:
            raise DataError(f"{source}: no column {wanted!r}, name one as FILE.csv:COLUMN: {nearest(wanted, header)}")
        column = header.index(wanted)
    cells = []
    for number, row in enumerate(rows[named:], start=1 + named):
        if column >= len(row) or not _is_integer(row[column]):
            found = row[column] if column < len(row) else "nothing"
            raise DataError(f"{source}: row {number} holds {found!r} instead of an integer")
        cells.append(int(row[column]))
    return _from_integers(source, cells)


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
    return _integers(source, array)


def _is_integer(text: str) -> bool:
    text = text.strip()
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20


def read_array(what: str, path: str | Path) -> NDArray[Any]:
    """The real numbers in an npy file. Raises DataError that begins with `what`."""
    with _reading(f"{what}: can't read {str(path)!r}", f"{what}: {str(path)!r} is no npy file of numbers"):
        array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise DataError(f"{what}: {str(path)!r} holds no array of real numbers: save one with numpy.save")
    return array


def write_csv(noisy: NoisyLabels, path: Path) -> None:
    """The columns index, label and, where known, clean_label, which is called given_label if people brought it and
    noise was added to it. Raises DataError when it can't be written."""
    columns = {"index": np.arange(len(noisy.labels)), "label": noisy.labels}
    if noisy.clean_labels is not None:
        columns["clean_label" if noisy.clean_are is None else "given_label"] = noisy.clean_labels
    rows = "".join(f"{','.join(map(str, row))}\n" for row in zip(*(c.tolist() for c in columns.values()), strict=True))
    content = f"{','.join(columns)}\n{rows}".encode()
    write_atomically(path, lambda stream: stream.write(content), DataError)
