"""Early-learning regularisation: ELR, and ELR+ on mixup pairs.

Constants and clamps are those of the authors' code. tests/test_parity.py shows the differences:

    ELR   None.
    ELR+  With target="weighted", the authors' loss is NaN for a pair whose labels both have a target of 0; here such a
          pair uses the unweighted shares. The share may differ per sample; the authors draw one per batch.
"""

from typing import Any, Unpack

from torch import Tensor

from ..errors import DataError
from ..ops.registry import FusedOp
from ..ops.tables import Placement
from . import cross_entropies
from .base import TargetLoss
from .forms import Form, Stored, TableOptions, check_soft, check_weight, is_soft, one_of, reduced, run

__all__ = ["ELRLoss", "ELRPlusLoss", "elr", "elr_plus", "update_targets"]

ELR = FusedOp("elr", "logits labels index targets! knobs")
ELR_PLUS = FusedOp(
    "elr_plus",
    "logits labels pair_labels index pair_index share targets knobs",
    "bool weighted",
)
EMA = FusedOp("ema", "logits index targets! knobs", loss=False)


def elr(
    logits: Tensor, labels: Tensor, index: Tensor, targets: Tensor, knobs: Tensor, **stored: Unpack[Stored]
) -> Tensor:
    """ELRLoss of logits [B, C], labels int64 [B]: float32, [] or [B]. It updates targets [N, C] (see `functional`)."""
    return run(Form(ELR), logits, labels, index, targets, knobs, labels=labels, **stored)


class ELRLoss(TargetLoss):
    """Early-learning regularisation (Liu et al. 2020, "Early-Learning Regularization Prevents Memorization").

    The loss is cross-entropy + strength * log(1 - <p, t>) (Eq. 6). Each visit first updates the target,
    t <- momentum * t + (1 - momentum) * p (Eq. 9), starting from t = 0. As in the authors' code, p is clamped to
    [1e-4, 1 - 1e-4] in both formulas, and a clamped p gets no gradient. The update then renormalises p; the loss does
    not. The cross-entropy uses the unclamped logits.

    Args:
        num_samples: N, size of the training set.
        num_classes: C, at least 2.
        strength: the paper's lambda. The loss may be negative.
        momentum: the paper's beta, of the moving average.
        options: reduction and ignore_index, see FusedLoss; target_dtype, shard and seed, see TargetLoss.

    Called as `loss(logits, labels, index, *, weight=None, update=True)`: logits [B, C] float32, float16 or bfloat16;
    labels [B] int64 in 0..C-1; index [B] int64, positions in the training set, distinct within the batch; weight [B], a
    factor of each sample's loss. With update=False, as in evaluation mode, the targets do not change: use it to
    evaluate on training samples. Labels may be soft, [B, C] of a floating dtype: the cross-entropy is then
    -sum_k labels_k log p_k, and the regulariser stays as it is. Returns float32. Tensors of another form raise
    DataError. A label or index out of range raises DataError on the CPU; on a CUDA device it makes that sample's loss
    NaN.
    """

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor, *, weight: Tensor | None = None, update: bool = True
    ) -> Tensor:
        if not is_soft(labels):
            return self.run_table(Form(ELR), logits, labels, index, labels=labels, weight=weight, update=update)
        check_soft(type(self).__name__, logits, labels)
        if weight is not None:
            check_weight(type(self).__name__, weight, logits.shape[:1])  # before the op updates targets
        weight = self.weight_of(logits, labels, weight)
        hard = labels.argmax(1)
        each: dict[str, Any] = {"labels": labels, "weight": None, "reduction": "none", "by_class": False}
        loss = self.run_table(Form(ELR), logits, hard, index, **each, update=update)
        soft_loss = self.run(Form(cross_entropies.SOFT_CE), logits, labels, **each)
        loss = loss + soft_loss - self.run(Form(cross_entropies.CE), logits, hard, **each)
        return reduced(loss, labels, weight, reduction=self.reduction)


def elr_plus_form(target: str) -> Form:
    return Form(ELR_PLUS, (one_of("target", target, ("labels", "weighted")) == "weighted",))


