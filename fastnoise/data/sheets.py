"""Sheets: files of text columns (CSV, TSV) as spreadsheets and scripts write them. Imports no torch."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checks import shown
from ..errors import DataError, nearest

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
"""What may stand between two fields, with its name."""

FILES = ("path", "file", "filename", "file_name", "image_path", "image", "image_name", "name")
"""What a column is called that says which image a row is of, in every sheet that is read."""
LABELS = ("label", "labels", "class", "class_name")
"""What a column is called that says of which class it is."""
TRUE_LABELS = ("clean_label", "clean_labels", "true")
"""What a column of the true classes is called."""

_WHOLE = re.compile(r"(-?\d+)(?:\.0+)?", re.ASCII)
"""An integer, or one as a float."""

Headless = Callable[[Sequence[str]], bool]
"""Says of the fields of a file's first line whether they are values and not the names of columns."""


@dataclass(frozen=True)
class Sheet:
    """The columns of a file as texts."""

    source: str
    """What messages call the file."""
    names: tuple[str, ...]
    """Of the columns, without the blanks around them; all but the first are given. Empty for a file without names."""
    rows: tuple[tuple[str, ...], ...]
    """R rows of one text for each column, as they are written."""
    lines: tuple[int, ...]
    """The line of the file, counted from 1, in which each row begins."""

    def __len__(self) -> int:
        return len(self.rows)

    def find(self, *names: str) -> str | None:
        """The first of these columns that the sheet has, by its name there; None without any. Upper and lower case
        count as the same, unless the sheet itself tells columns apart by them."""
        for name in names:
            alike = [found for found in self.names if found.casefold() == name.casefold()]
            if name in alike:
                return name
            if len(alike) == 1:
                return alike[0]
        return None

    def require(self, *names: str) -> str:
        """As `find`; DataError if the sheet has none of these columns."""
        found = self.find(*names)
        if found is None:
            wanted = " or ".join(map(repr, names))
            raise DataError(f"{self.source}: no column {wanted}; {nearest(names[0], [*filter(None, self.names)])}")
        return found

    def column(
        self,
        name: str | int,
        *,
        empty: bool = False,
        different: bool = False,
        advice: str = "fill it in or drop the line",
    ) -> list[str]:
        """The R texts of a column, by its name in the sheet or its place.

        Args:
            name: as in `names`, or the place of the column, counted from 0.
            empty: whether fields may be empty.
            different: whether no two texts may be the same, as names of samples may not.
            advice: what to do with an empty field, if none may be.

        DataError names the line of the first field that breaks this.
        """
        place = name if isinstance(name, int) else self.names.index(name)
        texts = [row[place] for row in self.rows]
        called = f"column {name!r}" if isinstance(name, str) and name else f"column {place + 1}"
        first: dict[str, int] = {}
        for number, text in enumerate(texts):
            if not empty and not text.strip():
                raise self.error(number, f"{called} is empty; {advice}")
            if different and first.setdefault(text, number) != number:
                raise self.error(number, f"{called}: {shown(text)} is in line {self.lines[first[text]]} too; drop one")
        return texts

    def error(self, row: int, message: str) -> DataError:
        """A DataError that names the file and the line of a row, counted from 0."""
        return DataError(f"{self.source}: line {self.lines[row]}: {message}")


def read_sheet(path: str | Path, *, source: str | None = None, headless: Headless | None = None) -> Sheet:
    """Read a file of columns, whose first line names them.

    The text is UTF-8 with or without a byte order mark, or UTF-16 with one. The fields are separated by commas,
    semicolons or tabs, whichever splits the first line, and may be quoted as in CSV files. Empty lines are skipped.

    Args:
        path: of a regular file.
        source: what messages call it; by default the path.
        headless: says whether the first line has values and not names. By default it has names.

    Raises:
        DataError: the file cannot be read, is of another encoding, holds a NUL byte, has no rows, or a line has another
            number of fields than the first. The message names the line and what is there.
    """
    source = str(path) if source is None else source
    text = _decoded(source, _content(source, Path(path)))
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{source}: line {line} has a NUL byte, which no text has; save the file as UTF-8 or UTF-16")
    separator = _separator(source, text)
    rows, lines = _parsed(source, text, separator)
    if not rows:
        raise DataError(f"{source}: empty")
    names: tuple[str, ...] = ()
    width = len(rows[0])
    if headless is None or not headless(rows[0]):
        names = tuple(name.strip() for name in rows.pop(0))
        _check_names(source, names, lines.pop(0))
    for row, line in zip(rows, lines, strict=True):
        if len(row) != width:
            raise DataError(
                f"{source}: line {line} has {_count(len(row))} and the first line {width}, separated by a "
                f"{SEPARATORS[separator]}: {shown(separator.join(row))}"
            )
    if not rows:
        raise DataError(f"{source}: it has a line of column names and no other")
    return Sheet(source, names, tuple(map(tuple, rows)), tuple(lines))


