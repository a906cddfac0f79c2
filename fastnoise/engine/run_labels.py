"""The labels of a run: as a file gives them, as the data set has them, or corrupted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import data as datasets
from .. import noise
from ..config import RunConfig
from ..data import stratified_split
from ..errors import ConfigError, DataError
from ..noise.files import read_label_file
from ..noise.result import known_labels
from ..noise.samples import match, with_clean
from ..tasks import Task
from ..tasks.base import Labels, differing

UNUSED = "of that file training does not use the"
"""How a line begins that says so of labels."""


def _from_file(
    source: str, dataset: datasets.ImageDataset, task: Task, count: int
) -> tuple[noise.NoisyLabels, NDArray[np.int64], tuple[str, ...]]:
    """What a file says of the first `count` samples: the labels of those that it has one for, the positions of these,
    and lines that say how they were found and what is not used."""
    file = replace(read_label_file(source, task.outputs), source=f"--labels {source}")
    found = match(file, dataset, count)
    labels = task.read_labels(file)
    known = found.rows >= 0
    if labels.ndim == 1:
        known &= labels[found.rows] >= 0
    positions = np.flatnonzero(known)
    rows = found.rows[positions]
    if not len(rows):
        raise DataError(f"--labels {source}: none of the first {count} training images has a label")
    true = dataset.train.labels if dataset.clean_labels is None else dataset.clean_labels
    clean = None if dataset.given_labels and dataset.clean_labels is None else true[positions]
    if file.clean is not None:
        theirs = task.read_labels(with_clean(file))[rows]
        if clean is None:
            clean = theirs
        elif len(different := np.flatnonzero(differing(theirs, clean) & known_labels(theirs) & known_labels(clean))):
            raise DataError(
                f"--labels {source}: made from other true labels than the data set's, {len(different)} of "
                f"{len(rows)} differ, the first at sample {positions[different[0]]}; give labels of this data set in "
                "its order"
            )
    note = f"labels of {Path(source).name}: matched {found.how}"
    if len(rows) < count:
        note += f"; {count - len(rows)} of {count} training images have no known label and are left out"
    unused = (f"{UNUSED} labels of {found.beside} validation or test images",) if found.beside else ()
    return task.brought(labels[rows], clean, f"file:{Path(source).name}"), positions, (note, *unused)


def _noisy_labels(config: RunConfig, dataset: datasets.ImageDataset, task: Task, count: int) -> noise.NoisyLabels:
    """The labels of the first `count` samples, and what is known about them."""
    labels = dataset.train.labels
    true = labels if dataset.clean_labels is None else dataset.clean_labels  # noise is of true labels
    if config.noise.noise == "none" and dataset.given_labels:
        # Whether labels that someone brings are right nobody knows but who brings the true ones.
        if dataset.clean_labels is None:
            return task.brought(labels[:count], None, "given")
        return task.brought(labels[:count], dataset.clean_labels[:count], "given")
    if not known_labels(true[:count]).all():
        raise ConfigError(
            f"--noise {config.noise.noise}: noise is made of true labels, and {dataset.name} has them for "
            f"{known_labels(true[:count]).sum()} of {count} images; drop --noise to train on its given labels"
        )
    noisy = _corrupted(config, dataset, task, true[:count])
    return replace(noisy, clean_are="given") if dataset.given_labels and dataset.clean_labels is None else noisy


def _corrupted(config: RunConfig, dataset: datasets.ImageDataset, task: Task, true: Labels) -> noise.NoisyLabels:
    """The labels `true` of the first samples with the run's noise, or with --val-split clean both parts' apart."""
    spec, seed = config.noise.noise, config.noise.noise_seed
    if config.data.val_split == "given" or config.data.val_fraction == 0:
        return task.corrupt(dataset, true, spec, seed)
    if noise.parse(spec).posteriors is not None:
        raise ConfigError(
            f"--val-split clean corrupts training and validation samples apart, and --noise {spec} has posteriors of "
            "all; take --val-split given"
        )
    parts = stratified_split(true, config.data.val_fraction, seed)
    labels = true.copy()
    found = []
    for number, part in enumerate(parts):
        human = {name: theirs[part] for name, theirs in dataset.human_labels.items()}
        own = replace(
            dataset, train=dataset.train.take(part), human_labels=human, clean_labels=None, given_labels=False
        )
        if len(part):  # seeds below 2^63 are the runs'
            found.append(task.corrupt(own, true[part], spec, seed + number * 2**63))
            labels[part] = found[-1].labels
    return replace(found[0], labels=labels, clean_labels=true)


def run_labels(
    config: RunConfig, dataset: datasets.ImageDataset, task: Task, count: int
) -> tuple[noise.NoisyLabels, NDArray[np.int64], tuple[str, ...]]:
    """The labels of the first `count` samples or of those that --labels has, the positions of these, and what there is
    to say of them."""
    if config.noise.labels is None:
        return _noisy_labels(config, dataset, task, count), np.arange(count), ()
    return _from_file(config.noise.labels, dataset, task, count)


def true_where_known(noisy: noise.NoisyLabels, task: Task) -> tuple[noise.NoisyLabels, tuple[str, ...]]:
    """Labels that were brought with the true ones instead where they are known, and what there is to say of it."""
    clean, known = noisy.clean_labels, noisy.known
    if clean is None or not (different := known & (noisy.labels != clean)).any():
        return noisy, ()
    note = f"learnt from are the true labels of {known.sum()} images, of which {different.sum()} have another label"
    if not known.all():
        note += f", and the given ones of the other {(~known).sum()}"
    return task.brought(np.where(known, clean, noisy.labels), clean, noisy.spec), (note,)
