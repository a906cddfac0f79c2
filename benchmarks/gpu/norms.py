"""Batch norm as one op against PyTorch's: the layers of ResNet-34 alone, then its step, both sides in turn.

The figures decide what `--fused-norm auto` takes (`fastnoise.models.norm.AUTO_FUSED`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastnoise.models.norm import BatchNorm2d, fuse_norms, normalised

from .. import losses, timing
from ..report import Figure
from .bench import Bench

SIZES = ((128, 64, 32), (128, 128, 16), (128, 256, 8), (128, 512, 4))
"""Images, channels and side of the maps of ResNet-34 on CIFAR-10, batch 128."""
MINIATURE = ((4, 8, 4),)
SERIES = 4
"""Layers of a graph, each with maps of its own."""


@dataclass(frozen=True)
class Layer:
    """A layer with what it is given, for forward and backward."""

    norm: nn.Module
    images: Tensor
    residual: Tensor | None
    upstream: Tensor

    def __call__(self) -> tuple[Tensor, ...]:
        out = normalised(self.norm, self.images, torch.relu, self.residual)
        leaves = [self.images, *self.norm.parameters(), *([] if self.residual is None else [self.residual])]
        return torch.autograd.grad(out, leaves, self.upstream)


def layers(size: tuple[int, int, int], dtype: torch.dtype, residual: bool, fused: bool, device: str) -> list[Layer]:
    """Layers of one size."""
    random = torch.Generator().manual_seed(0)
    count, channels, side = size

    def maps() -> Tensor:
        made = torch.randn(count, channels, side, side, generator=random).to(device, dtype)
        return made.contiguous(memory_format=torch.channels_last)

    made = []
    for _ in range(SERIES):
        norm = BatchNorm2d(channels).to(device).train()
        if fused:
            fuse_norms(norm)
        made.append(Layer(norm, maps().requires_grad_(), maps().requires_grad_() if residual else None, maps()))
    return made


def samples(calls: Sequence[Callable[[], object]], on_gpu: bool) -> Iterator[float]:
    """Microseconds per call of one series of calls after another: on a GPU of the replays of a graph."""
    if on_gpu:
        return losses.replays(lambda: None, lambda _: [call() for call in calls], len(calls))
    return _on_the_cpu(calls)


def _on_the_cpu(calls: Sequence[Callable[[], object]]) -> Iterator[float]:
    while True:
        seconds = timing.in_turn({"series": lambda: [call() for call in calls]}, 1)["series"]
        yield 1e6 * seconds / len(calls)


def norm_layers(bench: Bench) -> None:
    """Forward and backward of a layer with its ReLU, and with a residual: microseconds, and how many times PyTorch's
    speed the op has."""
    dtype = torch.bfloat16 if bench.on_gpu else torch.float32
    seconds, device = (0.3, "cuda") if bench.on_gpu else (0.01, "cpu")
    for size in SIZES if bench.on_gpu else MINIATURE:
        for residual in (False, True):
            words = "x".join(map(str, size)) + ("-residual" if residual else "")
            key = f"batch_norm/{words}-{str(dtype).removeprefix('torch.')}"

            def one(size: tuple[int, int, int] = size, residual: bool = residual, key: str = key) -> None:
                sides = {
                    name: samples(layers(size, dtype, residual, name == "fused", device), bench.on_gpu)
                    for name in ("fused", "torch")
                }
                found = losses.in_turn(sides, seconds)
                for name, times in found.items():
                    spread = timing.spread(times)
                    bench.keep(Figure.of(f"{key}/{name}", spread, "us", "lower", len(times), per="layer"))
                ratios = [theirs / ours for ours, theirs in zip(found["fused"], found["torch"], strict=True)]
                bench.keep(Figure.of(f"{key}/fused:torch", timing.spread(ratios), "times", "higher", len(ratios)))

            bench.attempt(key, one)
