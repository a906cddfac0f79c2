"""Exponential moving averages of weights, one update at a time: a launch of `kernels/average.py` on CUDA."""

from collections.abc import Sequence
from importlib import import_module

import torch
from torch import Tensor

from .registry import load_kernels


class MovingAverage:
    """Moves averages towards weights: average <- m * average + (1 - m) * weight, m the momentum of the update.

    m is `momentum`, or with a `ramp` momentum * exp(-5 (1 - min(1, s / ramp))^2) at the s-th update. On CUDA one launch
    moves all pairs. Its table of addresses stays on the device until a tensor moves in memory. The first update makes
    the table, so update once before you capture a graph. The kernel does not take pairs of other dtypes or with
    different memory layouts; each of them gets its own launch.

    Args:
        momentum: in [0, 1).
        ramp: updates until the full momentum. 0: the first update has it already.
    """

    def __init__(self, momentum: float, ramp: int = 0):
        self.momentum, self.ramp = momentum, ramp
        self._addresses: list[int] = []
        self._table: Tensor | None = None
        self._rest: list[int] = []

    def __call__(self, averages: Sequence[Tensor], weights: Sequence[Tensor], updates: Tensor) -> None:
        """Move each average, in place.

        Args:
            averages, weights: tensors of any shapes, pair by pair the same, on one device.
            updates: s, a float32 scalar on that device.
        """
        if updates.device.type != "cuda":
            share = 1 - self._momentum_of(updates)
            torch._foreach_lerp_(list(averages), list(weights), [share.to(average.dtype) for average in averages])
            return
        load_kernels()
        self.locate(averages, weights)
        assert self._table is not None
        with torch.cuda.device(updates.device):
            import_module("fastnoise.kernels.average").launch(self._table, updates, self.momentum, self.ramp)
        torch.autograd.graph.increment_version(averages)
        if self._rest:
            share = 1 - self._momentum_of(updates)
            for place in self._rest:
                averages[place].lerp_(weights[place], share.to(averages[place].dtype))

    def locate(self, averages: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
        """Make the table of addresses again if an address has changed."""
        addresses = [tensor.data_ptr() for tensor in (*averages, *weights)]
        if self._table is not None and addresses == self._addresses:
            return
        kernels = import_module("fastnoise.kernels.average")
        pairs = list(zip(averages, weights, strict=True))
        self._rest = [place for place, pair in enumerate(pairs) if not kernels.alike(*pair)]
        table = torch.from_numpy(kernels.pieces(pair for place, pair in enumerate(pairs) if place not in self._rest))
        device = averages[0].device
        self._table = table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table
        self._addresses = addresses

    def _momentum_of(self, updates: Tensor) -> Tensor:
        momentum = torch.full_like(updates, self.momentum)
        if self.ramp:
            momentum *= torch.exp(-5 * (1 - (updates / self.ramp).clamp(max=1)) ** 2)
        return momentum
