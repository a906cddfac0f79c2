"""The line formats of the lists that published data sets come with. Imports no torch.

A list of a million lines is read as one block of bytes: no text is made of a line until someone asks for it, and no
file that it names is looked at.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..checks import shown
from ..errors import DataError
from .texts import Texts, places, repeated

_NAMED = 3  # keys that a message names
_DIGITS = 9  # of a label at most
_NEWLINE, _RETURN, _SPACE, _TAB, _ZERO = b"\n"[0], b"\r"[0], b" "[0], b"\t"[0], b"0"[0]


@dataclass(frozen=True, eq=False)
class Listing:
    """The rows of a list, R of them."""

    path: Path
    texts: Texts
    """[R], the paths or keys."""
    labels: NDArray[np.int64]
    """[R], the numbers behind them; empty for a list of keys alone."""
    lines: NDArray[np.int64]
    """[R], the line of the file that each row is, counted from 1."""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Listing":
        """These rows."""
        kept = np.arange(len(self))[rows]
        return Listing(
            self.path, self.texts.take(kept), self.labels[kept] if len(self.labels) else self.labels, self.lines[kept]
        )

    def without(self, start: str) -> "Listing":
        """The list with its texts as `Texts.without` has them."""
        return Listing(self.path, self.texts.without(start), self.labels, self.lines)

    def named(self, rows: NDArray[np.int64]) -> str:
        """The first three of some rows by text and line, and how many more there are."""
        first = ", ".join(f"{shown(self.texts[row])} in line {self.lines[row]}" for row in rows[:_NAMED].tolist())
        return first + (f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else "")


def read_keys(path: Path, *, header: str = "") -> Listing:
    """A list of keys, one a line, such as `images/0/12/34.jpg`.

    Args:
        path: the file.
        header: the beginning of a first line that names the column and is passed over if it is there.

    DataError for a file that cannot be read, or that is empty, names a key twice or one outside the data set's folder.
    """
    block, starts, ends, lines = _rows(path, header)
    return _checked(Listing(path, Texts(block, starts, ends), np.empty(0, np.int64), lines))


def read_pairs(path: Path, *, header: str = "", different: bool = True) -> Listing:
    """A list of keys with a number each, as `google/q0001/abc.jpg 0`: the number stands behind the last blank or tab.

    Args:
        path: the file.
        header: the beginning of a first line that names the columns and is passed over if it is there.
        different: refuse a key that is there twice. A list that needs it says why it does without.

    DataError as for `read_keys`, and for a line without a number, which it names.
    """
    block, starts, ends, lines = _rows(path, header)
    blanks = np.flatnonzero((block == _SPACE) | (block == _TAB))
    last = np.searchsorted(blanks, ends) - 1
    split = blanks[np.maximum(last, 0)] if len(blanks) else np.full(len(starts), -1)
    bad = (last < 0) | (split <= starts)
    numbers, wrong = _numbers(block, np.where(bad, ends, split + 1), ends)
    if len(rows := np.flatnonzero(bad | wrong)):
        row = int(rows[0])
        text = block[starts[row] : ends[row]].tobytes().decode("utf-8", "backslashreplace")
        raise DataError(f"{path}: line {lines[row]} is {shown(text)}, not a path and the number of a class behind it")
    while (trailing := np.isin(block[split - 1], (_SPACE, _TAB)) & (split - 1 > starts)).any():
        split = split - trailing
    return _checked(Listing(path, Texts(block, starts, split), numbers, lines), different)


def _rows(path: Path, header: str) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The file's bytes, and where its lines begin and end in them that are not empty, with their numbers from 1."""
    try:
        block = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    ends = np.flatnonzero(block == _NEWLINE)
    if len(block) and block[-1] != _NEWLINE:
        ends = np.append(ends, len(block))
    starts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1] + 1])
    for byte in (_RETURN, _SPACE, _TAB):  # at the end, in any number
        while (blank := (ends > starts) & (block[ends - 1] == byte)).any():
            ends = ends - blank
    lines = np.arange(1, len(starts) + 1)
    full = ends > starts
    if header and len(starts) and full[0] and block[: ends[0]].tobytes().startswith(header.encode()):
        full[0] = False
    if not full.any():
        raise DataError(f"{path}: the list is empty")
    return block, starts[full], ends[full], lines[full]


def _numbers(
    block: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The decimal numbers that stand there, and which of them are none."""
    values, lengths = np.zeros(len(starts), np.int64), ends - starts
    wrong = (lengths < 1) | (lengths > _DIGITS)
    for place in range(min(_DIGITS, int(lengths.max(initial=0)))):
        rows = np.flatnonzero(lengths > place)
        digits = block[starts[rows] + place].astype(np.int64) - _ZERO
        wrong[rows] |= (digits < 0) | (digits > 9)
        values[rows] = 10 * values[rows] + digits
    return values, wrong


def _checked(listing: Listing, different: bool = True) -> Listing:
    _require_inside(listing)
    if different and len(rows := repeated(listing.texts)):
        raise DataError(f"{listing.path}: {len(rows)} keys are there twice: {listing.named(rows)}; drop one of each")
    return listing


def _require_inside(listing: Listing) -> None:
    """DataError for a path that leads out of the data set's folder, or that no system takes."""
    block, texts = listing.texts.block, listing.texts
    suspect = texts.column(0) == b"/"[0]
    content = block.tobytes() if (block == b"."[0]).any() or (block == 0).any() else b""
    if b".." in content or b"\0" in content or suspect.any():
        rows = np.array([row for row, text in enumerate(texts) if not is_inside(text)], np.int64)
        if len(rows):
            raise DataError(
                f"{listing.path}: {len(rows)} paths lead out of the data set's folder: {listing.named(rows)}; paths in "
                "a list are relative to it"
            )


def is_inside(name: str) -> bool:
    """Whether a relative path stays in its folder, as it is written."""
    return not name.startswith("/") and "\0" not in name and ".." not in name.split("/")


def looked_up(keys: Listing, among: Listing, what: str) -> NDArray[np.int64]:
    """int64 [K], the row of each key in a list that has to have it; DataError that names the first three missing ones.

    Args:
        keys: K keys.
        among: has them.
        what: of the message: "label".
    """
    rows = places(keys.texts, among.texts)
    if len(missing := np.flatnonzero(rows < 0)):
        raise DataError(
            f"{keys.path}: {len(missing)} of {len(keys)} keys have no {what} in {among.path.name}: "
            f"{keys.named(missing)}; get both files of one release"
        )
    return rows


def require_classes(listing: Listing, num_classes: int) -> None:
    """DataError for a number that is no class."""
    if len(rows := np.flatnonzero(listing.labels >= num_classes)):
        row = int(rows[0])
        raise DataError(
            f"{listing.path}: line {listing.lines[row]} has the class {listing.labels[row]}, and the data set has "
            f"classes 0 to {num_classes - 1}"
        )
