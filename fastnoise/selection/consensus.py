"""Stage consensus: the samples with a small loss and the same prediction at each of several stages.

The rule is that of the SWCE pipeline. Every training sample is evaluated at some epochs ("stages"). A sample whose loss
is below a threshold at all stages gets the network's prediction as its label; the others keep their label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from .. import _C
from ..checks import as_array, integer, real, require_memory
from ..errors import ConfigError, DataError, nearest

COMPARISONS = ("below", "at_most")
JUDGED = ("pseudo", "given")

_INFINITE, _LARGEST = np.float32(np.inf), float(np.finfo(np.float32).max)

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ConsensusOptions:
    """Options of the rule that the papers leave open. Every result holds them.

    compare       a member's losses are "below" the threshold, or "at_most" the threshold
    agree         members' predictions must be equal at all stages
    label_stage   whose prediction is the pseudo-label, counted as Python counts: -1 is the last
    judged        which label must equal the true label for a sample to count as right: the "pseudo" label or the
                  "given" one

    `StageTables` decides which loss is recorded, and whether it is the loss of the predicted or of the given label. A
    sample with a loss of NaN or infinity is not a member.
    """

    compare: str = "below"
    agree: bool = True
    label_stage: int = -1
    judged: str = "pseudo"

    def __post_init__(self) -> None:
        for name, value, valid in (("compare", self.compare, COMPARISONS), ("judged", self.judged, JUDGED)):
            if not isinstance(value, str) or value not in valid:
                raise ConfigError(f"unknown {name} {str(value)!r}: {nearest(str(value), list(valid))}")
        if not isinstance(self.agree, bool):
            raise ConfigError(f"agree must be True or False, got {self.agree!r}")


_DEFAULT = ConsensusOptions()


@dataclass(frozen=True, eq=False)
class Consensus:
    """The members of a consensus.

    mask            uint8 [ceil(N / 8)]; bit i % 8 of byte i // 8 says whether sample i is a member
                    (`numpy.unpackbits(mask, count=N, bitorder="little")`)
    num_members     M
    predictions     [N], those of `options.label_stage`; a view of the given array if that needed no copy
    """

    mask: NDArray[np.uint8]
    num_members: int
    predictions: NDArray[np.integer]
    threshold: float
    options: ConsensusOptions

    @cached_property
    def index(self) -> NDArray[np.int64]:
        """int64 [M]: the members' positions, ascending."""
        return _C.mask_index(self.mask, self.num_members)

    @cached_property
    def pseudo_labels(self) -> NDArray[np.int64]:
        """int64 [M]: the members' predictions."""
        return self.predictions[self.index].astype(np.int64)

    def relabelled(self, labels: ArrayLike) -> NDArray[np.int64]:
        """int64 [N]: `labels` with the members' pseudo-labels. Call it with the original labels each time, so that a
        sample that is no longer a member gets its own label back."""
        given = _label_array("labels", labels, len(self.predictions)).astype(np.int64)
        given[self.index] = self.pseudo_labels
        return given


@dataclass(frozen=True, eq=False)
class ConsensusSweep:
    """The result of every threshold for every run.

    thresholds   float64 [T], as given
    members      int64 [R, T], how many members
    right        int64 [R, T], how many of them are right; None without true labels
    all_right    int64 [R], how many of all samples are right; None without true labels
    """

    thresholds: Floats
    members: Counts
    right: Counts | None
    all_right: Counts | None
    num_samples: int
    options: ConsensusOptions

    @property
    def precision(self) -> Floats:
        """float64 [R, T]: the share of members that are right; NaN if there are none."""
        return _share(self._right(), self.members)

    @property
    def recall(self) -> Floats:
        """float64 [R, T]: the share of the right samples that are members; NaN if none is right."""
        right = self._right()
        assert self.all_right is not None
        return _share(right, np.broadcast_to(self.all_right[:, None], right.shape))

    def _right(self) -> Counts:
        if self.right is None:
            raise DataError("precision and recall need true_labels")
        return self.right


def consensus(
    losses: ArrayLike,
    predictions: ArrayLike,
    threshold: float,
    *,
    options: ConsensusOptions | None = None,
    threads: int = 0,
) -> Consensus:
    """The samples whose loss is below `threshold` at every stage.

    losses        float32 [S, N], S at least 1
    predictions   [S, N] classes, any integer dtype; arrays of 8, 16 and 32 bits are not copied
    threshold     of the loss: 1 for CIFAR and 0.25 for medical images in the SWCE paper (NCE + MAE)
    threads       0 for one per core

    Raises ConfigError for a threshold that is not a number and for bad options, and DataError for arrays of the wrong
    form.
    """
    options = _options(options)
    loss, predicted = _stages(losses, predictions, 2)
    stage = _stage(options, loss.shape[0])
    mask, found = _C.consensus_members(
        loss[None],
        predicted[None],
        threshold=_cut(threshold, options),
        agree=options.agree,
        threads=integer("threads", threads, 0, 2**16),
    )
    return Consensus(mask, found, predicted[stage], float(threshold), options)


