"""Cross-entropy: on hard, smoothed and soft labels, and weighted by the label's own probability."""

from typing import Unpack

from torch import Tensor

from ..errors import DataError
from ..ops.registry import FusedOp
from .base import Common, Form, LabelLoss, one_of, run, within

__all__ = ["CrossEntropyLoss", "SWCELoss", "cross_entropy", "swce"]

CE = FusedOp("ce", "logits labels")
LABEL_SMOOTHING = FusedOp("label_smoothing", "logits labels", "float smoothing")
SOFT_CE = FusedOp("soft_ce", "logits soft_labels")
SWCE = FusedOp("swce", "logits labels", "bool literal")


def cross_entropy_form(label_smoothing: float) -> Form:
    smoothing = within("label_smoothing", label_smoothing, 0, 1)
    return (LABEL_SMOOTHING, (smoothing,)) if smoothing else (CE, ())


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, **common: Unpack[Common]) -> Tensor:
    """CrossEntropyLoss as a function. Labels may also be soft: [B, C] of a floating dtype."""
    return cross_entropy_of(cross_entropy_form(label_smoothing), logits, labels, **common)


def cross_entropy_of(form: Form, logits: Tensor, labels: Tensor, **common: Unpack[Common]) -> Tensor:
    if labels.is_floating_point():
        if form[0] is not CE or common.get("ignore_index") is not None:
            raise DataError(
                "cross_entropy: soft labels take neither label_smoothing nor ignore_index; use weight instead"
            )
        form = SOFT_CE, ()
    return run(form, logits, labels, labels=labels, **common)


class CrossEntropyLoss(LabelLoss):
    """Cross-entropy on the given labels, -log p_y.

    Args:
        label_smoothing: s in [0, 1]; the loss is -(1 - s) log p_y - s * mean_k log p_k (Szegedy et al. 2016, Sec. 7).
        reduction, ignore_index: see FusedLoss.

    Called as every loss without targets (see FusedLoss). Without smoothing and ignore_index, labels may also be soft,
    [B, C] float32, float16 or bfloat16. The loss is then -sum_k labels_k log p_k. Soft labels need not sum to 1, and
    get no gradient.
    """

    def __init__(self, *, label_smoothing: float = 0.0, reduction: str = "mean", ignore_index: int | None = None):
        form = cross_entropy_form(label_smoothing)
        super().__init__(form, reduction, ignore_index, label_smoothing=label_smoothing)

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor | None = None, *, weight: Tensor | None = None
    ) -> Tensor:
        return cross_entropy_of(
            self.form, logits, labels, weight=weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


def swce_form(weighting: str) -> Form:
    return SWCE, (one_of("weight", weighting, ("detached", "literal")) == "literal",)


def swce(logits: Tensor, labels: Tensor, *, weighting: str = "detached", **common: Unpack[Common]) -> Tensor:
    """SWCELoss as a function. `weighting` is the module's option `weight`; here `weight` is a factor per sample."""
    return run(swce_form(weighting), logits, labels, labels=labels, **common)


class SWCELoss(LabelLoss):
    """Softmax-weighted cross-entropy, -p_y log p_y.

    The paper does not say whether gradient flows through the weight p_y. With "detached" none does: the gradient in the
    logits is p_y (p - y), the same as that of 1 - p_y. With "literal" it does: the gradient is
    (1 + log p_y) p_y (p - y). This pushes p_y down while it is below 1/e, as it is at the start with three or more
    classes.

    Args:
        weight: "detached" or "literal".
        reduction, ignore_index: see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(self, *, weight: str = "detached", reduction: str = "mean", ignore_index: int | None = None):
        super().__init__(swce_form(weight), reduction, ignore_index, weight=weight)
