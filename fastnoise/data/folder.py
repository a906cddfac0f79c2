"""Class folders of image files."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..texts import counted, printable
from .facts import IMAGENET_MEAN_STD
from .images import extensions, holds_image, shown_name
from .names import family
from .scan import CACHE, FileFacts, Found, require_readable, scan
from .table import (
    DEFAULT_IMAGE_SIZE,
    PARTS,
    SPLIT_SEED,
    TEST_FRACTION,
    ImageDataset,
    ImageTable,
    stratified_split,
)
from .texts import picked

SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
"""What the parts of a data set are called, in any case -> which part it is."""

_SYSTEM = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("@eadir", "lost+found"),
}
"""Names of what systems leave beside the user's files, in lower case. Hidden names begin with a dot."""

_OWN_TEST = {
    "folder": "add a folder test",
    "list": "add a column split with the word test",
    "tar": "give shards with test images behind them, as ,test=SHARDS",
    "hf": "add Parquet files whose names begin with test",
}
"""Family of data sets -> how someone brings test images of his own."""

_NAMED = 3  # files left out that a line names


@dataclass(frozen=True, eq=False)
class FileSet:
    """Labelled image files as they were found, before any is read; F of them, part by part and class by class."""

    name: str
    """Of the data set."""
    found: Found
    parts: tuple[str, ...]
    """[F], of each file: train, validation or test."""
    labels: NDArray[np.int64]
    """[F]"""
    class_names: tuple[str, ...]
    cache: Path
    clean_labels: NDArray[np.int64] | None = None
    """[F], -1 where they are unknown; None if they all are."""
    notes: tuple[str, ...] = ()

    def names(self, positions: NDArray[np.int64]) -> tuple[str, ...]:
        """The files' names as every table and file shows them."""
        return tuple([shown_name(self.found.names[place]) for place in positions.tolist()])

    def scan(self) -> FileFacts:
        """Decode what the cache does not know, as `fastnoise.data.scan.scan`."""
        return scan(self.found, self.cache)


def read_files(files: FileSet, *, exif: bool = True, skip_unreadable: bool = False) -> ImageDataset:
    """The data set of some files, of which each is decoded once, or was at an earlier start (`FileSet.scan`).

    Without test files every fifth image of each class (drawn with a fixed seed) is the test set, unless there are files
    for validation, which are then both. Files that all have one size keep it; others are resized to 224 x 224 unless
    the loader is told another size.

    Args:
        files: what was found.
        exif: whether images are turned upright as the camera noted.
        skip_unreadable: leave out what cannot be decoded. Otherwise it is refused, all of it at once.

    Raises:
        DataError: a file that cannot be read, or none left in the training set.
    """
    known = files.scan()
    notes = [*files.notes, *known.notes(files.found.names)]
    kept = np.ones(len(files.labels), bool)
    if skip_unreadable and known.errors:
        lost = np.array(sorted(known.errors))
        kept[lost] = False
        notes.append(f"left out {counted(len(lost), 'unreadable image')}: {listed(files.names(lost))}")
    else:
        require_readable(files.found, known, files.name)
    return assembled(
        files.name,
        files.found.paths(),
        files.names(np.arange(len(files.labels))),
        np.array(files.parts),
        files.labels,
        files.clean_labels,
        files.class_names,
        size=known.size(np.flatnonzero(kept), exif) or DEFAULT_IMAGE_SIZE,
        by_pillow=known.by_pillow,
        kept=kept,
        exif=exif,
        notes=notes,
    )


def assembled(
    name: str,
    paths: Sequence[str],
    names: Sequence[str],
    parts: NDArray[np.str_],
    labels: NDArray[np.int64],
    clean: NDArray[np.int64] | None,
    class_names: tuple[str, ...],
    *,
    size: tuple[int, int],
    by_pillow: NDArray[np.bool_],
    kept: NDArray[np.bool_] | None = None,
    exif: bool = True,
    notes: Sequence[str] = (),
) -> ImageDataset:
    """The data set of F labelled files.

    Without test files every fifth image of each class (drawn with a fixed seed) is the test set, unless there are files
    for validation, which are then both.

    Args:
        name: of the data set.
        paths: [F], of the files.
        names: [F], as every table and file shows them.
        parts: [F], of each file: train, validation or test.
        labels: [F], given classes.
        clean: [F], true ones, -1 where they are unknown; None if they all are.
        class_names: of the classes.
        size: height and width of the images.
        by_pillow: [F], as a table has it.
        kept: [F], the files that are used; None: all.
        exif: whether images are turned upright as the camera noted.
        notes: what there is to say already.

    DataError if the training set is empty, or too small to hold out a test set.
    """
    notes = list(notes)
    positions = {part: np.flatnonzero((parts == part) & (True if kept is None else kept)) for part in PARTS}

    def table(chosen: NDArray[np.int64], labels: NDArray[np.int64]) -> ImageTable:
        return ImageTable(
            labels[chosen],
            files=picked(paths, chosen),
            size=size,
            names=picked(names, chosen),
            exif=exif,
            by_pillow=by_pillow[chosen],
        )

    if not len(positions["train"]):
        raise DataError(f"{name}: the training set is empty")
    truth = labels if clean is None else np.where(clean < 0, labels, clean)  # of the test set: the best that is known
    train, test = positions["train"], positions["test"]
    origins: tuple[NDArray[np.int64] | None, NDArray[np.int64] | None] = (None, None)
    if not len(test) and len(positions["validation"]):
        test = positions["validation"]
        notes.append(f"no test images: those for validation ({len(test)}) are the test set too")
    elif not len(test):
        held, out = stratified_split(truth[train], TEST_FRACTION, SPLIT_SEED)
        if not len(out):
            raise DataError(
                f"{name}: {len(train)} images are too few to hold some out for the test; {_OWN_TEST[family(name)]}"
            )
        origins, train, test = (held, out), train[held], train[out]
    if missing := sorted(set(range(len(class_names))) - set(truth[test].tolist())):
        notes.append(f"no test images of {listed([class_names[label] for label in missing])}")
    validation = positions["validation"]
    return ImageDataset(
        name,
        replace(table(train, labels), origin=origins[0]),
        replace(table(test, truth), origin=origins[1]),
        class_names,
        *IMAGENET_MEAN_STD,
        given_labels=True,
        clean_labels=None if clean is None else clean[train],
        validation=table(validation, labels) if len(validation) else None,
        notes=tuple(notes),
        test_given=None if clean is None else labels[test],
        test_clean=None if clean is None else clean[test],
        validation_clean=None if clean is None else clean[validation],
    )