def consensus_sweep(
    losses: ArrayLike,
    predictions: ArrayLike,
    thresholds: Sequence[float],
    *,
    labels: ArrayLike | None = None,
    true_labels: ArrayLike | None = None,
    options: ConsensusOptions | None = None,
    threads: int = 0,
) -> ConsensusSweep:
    """How many members every threshold gives, and how many of them are right. One pass over the data is enough: it
    sorts each sample's largest loss over the stages among the thresholds.

    losses        float32 [S, N] of one run, or [R, S, N]
    predictions   classes, of the same shape, any integer dtype
    thresholds    [T], in any order
    labels        [N], the given labels; only with judged="given"
    true_labels   [N]; needed for precision and recall
    threads       0 for one per core

    Raises the same errors as `consensus`, and ConfigError for thresholds that are no numbers.
    """
    options = _options(options)
    loss, predicted = _stages(losses, predictions, 3)
    stage = _stage(options, loss.shape[1])
    try:
        wanted = np.array([_number(threshold) for threshold in thresholds], np.float64)
    except TypeError:
        raise ConfigError(f"thresholds must be a sequence of numbers, got {type(thresholds).__name__}") from None
    cuts = np.array([_cut(threshold, options) for threshold in wanted], np.float32)
    order = np.argsort(cuts, kind="stable")
    if (options.judged == "given" and true_labels is not None) != (labels is not None):
        raise ConfigError("labels= goes together with true_labels= and judged='given'")
    truth = given = None
    if true_labels is not None:
        truth = _as_predictions("true_labels", true_labels, predicted)
        given = None if labels is None else _as_predictions("labels", labels, predicted)
    members, right, total = _C.consensus_counts(
        loss,
        predicted,
        thresholds=cuts[order].tolist(),
        agree=options.agree,
        stage=stage,
        labels=given,
        true_labels=truth,
        threads=integer("threads", threads, 0, 2**16),
    )
    back = np.argsort(order, kind="stable")
    known = truth is not None
    return ConsensusSweep(
        wanted, members[:, back], right[:, back] if known else None, total if known else None, loss.shape[2], options
    )


def _share(part: Counts, whole: Counts) -> Floats:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _number(threshold: Any) -> float:
    number = real("a threshold", threshold)
    if np.isnan(number):
        raise ConfigError("a threshold must be a number, got nan")
    return number


def _cut(threshold: float, options: ConsensusOptions) -> float:
    """The float32 t such that "loss < t" equals the comparison with `threshold` for every float32 loss."""
    number = _number(threshold)
    if number > _LARGEST:
        return np.inf
    cut = np.float32(number if number == -np.inf else max(number, -_LARGEST))  # float32 would overflow with a warning
    rounded = float(cut)
    # Rounded down to float32, it would shut out the losses between itself and the threshold.
    if rounded < number or (options.compare == "at_most" and rounded == number):
        return float(np.nextafter(cut, _INFINITE))
    return rounded


def _options(options: Any) -> ConsensusOptions:
    if options is not None and not isinstance(options, ConsensusOptions):
        raise ConfigError(f"options must be ConsensusOptions, got {type(options).__name__}")
    return options or _DEFAULT


def _stage(options: ConsensusOptions, stages: int) -> int:
    if not isinstance(options.label_stage, int) or not -stages <= options.label_stage < stages:
        raise ConfigError(f"label_stage is {options.label_stage!r}, and there are {stages} stages")
    return options.label_stage % stages


def _stages(losses: Any, predictions: Any, dimensions: int) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    loss, predicted = (_array(what, value) for what, value in (("losses", losses), ("predictions", predictions)))
    form = "[S, N]" if dimensions == 2 else "[S, N] or [R, S, N]"
    if loss.dtype.kind != "f" or loss.dtype.itemsize != 4:
        raise DataError(f"losses: must be float32, got {loss.dtype}")
    if predicted.dtype.kind not in "iu":
        raise DataError(f"predictions: must have an integer dtype, got {predicted.dtype}")
    if loss.shape != predicted.shape or loss.ndim not in (2, dimensions):
        raise DataError(f"losses and predictions: must be {form} both, got {loss.shape} and {predicted.shape}")
    if loss.ndim < dimensions:
        loss, predicted = loss[None], predicted[None]
    if not loss.size:
        raise DataError(f"losses: empty, shape {loss.shape}")
    plain = _is_plain(loss), _is_plain(predicted)
    if all(plain) and predicted.dtype.itemsize < 8:
        return loss, predicted
    require_memory("losses", loss.size * 4 * (2 - sum(plain)))
    dtype = predicted.dtype.newbyteorder("=")
    if dtype.itemsize == 8:
        if predicted.max() > np.iinfo(np.int32).max or predicted.min() < np.iinfo(np.int32).min:
            raise DataError("predictions: a class is beyond 32 bits")
        dtype = np.dtype(np.int32)
    return (
        np.require(loss, dtype=np.float32, requirements=["C", "A"]),
        np.require(predicted, dtype=dtype, requirements=["C", "A"]),
    )


def _array(what: str, values: Any) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else as_array(what, values)


def _is_plain(array: NDArray[Any]) -> bool:
    flags = array.flags
    return flags.c_contiguous and flags.aligned and array.dtype.isnative


def _label_array(what: str, labels: Any, num_samples: int) -> NDArray[np.integer]:
    array = _array(what, labels)
    if array.shape != (num_samples,) or array.dtype.kind not in "iu":
        raise DataError(f"{what}: must be integers [{num_samples}], got {array.dtype} {list(array.shape)}")
    return array


def _as_predictions(what: str, labels: Any, predicted: NDArray[np.integer]) -> NDArray[np.integer]:
    """The labels in the predictions' dtype, for the comparison."""
    array = _label_array(what, labels, predicted.shape[-1])
    info = np.iinfo(predicted.dtype)
    if array.min() < info.min or array.max() > info.max:
        raise DataError(f"{what}: a label is outside the predictions' {predicted.dtype}")
    return np.require(array, dtype=predicted.dtype, requirements=["C", "A"])
