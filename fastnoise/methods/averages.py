"""Exponential moving averages of weights, inside the captured step."""

from collections.abc import Sequence
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from ..models import Network
from ..ops.averages import MovingAverage


class AveragedNetworks(nn.Module):
    """Copies of networks whose weights follow theirs: average <- m * average + (1 - m) * weight after each update.

    The momentum of update s, counted from 1, is m = momentum * exp(-5 (1 - min(1, (s + ahead) / ramp))^2), as in the
    code of ELR+ (ramp 40,000, ahead 1), or `momentum` throughout where ramp is 0. Parameters only: the copies
    keep running statistics of their own, of the batches they see in training mode, unless `with_buffers` has them
    follow too.

    Args:
        networks: on their device.
        momentum: in [0, 1).
        ramp: updates until the full momentum.
        ahead: updates by which the ramp is ahead of those made.
        with_buffers: average the floating-point buffers like the parameters, and copy the others.
    """

    updates: Tensor

    def __init__(
        self,
        networks: Sequence[Network],
        momentum: float,
        *,
        ramp: int = 0,
        ahead: int = 0,
        with_buffers: bool = False,
    ):
        super().__init__()
        self.ahead = ahead
        self.copies = nn.ModuleList(deepcopy(network) for network in networks).requires_grad_(False)
        self.with_buffers = with_buffers
        self._move = MovingAverage(momentum, ramp)
        device = next(self.copies.parameters()).device
        self.register_buffer("updates", torch.zeros((), device=device))

    def __getitem__(self, number: int) -> Network:
        return cast(Network, self.copies[number])

    def begin(self, networks: Sequence[Network]) -> None:
        """Make every copy what its network is now, and count updates anew."""
        for average, network in zip(self.copies, networks, strict=True):
            average.load_state_dict(network.state_dict())
        self.updates.zero_()

    @torch.no_grad()
    def follow(self, networks: Sequence[Network]) -> None:
        """Move every average one step towards its network. Uses the device alone."""
        self.updates += 1
        ours: list[Tensor] = []
        theirs: list[Tensor] = []
        for average, network in zip(self.copies, networks, strict=True):
            ours += average.parameters()
            theirs += network.parameters()
            if self.with_buffers:
                for mine, other in zip(average.buffers(), network.buffers(), strict=True):
                    if mine.is_floating_point():
                        ours.append(mine)
                        theirs.append(other)
                    else:
                        mine.copy_(other)
        self._move(ours, theirs, self.updates + self.ahead if self.ahead else self.updates)