def listed(names: Sequence[str], show: Callable[[str], str] = printable) -> str:
    """The first names on one line, as `show` gives each, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(map(show, names[:_NAMED])) + (f" and {more} more" if more > 0 else "")


# -- finding -------------------------------------------------------------------------------------------------------


@dataclass
class ClassFiles:
    """The images of a class, in the order of their names."""

    names: list[str]
    """Paths relative to the root."""
    sizes: list[int]
    """Bytes."""
    times: list[int]
    """Of the last change, ns."""


def find_folder(path: Path) -> FileSet:
    """The image files under PATH: what is called train, val, valid, validation and test there (in any case) are parts
    of the data set and hold class folders, or else the class folders lie in PATH itself.

    A class folder's images may lie in folders in it. All formats are taken that Pillow decodes, by their endings, and
    files without an ending by their content. Hidden files and folders and those of systems (._x, .DS_Store, Thumbs.db,
    __MACOSX) are passed over. What else is left out is counted in `notes`. The classes are those of the training part,
    in the order of their names; the other parts need not have images of all of them.

    Raises:
        DataError: no class folders or images, parts without train or with further classes, or a part that is there
            twice under different names.
    """
    if not path.is_dir():
        raise DataError(f"{path} is not a folder: give a folder that holds a folder of images for each class")
    left: list[str] = []
    tops = _folders(path, "")
    split = _split_folders(path, tops)
    roots = {"train": ""} if split is None else {part: split[part] for part in PARTS if part in split}
    outside = [name for name in tops if split and name not in split.values()]
    for name in outside:
        left += images_in(path, name, []).names
    left += _files(path, "")
    files = ClassFiles([], [], [])
    parts: list[str] = []
    labels: list[int] = []
    numbers: dict[str, int] = {}
    empty: list[str] = []
    for part, root in roots.items():
        if split:
            left += _files(path, root)
        found = {name: images_in(path, os.path.join(root, name), left) for name in _folders(path, root)}
        classes = {name: images for name, images in found.items() if images.names}
        empty += [os.path.join(root, name) for name in found if name not in classes]
        if part == "train":
            _check_classes(path / root, found, classes)
            numbers = {name: number for number, name in enumerate(classes)}
        elif odd := [name for name in classes if name not in numbers]:
            raise DataError(
                f"{path / root}: the classes are those of {path / roots['train']}, which has no "
                f"{listed([shown_name(name) for name in odd])}; move or remove {'it' if len(odd) == 1 else 'them'}"
            )
        for name, images in classes.items():
            files.names += images.names
            files.sizes += images.sizes
            files.times += images.times
            parts += [part] * len(images.names)
            labels += [numbers[name]] * len(images.names)
    notes = []
    left.sort()
    if left:
        notes.append(f"left out {_counted(left)}: {listed([shown_name(name) for name in left])}")
    if outside:
        notes.append(f"left out folders beside {', '.join(roots.values())}: {listed(list(map(shown_name, outside)))}")
    if empty:
        notes.append(f"left out folders without images: {listed(list(map(shown_name, empty)))}")
    return FileSet(
        f"folder:{path}",
        Found(path, tuple(files.names), np.array(files.sizes, np.int64), np.array(files.times, np.int64)),
        tuple(parts),
        np.array(labels, np.int64),
        tuple(map(shown_name, numbers)),
        path / CACHE,
        notes=tuple(notes),
    )


def _check_classes(folder: Path, found: dict[str, ClassFiles], classes: dict[str, ClassFiles]) -> None:
    """DataError unless the training part has class folders with images."""
    if not found:
        raise DataError(f"{folder} holds no class folders: put each class's images into a folder of its own there")
    if not classes:
        first = next(iter(found))
        raise DataError(f"{folder / first} holds no images of a format that is read, and nor does any folder beside it")


def _split_folders(path: Path, tops: list[str]) -> dict[str, str] | None:
    """Part -> the folder that holds it; None if the folders in PATH are classes, one of which may be called train.

    They are parts if there is a folder train and no folder of another name with images. If there is one, they still are
    parts if there are several and train holds folders alone.
    """
    found = [name for name in tops if name.casefold() in SPLITS]
    others = [name for name in tops if name not in found and _holds_images(os.path.join(path, name))]
    split: dict[str, str] = {}
    twice = [name for name in found if split.setdefault(SPLITS[name.casefold()], name) != name]
    for name in found:
        if others and set(_folders(path, name)) & set(others):
            raise DataError(f"{path} has class folders beside its folder {name}; move them into a folder train")
    if "train" in split:
        if others and (len(split) == 1 or _holds_images(os.path.join(path, split["train"]), deep=False)):
            return None
        if twice:
            one = split[SPLITS[twice[0].casefold()]]
            raise DataError(f"{path} has a folder {one} and a folder {twice[0]}; join them or remove one")
        return split
    if split and not others:
        raise DataError(f"{path} has a folder {found[0]} but no folder train")
    return None


def _holds_images(folder: str, deep: bool = True) -> bool:
    """Whether a file with an image's ending lies in a folder or, with `deep`, in a folder in it."""
    inner = []
    for entry in _entries(folder):
        if _is_folder(entry):
            inner.append(entry)
        elif os.path.splitext(entry.name)[1].lower() in extensions():
            return True
    return deep and any(_holds_images(entry.path) for entry in inner if not entry.is_symlink())


