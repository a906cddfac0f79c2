"""The losses as their papers write them, in plain PyTorch with autograd: the ground truth for tests and benchmarks.

Every function takes logits [B, C] of any floating dtype (float64 for a reference) and labels [B] int64, and returns
the loss per sample [B]. Those with targets take the batch's rows of the target table [B, C] and return
`(loss, new rows)`; the caller writes the rows back. No gradient flows into targets.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, -log p_y."""
    return F.cross_entropy(logits, labels, reduction="none")


def swce(logits: Tensor, labels: Tensor, *, weight: str = "detached") -> Tensor:
    """Softmax-weighted cross-entropy, -p_y log p_y; `weight` "detached" holds the factor p_y fixed."""
    loss = ce(logits, labels)
    probs = (-loss).exp()
    return (probs.detach() if weight == "detached" else probs) * loss


def elr(
    logits: Tensor, labels: Tensor, rows: Tensor, *, strength: float, momentum: float, update: bool = True
) -> tuple[Tensor, Tensor]:
    """Early-learning regularisation (Liu et al. 2020), Eq. 6 and 9, with the authors' clamp of the probabilities."""
    probs = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
    if update:
        rows = momentum * rows + (1 - momentum) * (probs / probs.sum(1, keepdim=True)).detach()
    return ce(logits, labels) + strength * (1 - (rows * probs).sum(1)).log(), rows


def nal(
    logits: Tensor,
    attention: Tensor,
    labels: Tensor,
    rows: Tensor,
    *,
    strength: float,
    momentum: float,
    variant: str = "paper",
    update: bool = True,
) -> tuple[Tensor, Tensor]:
    """Noise attention learning (Lu et al. 2022), Eq. 3 and 4; `attention` [B] is the logit h of Eq. 2.

    A row of zeros stands for the one-hot of the label and is returned as zeros where `update` is off.
    """
    code = variant == "code"
    tau = attention.sigmoid()[:, None]
    probs = logits.softmax(1)
    unvisited = rows.sum(1, keepdim=True) == 0
    targets = torch.where(unvisited, F.one_hot(labels, logits.shape[1]).to(rows.dtype), rows)
    if code:
        tau, probs = tau.clamp(1e-12, 1 - 1e-12), probs.clamp(1e-12, 1 - 1e-12)
        targets = targets.clamp(1e-4, 1)
    if update:
        targets = momentum * targets + (1 - momentum) * probs.detach()
        rows = targets = targets.clamp(1e-4, 1) if code else targets
    mixed = tau * probs + (1 - tau) * targets
    if code:
        mixed = mixed.clamp(1e-7, 1)
    return -torch.special.xlogy(targets, mixed).sum(1) - strength * tau[:, 0].log(), rows
