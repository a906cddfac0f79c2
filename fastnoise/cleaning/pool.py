"""The images that are judged, and what each network learns from."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..config import RunConfig
from ..data import ImageDataset
from ..data.table import ImageTable, joined
from ..engine.prepare import RunData, load_data, load_images
from ..engine.run_labels import UNUSED
from ..errors import ConfigError, DataError
from ..noise.files import LabelFile, read_label_file
from ..noise.samples import rows_beside

TRAIN = "train"

UNKNOWN = -1


@dataclass(frozen=True, eq=False, repr=False)
class Judged:
    """All images whose labels are judged, N of them, in the order of the data set."""

    data: RunData
    """A run's data whose training images and test images are these N, with the given labels."""
    splits: NDArray[np.str_]
    """[N], the part of the data set that each image belongs to: train, validation or test. Images that a run would hold
    out by itself are of train."""
    names: tuple[str, ...]
    """N texts: the names of the images, else their paths, else their positions in the data set."""
    known: NDArray[np.int64]
    """[N], the right class where someone has said it, -1 elsewhere: clean labels that are known in part, and
    decisions."""
    brought: bool
    """Whether the labels are the user's own and not those of a data set with right labels."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """The names of further images, whose labels are unknown, with the parts of the data set that they belong to."""

    def __repr__(self) -> str:
        return f"Judged({len(self.names)} labels of {len(self.data.class_names)} classes)"

    @property
    def given(self) -> NDArray[np.int64]:
        """[N], the labels as they came."""
        return self.data.given

    @property
    def learnt(self) -> NDArray[np.int64]:
        """[N], the labels that networks learn from: the right ones where they are known, else the given ones."""
        return np.where(self.known >= 0, self.known, self.given)

    @property
    def truth(self) -> NDArray[np.int64] | None:
        """[N], the right labels if all of them are known beforehand. They measure the result and have no other use."""
        clean = self.data.clean
        return clean if clean is not None and (clean >= 0).all() else None

    @property
    def sha256(self) -> str:
        """A hash of names, labels and what is known about them."""
        digest = hashlib.sha256("\0".join(self.names).encode("utf-8", "surrogatepass"))
        digest.update(self.given.tobytes())
        digest.update(self.known.tobytes())
        return digest.hexdigest()


def load_judged(
    config: RunConfig,
    decisions: Mapping[str, str] | None = None,
    dataset: ImageDataset | None = None,
    *,
    tested: bool = True,
) -> Judged:
    """Load what `config` describes, with all images whose labels the user brings.

    The user's own validation and test images are judged as the training images are, also those that a run would hold
    out by itself. Of other data sets the training images are judged, the first `limit_train` of them if that is set.

    The labels are those that a run would have: as the data set has them, as --labels gives them, or with noise.

    Args:
        config: of a run. Samples that it holds out for validation are not judged.
        decisions: name of an image -> the name of its right class, as someone has decided.
        dataset: images and labels in memory, instead of the data set that `config` names.
        tested: whether the user's validation and test images are judged too.

    Raises:
        ConfigError: the data set is for another task than classification.
        DataError: a decision names a class that there is not.
    """
    dataset = load_images(config) if dataset is None else dataset
    splits = np.full(len(dataset.train), TRAIN)
    joins = tested and dataset.given_labels and config.data.limit_train is None and dataset.train.form == "classes"
    if joins and config.noise.noise != "none":  # which is put on all of them, if it can be
        joins = False
        whole, parts_of_whole = _whole(dataset)
        known_alike = whole.clean_labels is None or bool((whole.clean_labels >= 0).all())
        if not dataset.human_labels and known_alike:
            dataset, splits = whole, parts_of_whole
    data = load_data(config, dataset)
    if data.task.name != "classification":
        raise ConfigError(f"{dataset.name} is for {data.task.name}; only labels of classification are judged")
    total = config.data.limit_train or len(dataset.train)
    every = _names(dataset.train) or tuple(map(str, range(total)))
    unknown = np.setdiff1d(np.arange(total), data.positions).tolist()
    left_out = {every[place]: str(splits[place]) for place in unknown}
    names = tuple(every[place] for place in data.positions.tolist())
    splits = splits[data.positions]
    if joins:
        parts = _parts(dataset, replace(data.train, labels=data.given), data.clean)
        if config.noise.labels is not None:
            file = read_label_file(config.noise.labels, data.task.outputs)
            labels, notes = data.task.read_labels(file), [note for note in data.notes if not note.startswith(UNUSED)]
            for place, part in enumerate(parts[1:], 1):
                parts[place], lost, note = _as_the_file_says(file, labels, dataset, part)
                left_out |= dict.fromkeys(lost, part.split)
                notes += note
            data = replace(data, notes=tuple(notes))
        table, right, splits = _joined(dataset, parts)
        if len(table) > len(data.train):
            names = _names(table) or tuple(map(str, range(len(table))))
            clean = right if (right >= 0).any() else None
            noisy = data.task.brought(table.labels, None, data.noisy.spec)
            places = np.arange(len(table))
            data = replace(data, train=table, given=table.labels, clean=clean, noisy=noisy, positions=places)
    known = np.full(len(data.given), UNKNOWN)
    if data.clean is not None and (data.clean < 0).any():  # if all are known they measure and have no other use
        known = data.clean.copy()
    if decisions:
        places_of = {name: place for place, name in enumerate(names)}
        classes = {name: label for label, name in enumerate(data.class_names)}
        for name, label in decisions.items():
            if label not in classes:
                raise DataError(f"the decision that {name} is {label}: {dataset.name} has no such class")
            if name in places_of:  # images may have been removed since
                known[places_of[name]] = classes[label]
    judged = replace(
        data,
        validation=None,
        validation_given=None,
        test=replace(data.train, labels=data.given),
        second_tests={},
        rest_hash="",  # true labels that measure may come while networks are trained; `sha256` has what counts
    )
    return Judged(judged, splits, names, known, dataset.given_labels, left_out)


@dataclass(frozen=True, eq=False)
class _Part:
    """The images of a part of a data set, with their given labels."""

    split: str
    table: ImageTable
    clean: NDArray[np.int64] | None
    """[N], the right classes, -1 where they are unknown; None if all are."""


def _parts(dataset: ImageDataset, train: ImageTable, clean: NDArray[np.int64] | None) -> list[_Part]:
    """Training images with their given labels, and the user's validation and test images."""
    test = dataset.test if dataset.test_given is None else replace(dataset.test, labels=dataset.test_given)
    parts, seen = [_Part(TRAIN, train, clean)], [dataset.train]
    for split, table, right in (
        ("validation", dataset.validation, dataset.validation_clean),
        ("test", test, dataset.test_clean),
    ):
        if table is not None and not any(_same(table, other) for other in seen):
            parts.append(_Part(split, table, right))  # validation images can be the test images too
            seen.append(table)
    return parts


