"""Which row of a label file is of which training sample: by names, by positions, or by row."""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import shown
from ..data.images import extensions
from ..data.table import ImageDataset, ImageTable
from ..data.texts import picked
from ..errors import DataError
from .files import LabelFile, integers, is_plain_integer, plain_number, written_name
from .result import NoisyLabels

_SHOWN = 3
"""Misfits that a message names."""


@dataclass(frozen=True, eq=False)
class Matched:
    """The row of a file for each of the first n training samples.

    rows    int64 [n], -1 for a sample that the file leaves out
    how     in words: "by name"
    beside  how many rows are of validation and test images, and passed over
    """

    rows: NDArray[np.int64]
    how: str
    beside: int = 0


def match(file: LabelFile, dataset: ImageDataset, count: int, *, part: bool = False) -> Matched:
    """Find the rows of the first `count` training samples.

    Samples are found by name if both the file and the data set have names: by the whole name, or by the end of a path
    if that fits one sample only. A column of another name counts if it holds such names. Rows of validation and test
    images are passed over. Otherwise they are found by their
    positions in the training set, and only if the file has neither by row. It then has a row for each training image,
    for each of the first `count`, or for each image of a set of which some were held out for the test.

    Args:
        file: its labels.
        dataset: whose training samples they are of.
        count: samples that are wanted.
        part: whether samples may be left out, as they may for a file that is itself `partial`.

    Raises:
        DataError: the file names samples that the data set has not, one of them twice, or leaves some out. The message
            names the first three.
    """
    total = len(dataset.train)
    found_by = _named(file, dataset)
    if found_by is not None:
        places, how = found_by
    elif file.index is not None:
        wrong = np.flatnonzero((file.index < 0) | (file.index >= total)).tolist()
        if wrong:
            found = (f"{file.where(row)} has position {file.index[row]}" for row in wrong)
            raise DataError(
                f"{file.source}: {first_of(found, len(wrong))}, and the training set has positions 0 to {total - 1}"
            )
        places, how = file.index, "by position"
    else:
        return _by_row(file, dataset, count)
    rows = np.full(total, -1)
    order = np.argsort(places, kind="stable")
    order = order[places[order] < total]
    _check_different(file, places, order)
    rows[places[order]] = order
    rows = rows[:count]
    missing = np.flatnonzero(rows < 0)
    if len(missing) == count or (len(missing) and not (part or file.partial)):
        names = dataset.train.names
        found = (shown(names[place]) if names else f"position {place}" for place in missing.tolist())
        raise DataError(
            f"{file.source}: it has no label for {len(missing)} of {count} training images: "
            f"{first_of(found, len(missing))}; write -1 for a label that is not known"
        )
    return Matched(rows, how, len(places) - len(order))


def first_of(found: Iterable[str], count: int) -> str:
    """The first three of `count` misfits, and how many there are if there are more."""
    listed = ", ".join(text for text, _ in zip(found, range(_SHOWN), strict=False))
    return listed if count <= _SHOWN else f"{listed} and {count - _SHOWN} more"


def _check_different(file: LabelFile, places: NDArray[np.int64], order: NDArray[np.int64]) -> None:
    """DataError if two rows are of one place. `order` has the rows that count, in the order of their places."""
    twice = np.flatnonzero(places[order][1:] == places[order][:-1]).tolist()
    if twice:
        pairs = (f"{file.where(int(order[pair]))} and {file.where(int(order[pair + 1]))}" for pair in twice)
        raise DataError(f"{file.source}: {first_of(pairs, len(twice))} are of one sample; drop one")


def _by_row(file: LabelFile, dataset: ImageDataset, count: int) -> Matched:
    total, found = len(dataset.train), len(file)
    why = "; the images of this data set have no names" if file.names else ""
    if found in (total, count):
        return Matched(np.arange(count), f"by row{why}")
    origin = _origin(dataset.train, dataset.test)
    if origin is not None and found == total + len(dataset.test):
        return Matched(
            origin[:count],
            f"by row of the {found} images in the order of their names, of which {total} are the training set{why}",
            found - total,
        )
    first = f", or --limit-train {found} to train on the first {found}" if found < total else ""
    raise DataError(
        f"{file.source}: {found} labels for a training set of {total} images, by row{why}; give a column of "
        f"names, or of positions (index){first}"
    )


def _origin(train: ImageTable, test: ImageTable) -> NDArray[np.int64] | None:
    """int64 [N], where the training samples were in a set that they made up with the test samples; None without one."""
    if train.origin is None or test.origin is None:
        return None
    whole = np.sort(np.concatenate([train.origin, test.origin]))
    return train.origin if np.array_equal(whole, np.arange(len(whole))) else None


