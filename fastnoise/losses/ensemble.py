"""Self-ensemble label correction: cross-entropy on a moving average of the label and the predictions.

Constants are those of the authors' code. tests/test_parity.py shows the differences:

    SELC  The authors' loss is NaN if a class has a target of 0 and its probability has underflowed; here that class
          adds 0.
"""

from typing import Unpack

from torch import Tensor

from ..ops.registry import FusedOp
from .base import TargetLoss
from .forms import Form, Stored, TableOptions, run

__all__ = ["SELCLoss", "selc"]

SELC = FusedOp("selc", "logits labels index targets! knobs")


def selc(
    logits: Tensor, labels: Tensor, index: Tensor, targets: Tensor, knobs: Tensor, **stored: Unpack[Stored]
) -> Tensor:
    """SELCLoss of logits [B, C], labels int64 [B]: float32, [] or [B]. It updates targets [N, C] (see `functional`)."""
    return run(Form(SELC), logits, labels, index, targets, knobs, labels=labels, **stored)


class SELCLoss(TargetLoss):
    """Self-ensemble label correction (Lu & He 2022): cross-entropy on a moving average of label and predictions.

    The loss is -sum_k t_k log p_k. Each visit first updates the target, t <- momentum * t + (1 - momentum) * p
    (restated by Lu et al. 2022, Eq. 4). The first target is the one-hot of the given label; a row of zeros stands for
    it. Call `set_update(False)` in the epochs before the first update: the loss is then plain cross-entropy. As in the
    authors' code nothing is clamped, but log p is always finite here; theirs can compute -inf * 0 in half precision.

    Args:
        num_samples: N, size of the training set.
        num_classes: C, at least 2.
        momentum: the paper's alpha, of the moving average.
        options: reduction and ignore_index, see FusedLoss; target_dtype, shard and seed, see TargetLoss.

    Called as ELRLoss. Labels may be soft, [B, C] of a floating dtype: a soft label then is the first target of its
    sample, in place of the one-hot. It must have a class that is not 0.
    """

    rates = ("momentum",)

    def __init__(self, num_samples: int, num_classes: int, *, momentum: float, **options: Unpack[TableOptions]):
        super().__init__(num_samples, num_classes, strength=0.0, momentum=momentum, **options)

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor, *, weight: Tensor | None = None, update: bool = True
    ) -> Tensor:
        tensors = logits, labels, index
        return self.run_first(Form(SELC), *tensors, labels=labels, index=index, weight=weight, update=update)
