"""The mean of the processes' gradients, which is all that a training step sends."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .distributed import World

FIRST_BUCKET, BUCKET = 1 << 20, 25 << 20
"""Bytes of the first bucket and of each later one. The first is small, so that sending begins early in the backward
pass; the others are as large as those of PyTorch's DistributedDataParallel, since each collective costs a round trip.
"""


class GradientMean:
    """Replaces the gradients of a step by their mean over the processes.

    Either by one collective after the backward pass, which a captured step needs, or in buckets, which are sent while
    the backward pass goes on. A bucket is full once all its parameters have their gradients. Buckets begin with the
    last parameters, whose gradients come first, and are sent in their order, which is the same in all processes.

    Parameters without a gradient, which must be the same in all processes, stay without one. A bucket with such a
    parameter, and those after it, are sent at the end of the backward pass.

    Args:
        parameters: of all networks, in one order in all processes.
        world: the processes.
        overlapped: whether gradients are sent during the backward pass.
        sizes: bytes of the first bucket and of later ones.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        world: World,
        *,
        overlapped: bool = False,
        sizes: tuple[int, int] = (FIRST_BUCKET, BUCKET),
    ):
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.world, self.overlapped = world, overlapped
        self.buckets = _buckets(self.parameters, sizes) if overlapped else []
        self._sent: list[tuple[list[Tensor], Tensor, Any]] = []
        self._begin()
        for number, bucket in enumerate(self.buckets):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(lambda _, number=number: self._arrived(number))

    @classmethod
    def of(cls, parameters: Iterable[nn.Parameter], world: World, *, overlapped: bool = False) -> "GradientMean | None":
        """One for several processes; None for one process, whose gradients are the mean."""
        return None if world.size == 1 else cls(parameters, world, overlapped=overlapped)

    def _begin(self) -> None:
        self._missing = [len(bucket) for bucket in self.buckets]
        """Gradients that each bucket still waits for in this step."""
        self._next = 0
        """The bucket that is sent next."""

    @torch.no_grad()
    def _arrived(self, number: int) -> None:
        """Called during the backward pass when a parameter of a bucket has its gradient."""
        self._missing[number] -= 1
        while self._next < len(self.buckets) and self._missing[self._next] == 0:
            with self.world.timed():
                self._send([parameter.grad for parameter in self.buckets[self._next] if parameter.grad is not None])
            self._next += 1

    def _send(self, gradients: list[Tensor]) -> None:
        """Begin to sum gradients of one dtype over the processes, as one vector."""
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        with self.world._contact():
            self._sent.append((gradients, flat, dist.all_reduce(flat, async_op=self.overlapped)))

    @torch.no_grad()
    def __call__(self) -> None:
        """Called after the backward pass; returns when all gradients are the mean."""
        with self.world.timed():
            self._finish()

    def _finish(self) -> None:
        world = self.world
        late: Sequence[Sequence[nn.Parameter]] = self.buckets[self._next :] if self.overlapped else [self.parameters]
        for bucket in late:
            gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
            for kind in dict.fromkeys(gradient.dtype for gradient in gradients):
                self._send([gradient for gradient in gradients if gradient.dtype == kind])
        for gradients, flat, work in self._sent:
            if work is not None:
                with world._contact():
                    work.wait()
            flat /= world.size
            parts = flat.split([gradient.numel() for gradient in gradients])
            shaped = [part.view(gradient.shape) for part, gradient in zip(parts, gradients, strict=True)]
            torch._foreach_copy_(gradients, shaped)
        self._sent.clear()
        self._begin()

    @torch.no_grad()
    def seconds_of(self, steps: int) -> float:
        """The seconds that collectives took in the last `steps` steps. All processes call it alike.

        On the CPU they have been measured. On a GPU nobody has waited for one: there the gradient's, of zeros, is timed
        by itself, without what it overlaps with, and stands for that of each step.
        """
        if self.world.backend != "nccl":
            return self.world.took()
        return steps * self.alone()

    def alone(self) -> float:
        """The seconds of one exchange of the gradients' size, by itself, when all processes are ready for it."""
        sizes: dict[tuple[torch.dtype, torch.device], int] = {}
        for parameter in self.parameters:
            kind = parameter.dtype, parameter.device
            sizes[kind] = sizes.get(kind, 0) + parameter.numel()
        zeros = [torch.zeros(size, dtype=dtype, device=device) for (dtype, device), size in sizes.items()]
        taken = 0.0
        for _ in range(2):  # the first one lets the processes meet
            began = time.perf_counter()
            with self.world._contact():
                for flat in zeros:
                    dist.all_reduce(flat)
            if any(flat.is_cuda for flat in zeros):
                torch.cuda.synchronize()
            taken = time.perf_counter() - began
        return taken


def _buckets(parameters: Sequence[nn.Parameter], sizes: tuple[int, int]) -> list[list[nn.Parameter]]:
    """The parameters from the last to the first in lists of one dtype, of about these numbers of bytes."""
    buckets: list[list[nn.Parameter]] = []
    room = 0
    for parameter in reversed(parameters):
        if not buckets or room <= 0 or buckets[-1][0].dtype != parameter.dtype:
            room = sizes[1] if buckets else sizes[0]
            buckets.append([])
        buckets[-1].append(parameter)
        room -= parameter.numel() * parameter.element_size()
    return buckets