def rows_beside(file: LabelFile, dataset: ImageDataset, table: ImageTable) -> NDArray[np.int64]:
    """The row of a file for each image of a `table` of validation or test images, int64 [M], -1 where it has none.

    They are found as training samples are (`match`), by name, or by row in a file of all images of which some were held
    out for the test. Positions are those of training samples.
    """
    rows = np.full(len(table), -1)
    total = len(dataset.train)
    if (found := _named(file, dataset)) is not None:
        row_of = dict(zip(found[0].tolist(), range(len(file)), strict=True))
        place_of = {name: total + place for place, name in enumerate(_tested(dataset))}
        rows = np.array([row_of.get(place_of[name], -1) for name in table.names])
    elif file.index is None and len(file) == total + len(dataset.test) and table.origin is not None:
        return table.origin if _origin(dataset.train, dataset.test) is not None else rows
    return rows


def _tested(dataset: ImageDataset) -> tuple[str, ...]:
    """The names of all test and validation images, each once."""
    others = () if dataset.validation is None else dataset.validation.names
    return tuple(dict.fromkeys((*dataset.test.names, *others)))


def _named(file: LabelFile, dataset: ImageDataset) -> tuple[NDArray[np.int64], str] | None:
    """What `_by_name` finds, if both the file and the data set have names. Without a column that is called as one of
    names, another counts whose texts are all of samples; one with names of images of which some are not is refused, if
    there are no positions either."""
    names = dataset.train.names
    if not names:
        return None
    if file.names:
        return _by_name(file, names, _tested(dataset))
    for column, texts in file.others.items():
        if len(set(texts)) < len(texts) or all(text.strip().isdigit() for text in texts):
            continue  # of groups or numbers
        try:
            places, how = _by_name(replace(file, names=texts), names, _tested(dataset))
        except DataError:
            if file.index is None and all(os.path.splitext(text)[1].lower() in extensions() for text in texts):
                raise
            continue
        return places, f"{how}, of column {column}"
    return None


def _by_name(file: LabelFile, names: Sequence[str], tested: Sequence[str]) -> tuple[NDArray[np.int64], str]:
    """The place of each row's sample, int64 [N]: those of other parts follow on those of the training set."""
    known = [_plain(name) for name in (*names, *tested)]
    whole = _unique((name, place) for place, name in enumerate(known))
    places = np.array([whole.get(_plain(name), -1) for name in file.names])
    others = np.flatnonzero(places < 0).tolist()
    if not others:
        return places, "by name"
    sets = ((0, known[: len(names)]), (len(names), known[len(names) :]))  # the training set comes first
    ends = [
        _unique((end, first + place) for place, name in enumerate(part) for end in _ends(name)) for first, part in sets
    ]
    bare = [_unique((_bare(end), place) for end, place in found.items()) for found in ends]
    for row in others:
        name = _plain(file.names[row])
        longer = {whole.get(end, -1) for end in _ends(name)}
        tried = (
            ends[0].get(name, -1),
            max(longer),
            bare[0].get(name, -1),
            ends[1].get(name, -1),
            bare[1].get(name, -1),
            max(whole.get(_bare(end), -1) for end in _ends(name)),  # names without a suffix, as those of tar shards
        )
        places[row] = next((place for place in tried if place >= 0), -1)
    wrong = [row for row in others if places[row] < 0]
    if wrong:
        found_ = (f"{file.where(row)} has {shown(file.names[row])}" for row in wrong)
        raise DataError(
            f"{file.source}: {len(wrong)} of {len(places)} names are of no image of this data set, or of several: "
            f"{first_of(found_, len(wrong))}; its names are as {shown(names[0])}"
        )
    return places, "by the ends of paths"


def _plain(name: str) -> str:
    """A name as it is compared: as text files have it, in one Unicode form, without a leading ./."""
    text = written_name(name).replace("\\", "/").removeprefix("./")
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _ends(name: str) -> list[str]:
    """The name and the ends of its path: a/b/c, b/c, c."""
    parts = name.split("/")
    return ["/".join(parts[place:]) for place in range(len(parts))]


def _bare(name: str) -> str:
    """Without the suffix."""
    stem, dot, _ = name.rpartition(".")
    return stem if dot and "/" not in name[len(stem) :] else name


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """What each name is of, -1 if it is of several."""
    found: dict[str, int] = {}
    for name, place in pairs:
        found[name] = -1 if found.setdefault(name, place) != place else place
    return found


# -- classes -------------------------------------------------------------------------------------------------


