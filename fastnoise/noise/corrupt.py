"""Clean labels to noisy labels: what looks at labels alone, by the compiled extension where speed counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _C
from ..errors import ConfigError, DataError, nearest
from . import instance
from .draws import Purpose, first_of, quota_up, wide_words
from .maps import DATASET_MAPS, MAP_NAMES, class_map
from .result import NoisyLabels
from .spec import NoiseSpec, class_ranges, parse

Labels = NDArray[np.int64]

_MAX_CLASSES = 2**31 - 1  # classes are 32-bit words inside
_MAX_LISTED_CLASSES = 2**20  # where a spec lists classes, tables of this length are made
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
    seed          in [0, 2**64). But for quotas, sequential maps and what is computed from all inputs or posteriors,
                  label i's fate depends on (spec, seed, i, label i) alone. The result is the same for any dtype and
                  number of threads. With one seed, what flips at one rate flips, to the same class, at every higher
                  rate (all models but sequential maps, matrices, idn and pmd).
    dataset       the data set's name, which gives "asymmetric" its map: mnist, cifar10, cifar10n, cifar100, cifar100n
    human_labels  the data set's human labels by name, for "human:NAME"
    threads       0 for one per core
    inputs        what the samples look like, any real dtype, [N, ...], for "idn"
    posteriors    class probabilities of a trained network, float [N, C], for "idn:R,variant=score" and "pmd"

    Without a quota each label is drawn independently ("i.i.d."; Patrini et al., CVPR 2017), so that the realised rate
    varies about its expectation; the result holds it. Class maps apply to all labels at once, never to labels already
    flipped, unless sequential=true says otherwise.

    Raises ConfigError for a bad spec, seed, number of classes or threads and for what the labels can't satisfy,
    DataError for bad labels, inputs, posteriors or matrices.
    """
    noise = parse(spec) if isinstance(spec, str) else spec
    if not isinstance(noise, NoiseSpec):
        raise ConfigError(f"a noise spec is a text such as 'symmetric:0.4', got {type(spec).__name__}")
    seed = _integer("the noise seed", seed, 0, 2**64 - 1)
    num_classes = _integer("num_classes", num_classes, 2, _MAX_CLASSES)
    threads = _integer("threads", threads, 0, 2**16)
    given = _checked("labels", labels, num_classes)
    if "asymmetric" in (noise.kind, noise.hybrid_kind):
        noise = replace(noise, map=_map_name(noise.map, dataset, num_classes))
    model = _Model(noise, given, num_classes, seed, threads)
    match noise.kind:
        case "symmetric":
            noisy = model.symmetric()
        case "asymmetric":
            noisy = model.asymmetric()
        case "pair":
            noisy = model.drawn_anew(model.pair)
        case "heterogeneous":
            noisy = model.heterogeneous()
        case "matrix":
            transition = read_transition(Path(str(noise.name)), num_classes)
            noisy = _C.corrupt_matrix(given, transition, seed=seed, threads=threads)
        case "idn":
            noisy = instance.idn(given, noise, num_classes, seed, inputs, posteriors)
        case "pmd":
            noisy = instance.pmd(given, noise, num_classes, seed, posteriors)
            if noise.hybrid is not None:
                hybrid_seed = int(wide_words(seed, Purpose.HYBRID_SEED, 1)[0])
                following = replace(parse(noise.hybrid), map=noise.map)
                noisy = corrupt(noisy, following, seed=hybrid_seed, num_classes=num_classes, threads=threads).labels
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
    )


