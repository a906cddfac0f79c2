"""Corrupts labels. Models that depend only on labels run in the compiled extension where speed matters."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _C
from ..checks import as_array, integer, require_memory, shown
from ..errors import ConfigError, DataError, nearest
from . import instance
from .draws import Purpose, first_of, quota_up, wide_words, wide_words_at
from .files import read_array
from .function import corrupt_by_function
from .maps import DATASET_MAPS, MAP_NAMES, class_map
from .result import NoisyLabels
from .spec import NoiseSpec, class_ranges, parse

Labels = NDArray[np.int64]

_MAX_CLASSES = 2**31 - 1  # classes are 32-bit words inside
_MAX_LISTED_CLASSES = 2**20  # where a spec lists classes, tables of this length are made
_ROOM = {
    "heterogeneous": 40,
    "idn": 80,
    "pmd": 80,
    "own": 48,
}  # bytes a label, at least; 16 hold the noisy and the clean one
_QUOTA = 24  # bytes more
_MOST_IN_QUOTA = 2**32 - 1
_ROW_SUM_TOLERANCE = 1e-5  # of a transition matrix, so that float32 ones of 1,000 classes pass


def corrupt(
    labels: ArrayLike,
    spec: str | NoiseSpec,
    *,
    seed: int,
    num_classes: int,
    dataset: str | None = None,
    human_labels: Mapping[str, NDArray[np.int64]] | None = None,
    threads: int = 0,
    inputs: ArrayLike | None = None,
    posteriors: ArrayLike | None = None,
) -> NoisyLabels:
    """Corrupt labels as `spec` says (see `parse` and `NoiseSpec`).

    labels        clean labels, any integer dtype, [N], each in [0, num_classes)
    seed          in [0, 2**64). The new label i depends only on (spec, seed, i, label i), except with quotas,
                  sequential maps, and models that use all inputs or posteriors. The result does not depend on dtype or
                  number of threads. With one seed, a label that flips at one rate flips to the same class at every
                  higher rate (all models except sequential maps, matrices, idn and pmd).
    dataset       the data set's name, which gives "asymmetric" its map: mnist, cifar10, cifar10n, cifar100, cifar100n
    human_labels  the data set's human labels by name, for "human:NAME"
    threads       0 for one per core
    inputs        images or other inputs of the samples, any real dtype, [N, ...], for "idn" and users' functions; other
                  noise does not read them
    posteriors    class probabilities of a trained network, float [N, C], for "idn:R,variant=score" and "pmd", unless
                  the spec names a file of them (posteriors=FILE.npy); other noise does not read them

    Without a quota each label is drawn independently ("i.i.d."; Patrini et al., CVPR 2017), so that the realised rate
    varies about the requested one. The result holds both. A class map applies to all labels at once, not to labels that
    are already flipped, unless the spec has sequential=true.

    Raises ConfigError for a bad spec, seed, number of classes or threads, and for a spec that these labels can't
    satisfy; DataError for bad labels, inputs, posteriors or matrices.
    """
    noise = parse(spec) if isinstance(spec, str) else spec
    if not isinstance(noise, NoiseSpec):
        raise ConfigError(f"a noise spec is a text such as 'symmetric:0.4', got {type(spec).__name__}")
    noise.require_task("classification", "these labels are one class a sample")
    seed = integer("the noise seed", seed, 0, 2**64 - 1)
    num_classes = integer("num_classes", num_classes, 2, _MAX_CLASSES)
    threads = integer("threads", threads, 0, 2**16)
    given = _checked("labels", labels, num_classes, room=_room(noise))
    if given.dtype == np.uint64:
        given = given.view(np.int64)  # the same bytes, as classes are small; with int64 uint64 makes float64
    if "asymmetric" in (noise.kind, noise.hybrid_kind):
        noise = replace(noise, map=_map_name(noise.map, dataset, num_classes))
    if noise.posteriors is not None:
        if posteriors is not None:
            raise ConfigError(f"noise {noise.kind!r}: the spec has posteriors={noise.posteriors}, drop the others")
        posteriors = read_array(f"noise {noise.kind!r}: posteriors", noise.posteriors)
    factor = None
    model = _Model(noise, given, num_classes, seed, threads)
    match noise.kind:
        case "symmetric":
            noisy = model.symmetric()
        case "asymmetric":
            noisy = model.asymmetric()
        case "pair":
            noisy = model.pair()
        case "heterogeneous":
            noisy = model.heterogeneous()
        case "matrix":
            transition = read_transition(Path(str(noise.name)), num_classes)
            noisy = _C.corrupt_matrix(given, transition, seed=seed, threads=threads)
        case "idn":
            noisy = instance.idn(given, noise, num_classes, seed, inputs, posteriors)
        case "pmd":
            noisy, factor = instance.pmd(given, noise, num_classes, seed, posteriors)
            if noise.hybrid is not None:
                hybrid_seed = int(wide_words(seed, Purpose.HYBRID_SEED, 1)[0])
                following = replace(parse(noise.hybrid), map=noise.map)
                noisy = corrupt(noisy, following, seed=hybrid_seed, num_classes=num_classes, threads=threads).labels
        case "own":
            noisy = corrupt_by_function(given, noise, num_classes, seed, inputs)
        case "human":
            noisy = _human_labels(str(noise.name), human_labels, dataset, len(given), num_classes)
        case _:  # none
            noisy = given.astype(np.int64)
    return NoisyLabels(
        labels=noisy,
        clean_labels=given.astype(np.int64),
        spec=str(noise),
        seed=None if noise.kind in ("human", "none") else seed,
        num_classes=num_classes,
        requested_rate=0.0 if noise.kind == "none" else noise.rate,
        pmd_factor=factor,
    )


@dataclass(frozen=True, eq=False)
class _Model:
    """The models that depend only on labels. The labels are checked."""

    noise: NoiseSpec
    given: NDArray[np.integer]
    num_classes: int
    seed: int
    threads: int

    def by_quota(
        self, labels: NDArray[np.integer], *, true_class: str = "excluded", targets: tuple[int, ...] | None = None
    ) -> Labels:
        """The quota's share of `labels` drawn anew: uniformly, or as the class map `targets` says."""
        if len(labels) > _MOST_IN_QUOTA:
            raise DataError(f"labels: {len(labels)} of them, and a quota is of at most {_MOST_IN_QUOTA}")
        return _C.corrupt_quota(
            labels,
            num_classes=self.num_classes,
            rate=float(self.noise.rate or 0.0),
            seed=self.seed,
            threads=self.threads,
            include_true_class=true_class == "included",
            per_class=self.noise.quota == "class",
            class_map=targets,
        )

    def uniform(self, labels: NDArray[np.integer], num_classes: int, rate: float, true_class: str) -> Labels:
        include = true_class == "included"
        return _C.corrupt_symmetric(
            labels, num_classes=num_classes, rate=rate, include_true_class=include, seed=self.seed, threads=self.threads
        )

    def pair(self) -> Labels:
        if self.noise.quota == "none":
            rate = float(self.noise.rate or 0.0)
            return _C.corrupt_pair(
                self.given, num_classes=self.num_classes, rate=rate, seed=self.seed, threads=self.threads
            )
        chosen = self.by_quota(self.given) != self.given  # without the true class, what is chosen changes
        noisy = self.given + chosen.astype(np.int64)
        noisy[noisy == self.num_classes] = 0
        return noisy

    def symmetric(self) -> Labels:
        true_class, rate = self.noise.true_class, float(self.noise.rate or 0.0)
        if self.noise.classes is None:
            if self.noise.quota != "none":
                return self.by_quota(self.given, true_class=true_class)
            return self.uniform(self.given, self.num_classes, rate, true_class)
        group = self.members("classes", self.noise.classes)
        if len(group) < 2:
            raise ConfigError("noise 'symmetric': classes= needs two classes or more: one has no other to change to")
        if self.noise.quota == "none":
            return self.within(group, rate, true_class)
        noisy = self.given.astype(np.int64)
        among = np.flatnonzero(self.inside(group))
        if len(among):
            labels = self.given[among]
            chosen = among[self.by_quota(labels) != labels]
            noisy[chosen] = self.within(group, 1.0, true_class)[chosen]
        return noisy

    def within(self, group: NDArray[np.int64], rate: float, true_class: str) -> Labels:
        """Symmetric noise among the classes of `group`, ascending: their labels change, and to one another alone."""
        rank = np.zeros(self.num_classes, np.int64)
        rank[group] = np.arange(len(group))
        drawn = group[self.uniform(rank[self.given], len(group), rate, true_class)]
        return np.where(self.inside(group), drawn, self.given)

    def inside(self, group: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool [N]: whose labels are of a class in `group`."""
        table = np.zeros(self.num_classes, bool)
        table[group] = True
        return table[self.given]

    def heterogeneous(self) -> Labels:
        clean = self.members("clean", str(self.noise.clean))
        corrupted = np.setdiff1d(np.arange(self.num_classes), clean)
        rate = float(self.noise.rate or 0.0)
        if not len(corrupted):
            raise ConfigError("noise 'heterogeneous': clean= names all classes, so none is left to corrupt")
        if self.noise.strategy == 2:
            if len(corrupted) < 2:
                raise ConfigError("noise 'heterogeneous': strategy=2 needs two corrupted classes, clean= leaves one")
            return self.within(corrupted, rate, "excluded")
        drawn = self.uniform(self.given, self.num_classes, rate, "excluded")
        return np.where(self.inside(clean), self.given, drawn)

    def members(self, key: str, text: str) -> NDArray[np.int64]:
        """The classes that an option lists, ascending."""
        what = f"noise {self.noise.kind!r}: {key}={text}"
        if self.num_classes > _MAX_LISTED_CLASSES:
            raise ConfigError(f"{what}: classes can be listed for up to {_MAX_LISTED_CLASSES} classes")
        ranges = class_ranges(text)
        if ranges[-1][1] >= self.num_classes:
            raise ConfigError(f"{what}: class {ranges[-1][1]} is outside [0, {self.num_classes})")
        return np.concatenate([np.arange(first, last + 1) for first, last in ranges])

    def asymmetric(self) -> Labels:
        targets = class_map(str(self.noise.map), self.seed)
        if self.noise.sequential:
            return self.sequential(targets)
        if self.noise.quota != "none":
            return self.by_quota(self.given, targets=targets)
        rate = float(self.noise.rate or 0.0)
        return _C.corrupt_mapped(self.given, class_map=targets, rate=rate, seed=self.seed, threads=self.threads)

    def sequential(self, targets: tuple[int, ...]) -> Labels:
        noisy, rate = self.given.astype(np.int64), float(self.noise.rate or 0.0)
        for label, target in enumerate(targets):
            members = np.flatnonzero(noisy == label)
            if target == label or not len(members):
                continue
            keys = wide_words_at(self.seed, Purpose.SEQUENCE, members, attempt=label)
            noisy[members[first_of(keys, quota_up(rate, len(members)))]] = target
        return noisy


def read_transition(path: Path, num_classes: int) -> NDArray[np.float64]:
    """The row-stochastic matrix in an npy file, float64 [C, C]; rows are divided by their sum, 1 to within 1e-5.

    Raises DataError for a file that can't be read and for a matrix of another kind.
    """
    content = read_array("noise 'matrix'", path)
    what = f"noise 'matrix': {str(path)!r}"
    if content.shape != (num_classes, num_classes):
        raise DataError(f"{what}: must be of shape {(num_classes, num_classes)}, got {content.shape}")
    matrix = content.astype(np.float64)
    if not np.isfinite(matrix).all() or matrix.min() < 0:
        row, column = np.argwhere(~np.isfinite(matrix) | (matrix < 0))[0]
        raise DataError(f"{what}: entry [{row}, {column}] is {matrix[row, column]}, no probability")
    sums = matrix.sum(1)
    if np.abs(sums - 1).max() > _ROW_SUM_TOLERANCE:
        row = int(np.abs(sums - 1).argmax())
        columns = np.abs(matrix.sum(0) - 1).max() <= _ROW_SUM_TOLERANCE
        hint = "its columns do: save the transpose" if columns else "rows are true classes, columns noisy ones"
        raise DataError(f"{what}: row {row} sums to {sums[row]:.6g} instead of 1; {hint}")
    return matrix / sums[:, None]


def _label_array(what: str, labels: Any, room: int = 0) -> NDArray[np.integer]:
    """`labels` as a contiguous, aligned array in native byte order: itself where it is one already.

    DataError if that, or `room` bytes more for each of them, don't fit into memory.
    """
    array = as_array(what, labels)
    if array.ndim != 1:
        raise DataError(f"{what}: must be 1-D, one class per sample, got shape {array.shape}")
    if not len(array):
        raise DataError(f"{what}: empty, there is nothing to corrupt")
    if array.dtype.kind not in "iu":
        raise DataError(f"{what}: must have an integer dtype, got {array.dtype}")
    copied = not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative)
    require_memory(what, len(array) * (room + copied * array.itemsize))
    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "A"])


def _checked(what: str, labels: Any, num_classes: int, room: int = 0) -> NDArray[np.integer]:
    array = _label_array(what, labels, room)
    try:
        _C.check_labels(array, num_classes)
    except _C.LabelError as error:
        raise DataError(f"{what}: {error}") from None
    return array


def checked_labels(what: str, labels: Any, num_classes: int) -> Labels:
    """`labels` as int64 [N] with classes in [0, num_classes), else DataError that begins with `what`."""
    return _checked(what, labels, num_classes, room=8).astype(np.int64)


def _room(noise: NoiseSpec) -> int:
    """Bytes that a label's noise takes, at least."""
    chosen = noise.quota != "none" or noise.sequential or noise.classes is not None
    return _ROOM.get(noise.kind, 16) + _QUOTA * chosen


def _map_name(name: str | None, dataset: str | None, num_classes: int) -> str:
    name = name or DATASET_MAPS.get(str(dataset))
    if name is None:
        where = "without a data set" if dataset is None else f"on data set {shown(dataset)}"
        maps = ", ".join(sorted(MAP_NAMES))
        raise ConfigError(f"asymmetric noise {where} has no map of its own: give one with map=NAME, valid: {maps}")
    classes = len(class_map(name, seed=0))
    if classes != num_classes:
        raise ConfigError(f"asymmetric noise: map {name!r} is for {classes} classes, the labels have {num_classes}")
    return name


def _human_labels(
    name: str, human_labels: Mapping[str, Any] | None, dataset: str | None, num_samples: int, num_classes: int
) -> NDArray[np.int64]:
    if not human_labels:
        where = "the data set" if dataset is None else f"data set {shown(dataset)}"
        raise ConfigError(f"noise human:{name!r}: {where} has no human labels: cifar10n and cifar100n have")
    if name not in human_labels:
        raise ConfigError(f"unknown human labels {name!r}: {nearest(name, list(human_labels))}")
    what = f"human labels {name!r}"
    human = _label_array(what, human_labels[name])
    if len(human) != num_samples:
        raise DataError(f"{what}: {len(human)} labels for {num_samples} samples")
    return checked_labels(what, human, num_classes)