def whole_number(text: str) -> str | None:
    """The integer that a text is, of which pandas writes one as a float in columns with gaps: 3.0 is 3. None for any
    other text."""
    found = _WHOLE.fullmatch(text)
    return None if found is None else found[1]


def read_classes(
    given: Sequence[str], true: Sequence[str], error: Callable[[int, str], DataError]
) -> tuple[list[str], list[str]]:
    """Given and true classes of the same samples as they count: where all of them are integers or integral floats, 3.0
    is 3; a true class that is unknown, -1, is empty.

    Args:
        given: as they are written, empty where one is unknown.
        true: the same of the true ones; empty if there are none.
        error: makes a DataError of a sample's place and what is wrong there.

    Raises:
        DataError: a number below 0, or a true one below -1.
    """
    found = {text: whole_number(text) for text in {*given, *true} - {""}}
    plain = {text: number for text, number in found.items() if number is not None}
    if len(plain) < len(found):
        return list(given), ["" if text == "-1" else text for text in true]
    plain[""] = ""
    plain_given, plain_true = ([plain[text] for text in column] for column in (given, true))
    for place, text in enumerate(plain_given):
        if text.startswith("-"):
            raise error(place, f"the label {shown(given[place])} is below 0; drop it if its class is unknown")
    for place, text in enumerate(plain_true):
        if text.startswith("-") and text != "-1":
            raise error(place, f"the true label {shown(true[place])} is below -1; write -1 or nothing if it is unknown")
    return plain_given, ["" if text == "-1" else text for text in plain_true]


def _content(source: str, path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise DataError(f"{source}: can't be read: not a regular file")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # the latter for a path with a NUL byte
        raise DataError(f"{source}: can't be read: {getattr(error, 'strerror', None) or error}") from None


def _decoded(source: str, content: bytes) -> str:
    advice = "save the file as UTF-8, or as UTF-16 with a byte order mark"
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise DataError(f"{source}: line 1 begins as UTF-32; {advice}")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-16" if wide else "utf-8-sig", "ignore")
        found = content[error.start : error.start + 4].hex(" ")
        what = "UTF-16" if wide else "UTF-8"
        line = before.count("\n") + 1
        raise DataError(f"{source}: line {line} is not {what} (bytes {found}); {advice}") from None


def _separator(source: str, text: str) -> str:
    """The one that splits the first line into most fields; a comma if none does."""
    fields = {separator: len(_first(source, text, separator)) for separator in SEPARATORS}
    most = max(fields.values())
    best = [separator for separator, count in fields.items() if count == most]
    if most > 1 and len(best) > 1:
        words = " and ".join(f"a {SEPARATORS[separator]}" for separator in best)
        raise DataError(f"{source}: line 1 is split by {words} alike; quote the names that have one of them inside")
    return best[0]


def _first(source: str, text: str, separator: str) -> list[str]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        return next((row for row in reader if any(map(str.strip, row))), [])
    except csv.Error:
        return []  # what is wrong with it, `_parsed` says


def _parsed(source: str, text: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """The rows that are not empty, and the line in which each begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows, lines = [], []
    begin = 1
    try:
        for row in reader:
            if any(map(str.strip, row)):
                rows.append(row)
                lines.append(begin)
            begin = reader.line_num + 1
    except csv.Error as error:
        found = shown(text.splitlines()[begin - 1] if begin <= len(text.splitlines()) else "")
        raise DataError(f"{source}: line {begin} can't be split into fields ({error}): {found}") from None
    return rows, lines


def _check_names(source: str, names: tuple[str, ...], line: int) -> None:
    """DataError for a name that two columns have, or for a column behind the first without one."""
    for place, name in enumerate(names):
        if name in names[:place]:
            raise DataError(f"{source}: line {line}: two columns are called {name!r}; rename one")
        if place and not name:
            raise DataError(f"{source}: line {line}: column {place + 1} has no name; name it or remove it")


def _count(number: int) -> str:
    return f"{number} field" if number == 1 else f"{number} fields"