@dataclass(frozen=True, eq=False)
class _Model:
    """The models that look at labels alone. The labels are checked."""

    noise: NoiseSpec
    given: NDArray[np.integer]
    num_classes: int
    seed: int
    threads: int

    def drawn_anew(self, draw: Callable[[float], Labels], among: NDArray[np.bool_] | None = None) -> Labels:
        """draw(rate), or where the spec has a quota, the draw of everything for the samples that fill the quota."""
        rate = float(self.noise.rate or 0.0)
        if self.noise.quota == "none":
            return draw(rate)
        members = np.arange(len(self.given)) if among is None else np.flatnonzero(among)
        noisy = self.given.astype(np.int64)
        if not len(members):
            return noisy
        labels = np.ascontiguousarray(self.given[members])
        replaced = _C.corrupt_quota(
            labels,
            num_classes=self.num_classes,
            rate=rate,
            seed=self.seed,
            threads=self.threads,
            include_true_class=False,
            per_class=self.noise.quota == "class",
        )
        chosen = members[replaced != labels]  # without the true class, what is chosen changes
        noisy[chosen] = draw(1.0)[chosen]
        return noisy

    def uniform(self, labels: NDArray[np.integer], num_classes: int, rate: float, true_class: str) -> Labels:
        include = true_class == "included"
        return _C.corrupt_symmetric(
            labels, num_classes=num_classes, rate=rate, include_true_class=include, seed=self.seed, threads=self.threads
        )

    def pair(self, rate: float) -> Labels:
        return _C.corrupt_pair(
            self.given, num_classes=self.num_classes, rate=rate, seed=self.seed, threads=self.threads
        )

    def symmetric(self) -> Labels:
        true_class = self.noise.true_class
        if self.noise.classes is None:
            return self.drawn_anew(lambda rate: self.uniform(self.given, self.num_classes, rate, true_class))
        group = self.members("classes", self.noise.classes)
        if len(group) < 2:
            raise ConfigError("noise 'symmetric': classes= needs two classes or more: one has no other to change to")
        return self.drawn_anew(lambda rate: self.within(group, rate, true_class), among=self.inside(group))

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
        return self.drawn_anew(
            lambda rate: _C.corrupt_mapped(
                self.given, class_map=targets, rate=rate, seed=self.seed, threads=self.threads
            )
        )

    def sequential(self, targets: tuple[int, ...]) -> Labels:
        noisy, rate = self.given.astype(np.int64), float(self.noise.rate or 0.0)
        for label, target in enumerate(targets):
            members = np.flatnonzero(noisy == label)
            if target == label or not len(members):
                continue
            keys = wide_words(self.seed, Purpose.SEQUENCE, len(noisy), attempt=label)
            noisy[first_of(keys, members, quota_up(rate, len(members)))] = target
        return noisy


def read_transition(path: Path, num_classes: int) -> NDArray[np.float64]:
    """The row-stochastic matrix in an npy file, float64 [C, C]; rows are divided by their sum, 1 to within 1e-5.

    Raises DataError for a file that can't be read and for a matrix of another kind.
    """
    try:
        content = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"noise 'matrix': can't read {str(path)!r}: {error.strerror or error}") from None
    except (ValueError, EOFError, BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"noise 'matrix': {str(path)!r} is no npy file of numbers: {reason}") from None
    what = f"noise 'matrix': {str(path)!r}"
    if not isinstance(content, np.ndarray) or content.dtype.kind not in "fiu":
        raise DataError(f"{what} holds no matrix of real numbers: save one with numpy.save")
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


def _checked(what: str, labels: Any, num_classes: int) -> NDArray[np.integer]:
    array = _label_array(what, labels)
    try:
        _C.check_labels(array, num_classes)
    except _C.LabelError as error:
        raise DataError(f"{what}: {error}") from None
    return array


def checked_labels(what: str, labels: Any, num_classes: int) -> Labels:
    """`labels` as int64 [N] with classes in [0, num_classes), else DataError that begins with `what`."""
    return _checked(what, labels, num_classes).astype(np.int64)


def _map_name(name: str | None, dataset: str | None, num_classes: int) -> str:
    name = name or DATASET_MAPS.get(dataset or "")
    if name is None:
        where = "without a data set" if dataset is None else f"on data set {dataset!r}"
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
        where = "the data set" if dataset is None else f"data set {dataset!r}"
        raise ConfigError(f"noise human:{name!r}: {where} has no human labels: cifar10n and cifar100n have")
    if name not in human_labels:
        raise ConfigError(f"unknown human labels {name!r}: {nearest(name, list(human_labels))}")
    what = f"human labels {name!r}"
    human = _label_array(what, human_labels[name])
    if len(human) != num_samples:
        raise DataError(f"{what}: {len(human)} labels for {num_samples} samples")
    return checked_labels(what, human, num_classes)