def _counted(left: list[str]) -> str:
    """How many files are left out, by their endings."""
    endings = Counter(os.path.splitext(name)[1].lower() or "no ending" for name in left)
    words = ", ".join(f"{count} {shown_name(ending)}" for ending, count in endings.most_common(5))
    return f"{counted(len(left), 'file')} ({words}{', ...' if len(endings) > 5 else ''})"


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _SYSTEM


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, by its names, without what is hidden; DataError if the folder cannot be read."""
    try:
        with os.scandir(folder) as entries:
            yield from sorted((entry for entry in entries if not _hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise _closed(folder, error) from None


def _closed(folder: str, error: OSError) -> DataError:
    return DataError(f"{folder}: cannot be read ({error.strerror}); change its permissions")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link that leads nowhere or in a ring is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _folders(path: Path, inside: str) -> list[str]:
    return [entry.name for entry in _entries(os.path.join(path, inside)) if _is_folder(entry)]


def _files(path: Path, inside: str) -> list[str]:
    """Files that lie where folders are expected."""
    entries = _entries(os.path.join(path, inside))
    return [os.path.join(inside, entry.name) for entry in entries if not _is_folder(entry)]


def images_in(path: Path, inside: str, left: list[str]) -> ClassFiles:
    """The images in a folder and in those in it, by their paths relative to `path`; other files go to `left`.

    Links to folders are followed, unless they lead back to a folder that they lie in, `path` among these. What has an
    image's name but is a pipe or a broken link counts as an image, which is then refused.
    """
    # Of a million files each line counts; hence no objects and few calls for each.
    taken: dict[str, bool] = {}
    rows: list[tuple[str, int, int]] = []

    def place(folder: str | Path) -> tuple[int, int]:
        status = os.stat(folder)
        return status.st_dev, status.st_ino

    def walk(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> None:
        here = place(folder)
        if here in above:
            return
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    file = entry.name
                    if file[0] == "." or (_is_folder(entry) and _hidden(file)):
                        continue
                    name = prefix + file
                    if _is_folder(entry):
                        walk(entry.path, name + os.sep, (*above, here))
                    elif is_image(file, entry):
                        rows.append((name, *file_facts(entry)))
                    elif not _hidden(file):
                        left.append(name)
        except OSError as error:
            raise _closed(folder, error) from None

    def is_image(file: str, entry: os.DirEntry[str]) -> bool:
        dot = file.rfind(".")
        if dot < 0:
            return holds_image(entry.path)
        ending = file[dot:]
        if (known := taken.get(ending)) is None:
            known = taken[ending] = ending.lower() in extensions()
        return known

    above = [path / folder for folder in Path(inside).parents]
    walk(os.path.join(path, inside), os.path.join(inside, ""), tuple(map(place, above)))
    rows.sort()
    return ClassFiles(*map(list, zip(*rows, strict=True))) if rows else ClassFiles([], [], [])


def file_facts(entry: os.DirEntry[str] | Path) -> tuple[int, int]:
    """Size and time of change [ns] of a file; -1 and 0 of what is no regular file."""
    try:
        found = entry.stat()
    except OSError:  # a broken link
        return -1, 0
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else (-1, 0)
