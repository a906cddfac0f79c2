"""Clean labels to noisy labels, by the compiled extension."""

from collections.abc import Mapping
from dataclasses import replace
from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _C
from ..errors import ConfigError, DataError, nearest
from .maps import CLASS_MAPS, DATASET_MAPS
from .result import NoisyLabels
from .spec import NoiseSpec, parse

_MAX_CLASSES = 2**31 - 1  # classes are 32-bit words inside


def corrupt(
    labels: ArrayLike,
    spec: str | NoiseSpec,
    *,
    seed: int,
    num_classes: int,
    dataset: str | None = None,
    human_labels: Mapping[str, NDArray[np.int64]] | None = None,
    threads: int = 0,
) -> NoisyLabels:
    """Corrupt labels as `spec` says (see `parse` and `NoiseSpec`).

    labels        clean labels, any integer dtype, [N], each in [0, num_classes)
    seed          in [0, 2**64). Label i's fate depends on (spec, seed, i, label i) alone, so that the result is the
                  same for any dtype and number of threads. With one seed, what flips at one rate flips, to the same
                  class, at every higher rate.
    dataset       the data set's name, which gives "asymmetric" its map: mnist, cifar10, cifar10n, cifar100, cifar100n
    human_labels  the data set's human labels by name, for "human:NAME"
    threads       0 for one per core

    Each label is drawn independently ("i.i.d."; Patrini et al., CVPR 2017), so that the realised rate varies about its
    expectation; the result holds it. Class maps apply to all labels at once, never to labels already flipped.

    Raises ConfigError for a bad spec, seed, number of classes or threads, DataError for bad labels.
    """
    noise = parse(spec) if isinstance(spec, str) else spec
    if not isinstance(noise, NoiseSpec):
        raise ConfigError(f"a noise spec is a text such as 'symmetric:0.4', got {type(spec).__name__}")
    seed = _integer("the noise seed", seed, 0, 2**64 - 1)
    num_classes = _integer("num_classes", num_classes, 2, _MAX_CLASSES)
    threads = _integer("threads", threads, 0, 2**16)
    given = _label_array("labels", labels)
    drawn: dict[str, Any] = {"rate": noise.rate, "seed": seed, "threads": threads}
    try:
        match noise.kind:
            case "symmetric":
                include = noise.true_class == "included"
                noisy = _C.corrupt_symmetric(given, num_classes=num_classes, include_true_class=include, **drawn)
            case "asymmetric":
                name = _map_name(noise.map, dataset, num_classes)
                noise = replace(noise, map=name)
                noisy = _C.corrupt_mapped(given, class_map=CLASS_MAPS[name], **drawn)
            case "pair":
                noisy = _C.corrupt_pair(given, num_classes=num_classes, **drawn)
            case "human":
                _C.check_labels(given, num_classes)
                noisy = _human_labels(str(noise.name), human_labels, dataset, len(given), num_classes)
            case _:  # none
                _C.check_labels(given, num_classes)
                noisy = given.astype(np.int64)
    except _C.LabelError as error:
        raise DataError(f"labels: {error}") from None
    return NoisyLabels(
        labels=noisy,
        clean_labels=given.astype(np.int64),
        spec=str(noise),
        seed=None if noise.kind in ("human", "none") else seed,
        num_classes=num_classes,
        requested_rate=0.0 if noise.kind == "none" else noise.rate,
    )


def _integer(what: str, value: Any, low: int, high: int) -> int:
    try:
        number = index(value)
    except TypeError:
        raise ConfigError(f"{what} must be an integer, got {value!r}") from None
    if not low <= number <= high:
        raise ConfigError(f"{what} must be in [{low}, {high}], got {number}")
    return number


def _label_array(what: str, labels: Any) -> NDArray[np.integer]:
    """`labels` as a contiguous, aligned array in native byte order: itself where it is one already."""
    try:
        array = np.asarray(labels)
    except (ValueError, TypeError, OverflowError):
        raise DataError(f"{what}: not an array of integers, got {type(labels).__name__}") from None
    if array.ndim != 1:
        raise DataError(f"{what}: must be 1-D, one class per sample, got shape {array.shape}")
    if not len(array):
        raise DataError(f"{what}: empty, there is nothing to corrupt")
    if array.dtype.kind not in "iu":
        raise DataError(f"{what}: must have an integer dtype, got {array.dtype}")
    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "A"])


def _map_name(name: str | None, dataset: str | None, num_classes: int) -> str:
    name = name or DATASET_MAPS.get(dataset or "")
    if name is None:
        where = "without a data set" if dataset is None else f"on data set {dataset!r}"
        maps = ", ".join(sorted(CLASS_MAPS))
        raise ConfigError(f"asymmetric noise {where} has no map of its own: give one with map=NAME, valid: {maps}")
    classes = len(CLASS_MAPS[name])
    if classes != num_classes:
        raise ConfigError(f"asymmetric noise: map {name!r} is for {classes} classes, the labels have {num_classes}")
    return name


def _human_labels(
    name: str, human_labels: Mapping[str, Any] | None, dataset: str | None, num_samples: int, num_classes: int
) -> NDArray[np.int64]:
    if not human_labels:
        where = "the data set" if dataset is None else f"data set {dataset!r}"
        raise ConfigError(f"noise human:{name!r}: {where} has no human labels: cifar10n and cifar100n have")
    if name not in human_labels:
        raise ConfigError(f"unknown human labels {name!r}: {nearest(name, list(human_labels))}")
    what = f"human labels {name!r}"
    human = _label_array(what, human_labels[name])
    if len(human) != num_samples:
        raise DataError(f"{what}: {len(human)} labels for {num_samples} samples")
    try:
        _C.check_labels(human, num_classes)
    except _C.LabelError as error:
        raise DataError(f"{what}: {error}") from None
    return human.astype(np.int64)
