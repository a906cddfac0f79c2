"""The losses as modules for any training code: they own the target table, call the fused op and reduce."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..errors import ConfigError, nearest

REDUCTIONS = ("mean", "sum", "none")


def checked(name: str, value: str, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise ConfigError(f"unknown {name} {value!r}: {nearest(str(value), list(valid))}")
    return value


class FusedLoss(nn.Module):
    """A loss whose op yields one value per sample; `reduction` says what becomes of them."""

    def __init__(self, reduction: str):
        super().__init__()
        self.reduction = checked("reduction", reduction, REDUCTIONS)

    def reduce(self, loss: Tensor) -> Tensor:
        return loss if self.reduction == "none" else loss.mean() if self.reduction == "mean" else loss.sum()


class CrossEntropyLoss(FusedLoss):
    """Cross-entropy on the given labels, -log p_y.

    Args:
        reduction: "mean" or "sum" over the batch, or "none" for the loss of each sample.

    Called as `loss(logits, labels, index=None)`: logits [B, C] float32, float16 or bfloat16; labels [B] int64 in
    0..C-1; index is not used. Returns float32.
    """

    def __init__(self, *, reduction: str = "mean"):
        super().__init__(reduction)

    def forward(self, logits: Tensor, labels: Tensor, index: Tensor | None = None) -> Tensor:
        return self.reduce(ops.ce(logits, labels))


class SWCELoss(FusedLoss):
    """Softmax-weighted cross-entropy, -p_y log p_y.

    The paper does not say whether gradient flows through the weight p_y. "detached" lets none through: the logit
    gradient is p_y (p - y), that of 1 - p_y. "literal" does: (1 + log p_y) p_y (p - y), which pushes p_y down while
    it is below 1/e, the state of a fresh head of three or more classes.

    Args:
        weight: "detached" or "literal".
        reduction: "mean" or "sum" over the batch, or "none" for the loss of each sample.

    Called as `loss(logits, labels, index=None)`, as CrossEntropyLoss.
    """

    def __init__(self, *, weight: str = "detached", reduction: str = "mean"):
        super().__init__(reduction)
        self.weight = checked("weight", weight, ("detached", "literal"))

    def forward(self, logits: Tensor, labels: Tensor, index: Tensor | None = None) -> Tensor:
        return self.reduce(ops.swce(logits, labels, self.weight == "literal"))

    def extra_repr(self) -> str:
        return f"weight={self.weight!r}"


class TargetLoss(FusedLoss):
    """A loss with a soft target per training sample, updated in place each time that the sample is visited.

    `targets`, float32 [num_samples, num_classes], is a buffer: it is saved in `state_dict` and moves with the module,
    but stays float32 when the module is cast, since a small step (1 - momentum) p vanishes in half precision. A row of
    zeros was never updated. `knobs`, float32 [3], holds update flag, momentum and strength on the device, where they
    may be written in place during training without invalidating a captured graph.

    The indices of a batch must be distinct. With duplicates every copy's loss is right for one of the orders of
    updates or for none of them, which of the updates stays in the table is undefined, and nothing is raised.
    Each call updates the targets: do not rerun it within a step (activation checkpointing), and evaluate with
    CrossEntropyLoss, since an evaluation set has no rows here.
    """

    targets: Tensor
    knobs: Tensor

    def __init__(self, num_samples: int, num_classes: int, *, strength: float, momentum: float, reduction: str):
        super().__init__(reduction)
        if num_samples < 1:
            raise ConfigError(f"num_samples is {num_samples}: give the size of the training set, at least 1")
        if num_classes < 2:
            raise ConfigError(f"num_classes is {num_classes}: a softmax loss needs at least 2")
        if not 0 <= momentum < 1:
            raise ConfigError(f"momentum is {momentum}: it must lie in [0, 1)")
        if not 0 <= strength < float("inf"):
            raise ConfigError(f"strength is {strength}: it must be finite and not negative")
        self.register_buffer("targets", torch.zeros(num_samples, num_classes, dtype=torch.float32))
        self.register_buffer("knobs", torch.tensor([1.0, momentum, strength], dtype=torch.float32), persistent=False)

    def set_update(self, update: bool) -> None:
        """Whether calls from now on update the targets. Written on the device, without waiting for it."""
        self.knobs[0].fill_(float(update))

    def hard_targets(self, labels: Tensor) -> Tensor:
        """The class [N] each sample's target favours; where none was updated, the given label (labels [N] int64)."""
        return torch.where(self.targets.sum(1) == 0, labels, self.targets.argmax(1))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def move_without_cast(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move_without_cast, recurse)

    def extra_repr(self) -> str:
        num_samples, num_classes = self.targets.shape
        return f"num_samples={num_samples}, num_classes={num_classes}, reduction={self.reduction!r}"


class ELRLoss(TargetLoss):
    """Early-learning regularisation (Liu et al. 2020, "Early-Learning Regularization Prevents Memorization").

    Cross-entropy + strength * log(1 - <p, t>) (Eq. 6). At each visit t <- momentum * t + (1 - momentum) * p before the
    loss (Eq. 9), from t = 0. As in the authors' code, p is clamped to [1e-4, 1 - 1e-4] in both, without gradient
    outside, and then renormalised for the update alone; the cross-entropy sees the unclamped logits.

    Args:
        num_samples: N, size of the training set.
        num_classes: C, at least 2.
        strength: the paper's lambda. The loss may be negative.
        momentum: the paper's beta, of the moving average.
        reduction: "mean" or "sum" over the batch, or "none" for the loss of each sample.

    Called as `loss(logits, labels, index)`: logits [B, C] float32, float16 or bfloat16; labels [B] int64 in 0..C-1;
    index [B] int64, positions in the training set, distinct within the batch. Returns float32. Tensors of another form
    raise DataError, as does a label or index out of range on the CPU; on a CUDA device it makes that sample's loss NaN.
    """

    def __init__(
        self, num_samples: int, num_classes: int, *, strength: float, momentum: float, reduction: str = "mean"
    ):
        super().__init__(num_samples, num_classes, strength=strength, momentum=momentum, reduction=reduction)

    def forward(self, logits: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        return self.reduce(ops.elr(logits, labels, index, self.targets, self.knobs))


class NALLoss(TargetLoss):
    """Noise attention learning (Lu et al. 2022, "Noise Attention Learning: Enhancing Noise Robustness").

    With tau = sigmoid(h): -<t, log(tau p + (1 - tau) t)> - strength * log tau (Eq. 3). At each visit
    t <- momentum * t + (1 - momentum) * p before the loss (Eq. 4, Algorithm 1), starting from the one-hot of the given
    label, which a row of zeros stands for.

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
        reduction: "mean" or "sum" over the batch, or "none" for the loss of each sample.

    Called as `loss(logits, labels, index, attention)`: as ELRLoss, with attention [B] the head's logit h.
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        *,
        strength: float,
        momentum: float,
        variant: str = "paper",
        reduction: str = "mean",
    ):
        super().__init__(num_samples, num_classes, strength=strength, momentum=momentum, reduction=reduction)
        self.variant = checked("variant", variant, ("paper", "code"))

    def forward(self, logits: Tensor, labels: Tensor, index: Tensor, attention: Tensor) -> Tensor:
        code = self.variant == "code"
        return self.reduce(ops.nal(logits, attention, labels, index, self.targets, self.knobs, code))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, variant={self.variant!r}"