def classes_in(file: LabelFile, class_names: Sequence[str]) -> NDArray[np.int64]:
    """The classes of all rows of a file, int64 [N], -1 where one is not known.

    The file has the classes' names or numbers, or a column for each class with a one in one of them. A number that is
    the name of a class, as that of a folder may be, is that class, if each label of the file is such a name. 3.0 is 3
    where no class is called so. Numbers of a file that names its classes are of these, in whatever order `class_names`
    has them.

    DataError names the first three labels that are no class. It is raised too for fastnoise's own labels of another
    number of classes if they have no names.
    """
    values, count = file.values, len(class_names)
    if values.ndim == 2:
        return _hot(file, class_names)
    classes = _names_of_numbers(file, class_names)
    if classes is not None and classes != tuple(class_names):
        called = (*classes, "-1")  # the last is of label -1
        values = np.array([called[label] for label in values.tolist()])
    numbers = [str(number) for number in range(count)]
    if values.dtype.kind == "U" or (file.texts and list(class_names) != numbers):
        by_name = _unique((_plain(name), place) for place, name in enumerate(class_names)) | {"-1": -1}
        texts = [_plain(str(text)) for text in values.tolist()]
        texts = [text if text in by_name else plain_number(text) for text in texts]
        wrong = [row for row, text in enumerate(texts) if text not in by_name]
        if not wrong:
            return _some(file, np.array([by_name[text] for text in texts]))
        if values.dtype.kind == "U" and (classes is not None or not all(map(is_plain_integer, texts))):
            if classes is None and all(text.removeprefix("-").replace(".", "", 1).isdigit() for text in texts):
                integers(file)  # says which is none
            found = (f"{file.where(row)} holds {shown(str(values[row]))}" for row in wrong)
            some = ", ".join(map(repr, class_names[:_SHOWN]))
            raise DataError(
                f"{file.source}: {first_of(found, len(wrong))}, which is no class; the {count} classes are {some}"
                + (" and so on" if count > _SHOWN else "")
            )
    labels = integers(file)
    wrong_rows = np.flatnonzero((labels < -1) | (labels >= count))
    if len(wrong_rows):
        row, *others = wrong_rows.tolist()
        more = "".join(f"; {file.where(other)} holds {labels[other]}" for other in others[: _SHOWN - 1])
        rest = f"; {len(wrong_rows)} in all" if len(wrong_rows) > _SHOWN else ""
        raise DataError(f"{file.source}: {file.where(row)} holds {labels[row]}, outside [0, {count}){more}{rest}")
    return _some(file, labels)


def _names_of_numbers(file: LabelFile, class_names: Sequence[str]) -> tuple[str, ...] | None:
    """What a file calls the classes whose numbers it holds; None if it doesn't, or only by the numbers themselves.

    DataError without such names if fastnoise wrote that there is another number of classes.
    """
    classes = file.classes
    if classes is not None and (classes != tuple(map(str, range(len(classes)))) or set(classes) <= set(class_names)):
        return classes
    found = len(classes) if classes is not None else None if file.noisy is None else file.noisy.num_classes
    if found not in (None, len(class_names)):
        raise DataError(
            f"{file.source}: its {found} classes have no names, so that nobody knows which of these "
            f"{len(class_names)} they are"
        )
    return None


