"""Norms of gradients, and gradients of bounded norm."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import RunConfig

_ROUNDING = 1e-6
"""What `torch.nn.utils.clip_grad_norm_` adds to a norm before it divides by it."""


def takes_norms(config: RunConfig) -> bool:
    """Whether a run notes the norm of its gradient: clipping has it anyway, and `--gradients` asks for it."""
    return config.engine.gradients or config.optim.clip_norm is not None


@torch.no_grad()
def clip_gradients(networks: Sequence[nn.Module], largest: float | None) -> Tensor:
    """Scale each network's gradient so that its norm is at most `largest` (None: any). Nothing waits for the device.

    A network of several stacked runs has an attribute `count`, and each of its parameters holds the runs' parts one
    after the other in the first dimension. Each run's gradient is then scaled by its own norm.

    Returns the norm that each run's gradient had over all networks, float32 [runs], [] for a run by itself.
    """
    squares = []
    for network in networks:
        count = getattr(network, "count", 1)
        if count == 1:
            gradients = [each.grad for each in network.parameters() if each.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
            if largest is not None:
                nn.utils.clip_grads_with_norm_(network.parameters(), largest, norm)
        else:
            parts = [each.grad.unflatten(0, (count, -1)) for each in network.parameters() if each.grad is not None]
            norms = torch.stack([torch.linalg.vector_norm(part, dim=tuple(range(1, part.dim()))) for part in parts])
            norm = torch.linalg.vector_norm(norms, dim=0)
            if largest is not None:
                factors = (largest / (norm + _ROUNDING)).clamp(max=1)
                for part in parts:
                    part.mul_(factors.view(-1, *(1,) * (part.dim() - 1)))
        squares.append(norm.float().square())
    return torch.stack(squares).sum(0).sqrt()
