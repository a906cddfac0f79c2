"""The validation images of ILSVRC2012, in the layouts that code of the field keeps them in."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..checks import shown
from ..errors import DataError
from .facts import ILSVRC_FOLDERS, ILSVRC_SIGNS
from .images import extensions
from .lines import read_pairs, require_classes
from .texts import Texts

TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
DEVKIT = ("", "ILSVRC2012_devkit_t12/data", "data")
"""Where the two lie under the folder of the images."""


def find_ilsvrc(*roots: Path) -> Path | None:
    """The first folder under these roots that has the validation images, or None."""
    for root in roots:
        for folder in ILSVRC_FOLDERS:
            if any((root / folder / sign).exists() for sign in ILSVRC_SIGNS):
                return root / folder
    return None


def read_ilsvrc(folder: Path, wnids: Sequence[str], wanted: int) -> tuple[Texts, NDArray[np.int64]]:
    """The validation images of the first classes, by paths relative to `folder`, with their labels [n].

    The layouts, looked for in this order:

    val/n01440764/*.JPEG            class folders by WordNet id
    val/0/*.JPEG                    class folders by number, as DivideMix's code has them
    imagenet_val.txt or val.txt     `FILE LABEL`, beside the folder val: LABEL counts the sorted WordNet ids from 0
    meta.mat and the ground truth   of the development kit, beside the folder val: a line for each file in the order of
                                    the names, with ILSVRC's own ids, which `meta.mat` alone can turn into WordNet ids

    Args:
        folder: holds `val`.
        wnids: the WordNet id of each class, in the order of the classes.
        wanted: classes 0..wanted - 1 are taken.

    DataError if none of these is there, or if what is there contradicts itself.
    """
    numbers = {wnid: number for number, wnid in enumerate(wnids)}
    by_sorted = np.array([numbers[wnid] for wnid in sorted(wnids)])
    inner = sorted(entry.name for entry in os.scandir(folder / "val") if entry.is_dir()) if _has(folder, "val") else []
    if inner:
        return _of_folders(folder, inner, numbers, wanted)
    for name in ("imagenet_val.txt", "val.txt"):
        if _has(folder, name):
            listing = read_pairs(folder / name)
            require_classes(listing, len(wnids))
            labels = by_sorted[listing.labels]
            rows = np.flatnonzero(labels < wanted)
            texts = listing.texts.without("val/").take(rows)
            return texts.behind("val/"), labels[rows]
    for inside in DEVKIT:
        truth, meta = folder / inside / TRUTH, folder / inside / META
        if truth.is_file() and meta.is_file():
            return _of_devkit(folder, truth, meta, numbers, wanted)
        if truth.is_file():
            raise DataError(
                f"{truth}: its numbers are ILSVRC's own ids and not those of the sorted WordNet ids; put {META} of the "
                f"development kit beside it, or sort the images into {folder}/val/WNID"
            )
    raise DataError(
        f"{folder}: the images in val have no classes; sort them into val/WNID, or put imagenet_val.txt (FILE LABEL) "
        "or the development kit beside val"
    )


def _has(folder: Path, name: str) -> bool:
    return (folder / name).exists()


def images_of(folder: Path) -> list[str]:
    """The names of the image files in a folder, sorted; none is looked at."""
    known = extensions()
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
    return sorted(name for name in names if os.path.splitext(name)[1].lower() in known and not name.startswith("."))


def _of_folders(
    folder: Path, inner: list[str], numbers: dict[str, int], wanted: int
) -> tuple[Texts, NDArray[np.int64]]:
    if all(name.isdecimal() for name in inner):
        classes = {name: int(name) for name in inner}
    else:
        classes = {name: numbers[name] for name in inner if name in numbers}
    if not classes or max(classes.values()) >= len(numbers):
        known = ", ".join(list(numbers)[:3])
        raise DataError(
            f"{folder / 'val'}: its folders are {', '.join(map(shown, inner[:3]))}; they must be called by WordNet ids "
            f"as {known}, or by the numbers of the classes from 0"
        )
    found: list[str] = []
    labels: list[int] = []
    for name, label in sorted(classes.items(), key=lambda item: (item[1], item[0])):
        if label < wanted:
            files = images_of(folder / "val" / name)
            found += [f"{name}/{file}" for file in files]
            labels += [label] * len(files)
    return Texts.of(found, "val/"), np.array(labels, np.int64)


def _of_devkit(
    folder: Path, truth: Path, meta: Path, numbers: dict[str, int], wanted: int
) -> tuple[Texts, NDArray[np.int64]]:
    """By the development kit: image i in the order of the names has ILSVRC id i of the ground truth."""
    from scipy.io import loadmat  # scikit-learn brings it

    try:
        table = np.ravel(loadmat(str(meta), squeeze_me=True)["synsets"])
        wnid_of = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in table}
        ids = np.array(truth.read_text(encoding="ascii").split(), np.int64)
    except Exception as error:  # scipy's reader raises errors of any kind on damaged files
        raise DataError(f"{truth}: it and {META} beside it cannot be read ({' '.join(str(error).split())})") from None
    files = images_of(folder / "val")
    if len(files) != len(ids):
        raise DataError(f"{truth}: {len(ids)} lines for {len(files)} images in {folder / 'val'}; get all of both")
    if unknown := sorted(set(ids.tolist()) - set(wnid_of)):
        raise DataError(f"{truth}: the ids {', '.join(map(str, unknown[:3]))} are not in {meta.name}")
    labels = np.array([numbers.get(wnid_of[number], wanted) for number in ids.tolist()], np.int64)
    rows = np.flatnonzero(labels < wanted)
    return Texts.of([files[row] for row in rows], "val/"), labels[rows]
