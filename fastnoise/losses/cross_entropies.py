"""Cross-entropy: on hard, smoothed and soft labels, and weighted by the label's own probability."""

from functools import partial
from typing import Unpack

from torch import Tensor

from ..ops.registry import FusedOp
from . import reference
from .base import LabelLoss
from .forms import Common, Form, LossOptions, is_soft, one_of, run, within

__all__ = ["CrossEntropyLoss", "SWCELoss", "cross_entropy", "swce"]

CE = FusedOp("ce", "logits labels")
LABEL_SMOOTHING = FusedOp("label_smoothing", "logits labels", "float smoothing")
SOFT_CE = FusedOp("soft_ce", "logits soft_labels")
SWCE = FusedOp("swce", "logits labels", "bool literal")


def cross_entropy_form(label_smoothing: float) -> Form:
    smoothing = within("label_smoothing", label_smoothing, 0, 1)
    return Form(LABEL_SMOOTHING, (smoothing,)) if smoothing else Form(CE)


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, **common: Unpack[Common]) -> Tensor:
    """CrossEntropyLoss as a function. Labels may also be soft: [B, C] of a floating dtype."""
    form = cross_entropy_form(label_smoothing)
    if is_soft(labels):
        form, labels = soft_form(form, labels)
    return run(form, logits, labels, labels=labels, **common)


def soft_form(form: Form, labels: Tensor) -> tuple[Form, Tensor]:
    """The form for soft labels [B, C], and these labels after smoothing."""
    if form.op is LABEL_SMOOTHING:
        (smoothing,) = form.options
        labels = (1 - smoothing) * labels + smoothing / labels.shape[-1]
    return Form(SOFT_CE), labels


class CrossEntropyLoss(LabelLoss):
    """Cross-entropy on the given labels, -log p_y.

    Args:
        label_smoothing: s in [0, 1]; the loss is -(1 - s) log p_y - s * mean_k log p_k (Szegedy et al. 2016, Sec. 7).
        options: reduction, ignore_index and class_weight, see FusedLoss.

    Called as every loss without targets (see FusedLoss). With soft labels, [B, C] float32, float16 or bfloat16, the
    loss is -sum_k q_k log p_k with q = (1 - s) labels + s / C, in one fused op. `class_weight` multiplies this sum by
    sum_k labels_k class_weight_k. F.cross_entropy weights the classes within the sum instead; for that, give
    labels * class_weight as the labels.
    """

    def __init__(self, *, label_smoothing: float = 0.0, **options: Unpack[LossOptions]):
        super().__init__(cross_entropy_form(label_smoothing), {"label_smoothing": label_smoothing}, **options)

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor | None = None, *, weight: Tensor | None = None
    ) -> Tensor:
        form, given = self.form, labels
        if is_soft(labels):
            form, given = soft_form(form, labels)
        return self.run(form, logits, given, labels=labels, weight=weight, index=index)


def swce_form(weighting: str) -> Form:
    literal = one_of("weight", weighting, ("detached", "literal")) == "literal"
    return Form(SWCE, (literal,), partial(reference.swce, weight=weighting))


def swce(logits: Tensor, labels: Tensor, *, weighting: str = "detached", **common: Unpack[Common]) -> Tensor:
    """SWCELoss of logits [B, C] and labels, int64 [B] or soft [B, C]: float32, [] or [B] (see `functional`).

    `weighting` is the module's option `weight`; here `weight` [B] is a factor per sample.
    """
    return run(swce_form(weighting), logits, labels, labels=labels, **common)


class SWCELoss(LabelLoss):
    """Softmax-weighted cross-entropy, -p_y log p_y.

    The paper does not say whether gradient flows through the weight p_y. With "detached" none does: the gradient in the
    logits is p_y (p - y), the same as that of 1 - p_y. With "literal" it does: the gradient is
    (1 + log p_y) p_y (p - y). This pushes p_y down while it is below 1/e, as it is at the start with three or more
    classes.

    Args:
        weight: "detached" or "literal".
        options: reduction, ignore_index and class_weight, see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(self, *, weight: str = "detached", **options: Unpack[LossOptions]):
        super().__init__(swce_form(weight), {"weight": weight}, **options)
