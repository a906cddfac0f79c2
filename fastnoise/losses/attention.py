"""Noise attention learning: a head of the network says how much each label can be trusted.

Constants and clamps are those of the authors' code. tests/test_parity.py shows the differences:

    NAL  In the authors' code the loss is NaN if a one-hot target was never clamped, which happens if the first epoch
         that updates is not a multiple of ten: RNAL then computes 0 * log 0. Here the loss stays finite. The first
         update starts from the clamped one-hot instead of the one-hot, which changes each class by at most 1e-4. The
         table as a whole is never clamped.
"""

from typing import Unpack

from torch import Tensor

from ..ops.registry import FusedOp
from .base import TargetLoss
from .forms import Form, Stored, TableOptions, one_of, run, within

__all__ = ["NALLoss", "nal"]

NAL = FusedOp("nal", "logits attention labels index targets! knobs", "bool code, float reverse, float gate")


def nal_form(variant: str, reverse: float, gate: float) -> Form:
    code = one_of("variant", variant, ("paper", "code")) == "code"
    return Form(NAL, (code, within("reverse", reverse, 0), within("gate", gate, 0, 1)))


def nal(
    logits: Tensor,
    attention: Tensor,
    labels: Tensor,
    index: Tensor,
    targets: Tensor,
    knobs: Tensor,
    *,
    variant: str = "paper",
    reverse: float = 0.0,
    gate: float = 0.0,
    **stored: Unpack[Stored],
) -> Tensor:
    """NALLoss as a function. attention [B], float32, float16 or bfloat16, is the head's logit h. It gets a gradient."""
    form = nal_form(variant, reverse, gate)
    return run(form, logits, attention, labels, index, targets, knobs, labels=labels, **stored)


class NALLoss(TargetLoss):
    """Noise attention learning (Lu et al. 2022, "Noise Attention Learning: Enhancing Noise Robustness").

    With tau = sigmoid(h) and s = tau p + (1 - tau) t the loss is -<t, log s> - strength * log tau (Eq. 3). Each visit
    first updates the target, t <- momentum * t + (1 - momentum) * p, and then computes the loss (Eq. 4, Algorithm 1).
    The first target is the one-hot of the given label; a row of zeros stands for it. `reverse` adds the term of RNAL,
    -reverse * <s, log t> (Sec. 5.3). In its logarithm t is clamped to at least 1e-4, since log 0 is infinite.

    Variant "paper" computes exactly this. Variant "code" adds the clamps of the authors' code: p and tau to
    [1e-12, 1 - 1e-12], targets to [1e-4, 1] without renormalising, and the mixture s to [1e-7, 1]. A clamp that changes
    a value passes no gradient. The authors' code clamps the whole table after each batch. Here only the rows of the
    batch are clamped, with the same result: every other row is already clamped, or it stands for a one-hot, which is
    clamped when it is read. The only difference is the first batch that updates: in the authors' code its rows start
    from unclamped one-hots (at most 1e-4 per entry). The authors update the targets in every tenth epoch from some
    epoch on. Here the caller decides, with `set_update`.

    Args:
        num_samples: N, size of the training set.
        num_classes: C, at least 2.
        strength: the paper's lambda.
        momentum: the paper's alpha, of the moving average.
        variant: "paper" or "code".
        reverse: the weight of RNAL, the code's beta; not negative.
        gate: the code's delta in [0, 1]: only samples with tau > gate have their targets updated.
        options: reduction and ignore_index, see FusedLoss; target_dtype, shard and seed, see TargetLoss.

    Called as `loss(logits, labels, index, attention, *, weight=None, update=True)`. attention [B], float32, float16 or
    bfloat16, is the head's logit h; it gets a gradient from every term. The other arguments are those of ELRLoss. A
    soft label, [B, C] of a floating dtype, is the first target of its sample, in place of the one-hot.
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        *,
        strength: float,
        momentum: float,
        variant: str = "paper",
        reverse: float = 0.0,
        gate: float = 0.0,
        **options: Unpack[TableOptions],
    ):
        super().__init__(num_samples, num_classes, strength=strength, momentum=momentum, **options)
        self.form = nal_form(variant, reverse, gate)
        self.shown = {"variant": variant, "reverse": reverse, "gate": gate}

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        index: Tensor,
        attention: Tensor,
        *,
        weight: Tensor | None = None,
        update: bool = True,
    ) -> Tensor:
        tensors = logits, attention, labels, index
        return self.run_first(self.form, *tensors, labels=labels, index=index, weight=weight, update=update)