def _some(file: LabelFile, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    if (labels < 0).all():
        raise DataError(f"{file.source}: all of its labels are -1, which says that they are not known")
    return labels


def _hot(file: LabelFile, class_names: Sequence[str]) -> NDArray[np.int64]:
    """Classes from rows with a one in the column of the class; a row of -1 is not known."""
    values, count = file.values, len(class_names)
    if values.shape[1] != count:
        raise DataError(f"{file.source}: need integers [N], or rows of {count} zeros and a one, one for each class; "
                        f"found {values.dtype} {list(values.shape)}")  # fmt: skip
    if file.columns and set(file.columns) == set(class_names):
        values = values[:, [file.columns.index(name) for name in class_names]]
    unknown = (values == -1).all(1)
    right = unknown | (((values == 0) | (values == 1)).all(1) & (values.sum(1) == 1))
    wrong = np.flatnonzero(~right).tolist()
    if wrong:
        found = (f"{file.where(row)} is {shown(values[row].tolist())}" for row in wrong)
        raise DataError(f"{file.source}: {first_of(found, len(wrong))}: a row needs a one in one column and zeros else")
    return _some(file, np.where(unknown, -1, values.argmax(1)))


def columns_in(file: LabelFile, names: Sequence[str]) -> NDArray[np.float64]:
    """The finite numbers of all rows of a file, float64 [N, K], a column for each of K names; else DataError."""
    values = file.values
    if file.noisy is not None and values.ndim == 1:
        raise DataError(f"{file.source}: holds one class a sample, not {len(names)} numbers a row")
    try:
        values = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    except ValueError as error:
        raise DataError(f"{file.source}: need {len(names)} numbers a row ({error})") from None
    if values.shape[1] != len(names):
        raise DataError(f"{file.source}: need {len(names)} numbers a row, found {list(file.values.shape)}")
    unknown = [name for name in _names_of_numbers(file, names) or () if name not in names]
    if unknown:
        raise DataError(f"{file.source}: it has a column {shown(unknown[0])}; those here are {', '.join(names)}")
    if file.columns and set(file.columns) == set(names):
        values = values[:, [file.columns.index(name) for name in names]]
    wrong = np.flatnonzero(~np.isfinite(values).all(1)).tolist()
    if wrong:
        found = (f"{file.where(row)} is {shown(values[row].tolist())}" for row in wrong)
        raise DataError(f"{file.source}: {first_of(found, len(wrong))}, not finite")
    return values


def names_in(*files: LabelFile) -> tuple[str, ...] | None:
    """The names of the classes in files that have no data set: those that fastnoise wrote, or all that occur, in the
    order of the alphabet. None if the labels are numbers.

    DataError if some labels are numbers and some are names, of which nobody knows the numbers.
    """
    for file in files:
        if file.classes is not None:
            return file.classes
        if file.columns:
            return file.columns
    found, numbered = set[str](), list[str]()
    for file in files:
        for array in (file.values, file.clean):
            texts = list(map(plain_number, array.tolist() if array is not None and array.dtype.kind == "U" else ()))
            found |= {*texts} - {"-1"}
            if array is not None and (array.dtype.kind != "U" or any(text.isdigit() for text in texts)):
                numbered.append(file.source)
    if found and numbered and not all(text.isdigit() for text in found):
        raise DataError(f"{numbered[0]}: some labels are numbers and others names; give --dataset, or names alone")
    return tuple(sorted(found)) if found and not all(text.isdigit() for text in found) else None


def with_clean(file: LabelFile) -> LabelFile:
    """The file with its true labels in place of the given ones; DataError if it has none."""
    if file.clean is None:
        raise DataError(f"{file.source}: it has no true labels")
    return replace(file, values=file.clean)


def known_classes(
    file: LabelFile, class_names: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """The classes of a file's rows, int64 [N], -1 where one is not known, and their names if they have some.

    Without `class_names` those of the file count (`names_in`), or its numbers as they are.
    """
    class_names = class_names or names_in(file)
    if class_names is not None:
        return classes_in(file, class_names), tuple(class_names)
    if file.values.ndim == 2:
        return classes_in(file, tuple(map(str, range(file.values.shape[1])))), None
    return _some(file, integers(file)), None


def described(noisy: NoisyLabels, dataset: ImageDataset, positions: NDArray[np.int64]) -> NoisyLabels:
    """Labels of the training samples at these positions with the names of classes and samples, so that a file of them
    can be matched by those."""
    train = dataset.train
    return replace(
        noisy,
        class_names=dataset.class_names if len(dataset.class_names) == noisy.num_classes else None,
        names=picked(train.names, positions) if train.names else (),
        index=None if len(positions) == len(train) else positions,
    )


def _positions(file: LabelFile) -> NDArray[np.int64] | None:
    """The positions that a file gives, or that fastnoise's own has by itself."""
    return file.noisy.positions if file.noisy is not None else file.index


def aligned(first: LabelFile, second: LabelFile) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """The rows of two files that are of the same samples, int64 [n] each, and how they were found.

    By name if both files have names, else by position if both have those, else by row. DataError if two rows of a file
    are of one sample, or if one of the files has samples that the other has not, unless the other is `partial`.
    """
    keys: list[list[str]] | list[list[int]]
    if first.names and second.names:
        keys, how = [[_plain(name) for name in file.names] for file in (first, second)], "by name"
    elif (one_index := _positions(first)) is not None and (other_index := _positions(second)) is not None:
        keys, how = [one_index.tolist(), other_index.tolist()], "by position"
    elif len(first) == len(second):
        return np.arange(len(first)), np.arange(len(second)), "by row"
    else:
        raise DataError(
            f"{len(first)} clean and {len(second)} given labels, without names or positions: they must be of the same "
            "samples in order"
        )
    places: list[dict[Any, int]] = [{key: row for row, key in enumerate(column)} for column in keys]
    for number, file in enumerate((first, second)):
        if len(places[number]) < len(file):
            last = np.array([places[number][key] for key in keys[number]])
            _check_different(file, last, np.argsort(last, kind="stable"))
    for one, other, file, lacking in ((0, 1, first, second), (1, 0, second, first)):
        missing = [key for key in keys[one] if key not in places[other]]
        if missing and (not lacking.partial or len(missing) == len(keys[one])):
            found = first_of(map(repr, missing), len(missing))
            raise DataError(f"{lacking.source} has no label for {found}, which {file.source} has")
    rows = [(row, places[1][key]) for row, key in enumerate(keys[0]) if key in places[1]]
    return np.array([row for row, _ in rows]), np.array([row for _, row in rows]), how
