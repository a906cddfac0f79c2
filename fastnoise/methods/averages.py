"""Exponential moving averages of weights, inside the captured step."""

from collections.abc import Container, Sequence
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

    @property
    def momentum(self) -> float:
        """The full momentum, after the ramp."""
        return self._move.momentum

    def pairs(self, networks: Sequence[Network]) -> list[tuple[Tensor, Tensor]]:
        """Each tensor that is averaged, and the one of the networks that it follows."""
        found: list[tuple[Tensor, Tensor]] = []
        for average, network in zip(self.copies, networks, strict=True):
            found += zip(average.parameters(), network.parameters(), strict=True)
            if self.with_buffers:
                buffers = zip(average.buffers(), network.buffers(), strict=True)
                found += (pair for pair in buffers if pair[0].is_floating_point())
        return found

    @torch.no_grad()
    def follow(self, networks: Sequence[Network], moved: Container[Tensor] = ()) -> None:
        """Move every average one step towards its network, but those that the optimiser has `moved`. Uses the device
        alone."""
        self.updates += 1
        if self.with_buffers:
            for average, network in zip(self.copies, networks, strict=True):
                for mine, other in zip(average.buffers(), network.buffers(), strict=True):
                    if not mine.is_floating_point():
                        mine.copy_(other)
        pairs = [pair for pair in self.pairs(networks) if pair[0] not in moved]
        if pairs:
            ours, theirs = zip(*pairs, strict=True)
            self._move(ours, theirs, self.updates + self.ahead if self.ahead else self.updates)
