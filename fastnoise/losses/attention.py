"""Noise attention learning: a head says how far each label is to be trusted.

Constants and clamps are those of the authors' code. Where the loss differs from it, tests/test_parity.py shows:

    NAL  A one-hot target that was never clamped (a first updating epoch that is no multiple of ten) makes the loss NaN,
         RNAL's log 0 times 0; here it stays finite. The first update starts from the clamped one-hot, not from the
         one-hot, and so differs by at most 1e-4 per class. The whole table is never clamped.
"""

from typing import Unpack

from torch import Tensor

from ..ops.registry import FusedOp
from .base import Form, Stored, TableOptions, TargetLoss, one_of, run, within

__all__ = ["NALLoss", "nal"]

NAL = FusedOp("nal", "logits attention labels index targets! knobs", "bool code, float reverse, float gate")


def nal_form(variant: str, reverse: float, gate: float) -> Form:
    code = one_of("variant", variant, ("paper", "code")) == "code"
    return NAL, (code, within("reverse", reverse, 0), within("gate", gate, 0, 1))


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
    """NALLoss; attention [B] float32, float16 or bfloat16 is the head's logit h, which gets a gradient too."""
    form = nal_form(variant, reverse, gate)
    return run(form, logits, attention, labels, index, targets, knobs, labels=labels, **stored)


class NALLoss(TargetLoss):
    """Noise attention learning (Lu et al. 2022, "Noise Attention Learning: Enhancing Noise Robustness").

    With tau = sigmoid(h) and s = tau p + (1 - tau) t: -<t, log s> - strength * log tau (Eq. 3). At each visit
    t <- momentum * t + (1 - momentum) * p before the loss (Eq. 4, Algorithm 1), starting from the one-hot of the given
    label, which a row of zeros stands for. With `reverse`, RNAL is added: -reverse * <s, log t> (Sec. 5.3), with t
    clamped to at least 1e-4 in the logarithm, since that of a one-hot is infinite.

    Variant "paper" is that. "code" adds the clamps of the authors' code: p and tau to [1e-12, 1 - 1e-12], targets to
    [1e-4, 1] without renormalising, the mixture to [1e-7, 1], with no gradient through a clamp that acts. That code
    clamps the whole table after a batch; here only the batch's rows are touched, which is the same, as every other row
    either is clamped already or stands for a one-hot that is clamped when read. The sole difference is the first
    updating batch, whose rows start in that code from unclamped one-hots (at most 1e-4 per entry). When targets are
    updated (there: every tenth epoch from a first one on) is up to the caller: `set_update`.

    Args:
        num_samples: N, size of the training set.
        num_classes: C, at least 2.
        strength: the paper's lambda.
        momentum: the paper's alpha, of the moving average.
        variant: "paper" or "code".
        reverse: the weight of RNAL, the code's beta; not negative.
        gate: the code's delta in [0, 1]: only samples with tau > gate have their targets updated.
        options: reduction and ignore_index, see FusedLoss; target_dtype, shard and seed, see TargetLoss.

    Called as `loss(logits, labels, index, attention, *, weight=None, update=True)`: as ELRLoss, with attention [B] the
    head's logit h, float32, float16 or bfloat16, which gets a gradient from every term.
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
        self.variant = variant

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
        return self.run_table(self.form, *tensors, labels=labels, weight=weight, update=update)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, variant={self.variant!r}"
