"""The classes of a data set split at random into two tasks, as in Khanal and Kanan 2021, section 3.2."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .names import read_options
from .table import ImageDataset, ImageTable, stratified_split


def load_two_tasks(name: str, root: Path | None, download: bool) -> ImageDataset:
    """The data set `of`, whose classes are numbered anew: first those of task 1, then those of task 2.

    `seed` splits the classes. With a `limit`, so many training images of each task are drawn, of each class alike, but
    for one image where the number does not divide.
    `only`=1 or 2 leaves out the other task.
    """
    from .datasets import load_dataset

    options = read_options(name)
    of, seed, limit, only = str(options["of"]), int(options["seed"]), int(options["limit"]), int(options["only"])
    if only > 2:
        raise ConfigError(f"--dataset {name}: only={only} must be 1 or 2, or 0 for both tasks")
    source = load_dataset(of, root, download=download)
    if source.num_classes < 4:
        raise ConfigError(f"{of} has {source.num_classes} classes, and two tasks need at least 4")
    halves = split_classes(source.num_classes, seed)
    parts = halves if not only else (halves[only - 1],)
    kept = np.concatenate([_of_task(source, part, limit, seed) for part in parts])
    classes = np.concatenate(parts)

    def numbered(table: ImageTable, positions: NDArray[np.int64]) -> ImageTable:
        part = table.take(positions)
        place = np.argsort(classes)
        return replace(part, labels=place[np.searchsorted(classes, part.labels, sorter=place)])

    return replace(
        source,
        name=name,
        train=numbered(source.train, np.sort(kept)),
        test=numbered(source.test, np.flatnonzero(np.isin(source.test.labels, classes))),
        class_names=tuple(source.class_names[label] for label in classes),
        human_labels={},
        clean_labels=None,
        task="multitask",
        groups=tuple(map(len, parts)),
    )


def split_classes(num_classes: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two halves of the classes at random, each in rising order; of an odd number the first is the smaller."""
    derived = int(np.random.SeedSequence([seed, 0]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    order = np.random.default_rng(derived).permutation(num_classes)
    return np.sort(order[: num_classes // 2]), np.sort(order[num_classes // 2 :])


def _of_task(source: ImageDataset, classes: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """The positions of a task's training images, all or `limit` of them; ConfigError if there are fewer."""
    mine = np.flatnonzero(np.isin(source.train.labels, classes))
    if not limit:
        return mine
    if limit > len(mine):
        raise ConfigError(f"limit={limit}: a task of {source.name} has {len(mine)} training images")
    labels = source.train.labels[mine]
    kept, left = stratified_split(labels, 1 - limit / len(mine), seed)
    surplus = len(kept) - limit  # since the number of each class was rounded, by one image of a class at most
    pool = kept if surplus > 0 else left
    there, first = np.unique(labels[pool], return_index=True)
    counts, found = (np.bincount(part, minlength=source.num_classes) for part in (labels[kept], labels))
    rounded = counts - found * limit / len(mine)
    order = np.argsort(np.sign(surplus) * -rounded[there], kind="stable")
    return mine[np.setxor1d(kept, pool[first[order[: abs(surplus)]]])]