def elr_plus(
    logits: Tensor,
    labels: Tensor,
    pair_labels: Tensor,
    index: Tensor,
    pair_index: Tensor,
    share: Tensor,
    targets: Tensor,
    knobs: Tensor,
    *,
    target: str = "labels",
    **stored: Unpack[Stored],
) -> Tensor:
    """ELRPlusLoss of logits [B, C] and pairs of labels int64 [B]: float32, [] or [B] (see `functional`).

    The table [N, C] is only read. pair_labels and pair_index int64 [B], and share [] or [B], are those of ELRPlusLoss.
    """
    tensors = logits, labels, pair_labels, index, pair_index, share, targets, knobs
    return run(elr_plus_form(target), *tensors, labels=labels, **stored)


def update_targets(
    logits: Tensor,
    index: Tensor,
    targets: Tensor,
    knobs: Tensor,
    *,
    placement: Placement | None = None,
    on_host: bool = False,
) -> None:
    """targets[index] <- momentum * targets[index] + (1 - momentum) * softmax(logits), as ELRPlusLoss.update_targets.

    logits [B, C], index int64 [B], targets [N, C] and knobs float32 [3] as in `functional`. The targets of rows with a
    logit of NaN or +inf do not change.
    """
    EMA(logits.detach(), index, targets, knobs, placement=placement, on_host=on_host)


class ELRPlusLoss(TargetLoss):
    """ELR on mixup pairs, with targets from another network: the loss of ELR+ (Liu et al. 2020, Sec. 4.3).

    A mixed image is share * image_i + (1 - share) * image_j. With the same mixture of the targets,
    q = share * t_i + (1 - share) * t_j, the loss is

        share * CE(y_i) + (1 - share) * CE(y_j) + strength * log(1 - <p, q>),

    with p clamped to [1e-4, 1 - 1e-4] in the last term, as in ELRLoss. No gradient flows through q. The call updates
    nothing. Before it, call `update_targets` with the logits that the averaged copy of the other network gives for the
    unmixed images; their probabilities are not clamped. Call `set_strength` to ramp the strength.

    Args:
        num_samples: N, size of the training set.
        num_classes: C, at least 2.
        strength: the paper's lambda, times its ramp (`set_strength`).
        momentum: the paper's beta, of the moving average of targets.
        target: of the cross-entropy. "labels": the mixed labels y. "weighted": y * q, normalised, which the authors'
            code uses only for CIFAR-100.
        options: reduction and ignore_index, see FusedLoss; target_dtype, shard and seed, see TargetLoss.

    Called as `loss(logits, labels, index, pair_labels, pair_index, share, *, weight=None)`. pair_labels and pair_index
    are the label and the index of each sample's partner; share [] or [B], on the device, float32, float16 or bfloat16,
    lies in [0, 1]. The other arguments are those of ELRLoss. A sample is ignored if its own label is `ignore_index`; a
    partner's label must be in range. `class_weight` weights a pair by the label of the sample itself. Soft labels raise
    DataError.
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        *,
        strength: float,
        momentum: float,
        target: str = "labels",
        **options: Unpack[TableOptions],
    ):
        super().__init__(num_samples, num_classes, strength=strength, momentum=momentum, **options)
        self.form, self.shown = elr_plus_form(target), {"target": target}

    def update_targets(self, logits: Tensor, index: Tensor) -> None:
        """t <- momentum * t + (1 - momentum) * softmax(logits), for logits [B, C] of the samples index [B].

        It also updates in evaluation mode; `set_update(False)` switches it off. The targets of rows with a logit of NaN
        or +inf do not change.
        """
        update_targets(logits, index, self.targets, self.knobs, placement=self.placement, on_host=self.on_host)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        index: Tensor,
        pair_labels: Tensor,
        pair_index: Tensor,
        share: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        if is_soft(labels) or is_soft(pair_labels):
            raise DataError(
                f"{type(self).__name__}: soft labels have no place here: the loss mixes two hard labels, int64 [B], by "
                "share; give labels and pair_labels as classes"
            )
        tensors = logits, labels, pair_labels, index, pair_index, share
        return self.run_table(self.form, *tensors, labels=labels, weight=weight)