def _as_the_file_says(
    file: LabelFile, labels: NDArray[np.int64], dataset: ImageDataset, part: _Part
) -> tuple[_Part, list[str], list[str]]:
    """Validation or test images with the `labels` of a file's rows, where it has rows for them, and without those whose
    labels are -1 there; the names of these; and a note of how many the file leaves as they are."""
    rows = rows_beside(file, dataset, part.table)
    own = int((rows < 0).sum())
    note = [f"{own} {part.split} images are judged by the labels of {dataset.name}: the file has none for them"]
    given = np.where(rows >= 0, labels[rows], part.table.labels)
    kept, lost = np.flatnonzero(given >= 0), np.flatnonzero(given < 0)
    table = replace(part.table, labels=np.maximum(given, 0))
    clean = part.clean
    if len(lost):
        table, clean = table.take(kept), None if clean is None else clean[kept]
    names = _names(part.table)
    return _Part(part.split, table, clean), [names[place] for place in lost.tolist()], note if own else []


def _joined(dataset: ImageDataset, parts: Sequence[_Part]) -> tuple[ImageTable, NDArray[np.int64], NDArray[np.str_]]:
    """All images with their given labels, their right classes (-1 where they are unknown), and the part of each. Images
    that were drawn to be the test set go back to their places."""
    table = joined([part.table for part in parts])
    clean = np.concatenate([np.full(len(part.table), UNKNOWN) if part.clean is None else part.clean for part in parts])
    splits = np.repeat([part.split for part in parts], [len(part.table) for part in parts])
    if dataset.drawn_test and len(parts) > 1 and table.origin is not None:
        order = np.argsort(table.origin)
        table, clean, splits = replace(table.take(order), origin=None), clean[order], np.full(len(table), TRAIN)
    return table, clean, splits


def _whole(dataset: ImageDataset) -> tuple[ImageDataset, NDArray[np.str_]]:
    """The user's data set with its validation and test images among the training images, and the part of each."""
    table, clean, splits = _joined(dataset, _parts(dataset, dataset.train, dataset.clean_labels))
    return replace(dataset, train=table, clean_labels=clean, validation=None, test_given=None, test_clean=None), splits


def _same(table: ImageTable, other: ImageTable) -> bool:
    names = _names(table)
    return names == _names(other) if names else table.images is other.images


def _names(table: ImageTable) -> tuple[str, ...]:
    return tuple(table.names or table.files)


def fold_of(labels: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """[N], the fold of each sample: folds of equal size, in which each class has its share up to one sample.

    ConfigError for fewer samples than folds.
    """
    if len(labels) < folds:
        raise ConfigError(f"--folds {folds}: there are {len(labels)} images; give fewer folds")
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]  # class after class, each in random order
    fold = np.empty(len(labels), np.int64)
    fold[order] = np.arange(len(labels)) % folds
    return fold


def part_of(judged: Judged, held: NDArray[np.bool_]) -> RunData:
    """The data of the network that does not see the labels of the `held` samples; it is tested on all of them."""
    kept = np.flatnonzero(~held)
    data, learnt = judged.data, judged.learnt
    return replace(
        data,
        positions=data.positions[kept],
        train=data.train.take(kept),
        given=learnt[kept],
        clean=None if data.clean is None else data.clean[kept],
    )
