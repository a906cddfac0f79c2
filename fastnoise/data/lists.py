"""Lists: a file of paths and labels as a data set."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..checks import shown
from ..errors import DataError, nearest
from .folder import SPLITS, FileSet, file_facts
from .scan import CACHE, Found
from .shards import in_order
from .sheets import FILES, LABELS, TRUE_LABELS, Sheet, read_classes, read_sheet
from .tar import find_members


def find_list(path: Path) -> FileSet:
    """The image files that a sheet lists (`fastnoise.data.sheets.read_sheet`), one a line.

    The columns are path (or file), relative to the sheet's folder; label (or class), the name of a class or its number;
    and, where they are there, clean_label, the true class, empty or -1 where it is unknown, and split: train, val,
    valid, validation or test in any case. A path may lead into a tar file, as shards/00.tar/0001.jpg. Other columns are
    left out, and the notes say so. The classes are those of the training lines, given and true: numbers in their order,
    names in that of the alphabet. Among numbers 3.0 is 3. Classes that no line of training has are refused.

    Raises:
        DataError: in one line, with the line of the sheet and what stands there: a file that is missing or listed
            twice, an empty field, a class or a split that is unknown, a label below 0 or a true one below -1.
    """
    sheet = read_sheet(path, source=str(path))
    column = sheet.require(*FILES)
    names = [name.strip() for name in sheet.column(column)]
    _check_different(sheet, names)
    given = [text.strip() for text in sheet.column(sheet.require(*LABELS))]
    if "-1" in given:
        raise sheet.error(given.index("-1"), "the label '-1' is below 0; drop the line if its class is unknown")
    used = [column, sheet.find(*LABELS)]
    parts = ["train"] * len(sheet)
    if (split := sheet.find("split")) is not None:
        used.append(split)
        for row, text in enumerate(sheet.column(split)):
            part = SPLITS.get(text.strip().casefold())
            if part is None:
                raise sheet.error(row, f"column {split!r}: {shown(text)} is no split; {nearest(text, list(SPLITS))}")
            parts[row] = part
    true: list[str] = []
    if (clean := sheet.find(*TRUE_LABELS)) is not None:
        used.append(clean)
        true = [text.strip() for text in sheet.column(clean, empty=True)]
    given, true = read_classes(given, true, sheet.error)
    class_names = _classes(sheet, given, true, parts)
    numbers = {name: number for number, name in enumerate(class_names)}
    labels = _labels(sheet, sheet.require(*LABELS), given, numbers)
    clean_labels = None
    if clean is not None:
        clean_labels = _labels(sheet, clean, true, numbers | {"": -1})
    notes = []
    if others := [name or "without a name" for name in sheet.names if name not in used]:
        notes.append(f"left out the columns {', '.join(others)} of {path.name}")
    return FileSet(
        f"list:{path}",
        _found(sheet, path.parent, names),
        tuple(parts),
        labels,
        class_names,
        path.with_name(f".{path.name}{CACHE}"),
        clean_labels,
        tuple(notes),
    )


def _check_different(sheet: Sheet, names: list[str]) -> None:
    """DataError for a file that two lines list, however they write it."""
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if "\0" in name:
            raise sheet.error(row, f"{shown(name)} is no path")
        if (before := first.setdefault(os.path.normpath(name), row)) != row:
            raise sheet.error(row, f"the file {shown(name)} is in line {sheet.lines[before]} too; drop one of them")


def _classes(sheet: Sheet, given: list[str], true: list[str], parts: list[str]) -> tuple[str, ...]:
    """The classes of the training lines; `true` is empty if there are none."""
    names = {text for column in (given, true) for text, part in zip(column, parts, strict=False) if part == "train"}
    if not names:
        raise DataError(f"{sheet.source}: no line is of the split train")
    return tuple(in_order(names - {""}))


def _labels(sheet: Sheet, column: str, texts: list[str], numbers: dict[str, int]) -> NDArray[np.int64]:
    for row, text in enumerate(texts):
        if text not in numbers:
            known = [name for name, number in numbers.items() if number >= 0]
            raise sheet.error(
                row, f"column {column!r}: no training line has the class {shown(text)}; {_near(text, known)}"
            )
    return np.array([numbers[text] for text in texts], np.int64)


def _near(text: str, known: list[str]) -> str:
    if len(known) > 20:
        return f"they have {len(known)} classes, as {known[0]}"
    return nearest(text, known)


def _found(sheet: Sheet, folder: Path, names: list[str]) -> Found:
    """The files, all of which are there: in the folder, or in a tar file that a path leads into."""
    facts = []
    absent = []
    for row, name in enumerate(names):
        path = Path(os.path.join(folder, name))
        fact = file_facts(path)
        if fact[0] < 0 and not os.path.exists(path):  # False too for a name that no system takes
            absent.append(row)
        elif os.path.isdir(path):
            raise sheet.error(row, f"{shown(name)} is a folder and no image")
        facts.append(fact)
    try:
        members = find_members([os.path.join(folder, names[row]) for row in absent])
    except DataError as error:
        raise DataError(f"{sheet.source}: {error}") from None
    missing = [row for row, offset in zip(absent, members.offsets.tolist(), strict=True) if offset < 0]
    if missing:
        lines = ", ".join(f"{shown(names[row])} in line {sheet.lines[row]}" for row in missing[:3])
        raise DataError(
            f"{sheet.source}: {len(missing)} of {len(names)} files are missing in {folder}: {lines}"
            f"{', ...' if len(missing) > 3 else ''}; paths are relative to the list"
        )
    sizes, times = (np.array(column, np.int64) for column in zip(*facts, strict=True))
    found = Found(folder, tuple(names), sizes, times)
    if not absent:
        return found
    sizes[absent] = members.lengths
    times[absent] = np.array([file_facts(Path(file))[1] for file in members.files], np.int64)[members.of_file]
    if len(members) == len(names):
        return replace(found, within=members)
    paths: list[str] = list(found.paths())
    for row, member in zip(absent, members, strict=True):
        paths[row] = member
    return replace(found, within=paths)
