"""Gradients of bounded norm."""

from collections.abc import Sequence

import torch
from torch import nn

_ROUNDING = 1e-6
"""What `torch.nn.utils.clip_grad_norm_` adds to a norm before it divides by it."""


@torch.no_grad()
def clip_gradients(networks: Sequence[nn.Module], largest: float) -> None:
    """Scale each network's gradient so that its norm is at most `largest`. Nothing waits for the device.

    A network of several stacked runs has an attribute `count`, and each of its parameters holds the runs' parts one
    after the other in the first dimension. Each run's gradient is then scaled by its own norm.
    """
    for network in networks:
        count = getattr(network, "count", 1)
        if count == 1:
            nn.utils.clip_grad_norm_(network.parameters(), largest)
            continue
        parts = [each.grad.unflatten(0, (count, -1)) for each in network.parameters() if each.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(part, dim=tuple(range(1, part.dim()))) for part in parts])
        factors = (largest / (torch.linalg.vector_norm(norms, dim=0) + _ROUNDING)).clamp(max=1)
        for part in parts:
            part.mul_(factors.view(-1, *(1,) * (part.dim() - 1)))
