"""Many classes: rows that are held in registers against rows that are read again, and runs that write no logits.

The figures decide `AUTO_HELD` (kernels/row.py) and what `--fused-head auto` takes (fastnoise/models/heads.py).
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from fastnoise.losses import ELRLoss, fused_linear

from .. import loss_sides, losses, timing
from ..report import Figure
from .bench import Bench, NotMeasured

SIZE, MINIATURE = (8192, 21841), (4, 40)
"""Samples and classes: those of ImageNet-21k, and few for the interpreter."""
FEATURES = 512
HELD_LOSSES = ("elr", "swce", "ce", "nal")
AGREE = {"float32": 1e-4, "bfloat16": 2**-7}
"""The largest difference of gradients and targets, over the largest entry: rounding, in bfloat16 by one place."""


def held_rows(bench: Bench) -> None:
    """The kernels at 21,841 classes with held rows and as they are by default: do they agree, microseconds, the share
    of a copy's bandwidth, and how many times as fast a held row is."""
    batch, num_classes = SIZE if bench.on_gpu else MINIATURE
    device = torch.device("cuda" if bench.on_gpu else "cpu")
    stretch = None if bench.on_gpu else (1, 16, 1)
    for dtype, loss in itertools.product(("bfloat16", "float32") if bench.on_gpu else ("float32",), HELD_LOSSES):
        key = f"held_rows/{loss}/{batch}x{num_classes}-{dtype}"

        def one(loss: str = loss, dtype: str = dtype, key: str = key) -> None:
            measured = losses.Bench(device, dtype, 0.5 if bench.on_gpu else 0.01, bench.stamp, copy_gb_s(device))
            inputs = measured.inputs(batch, num_classes)
            rows = losses.table_rows(batch, num_classes)
            kept: dict[str, dict[str, Tensor]] = {"held": {}, "looped": {}}

            def side(name: str, keep: dict[str, Tensor] | None = None) -> loss_sides.Side:
                held = name == "held"
                return loss_sides.kernel_side(loss, rows, num_classes, device, stretch, held, keep)

            values = {name: side(name, keep)(*inputs[0]) for name, keep in kept.items()}
            difference = max(apart(values["held"], values["looped"]), *map(apart, *map(dict.values, kept.values())))
            bench.value(f"{key}/difference", difference, "of the largest")
            if difference > AGREE[dtype]:
                raise AssertionError(f"held rows differ by {difference:.2g} of the largest entry")
            kept.clear()
            sampler = losses.graph_samples if bench.on_gpu else losses.cpu_samples
            sides = {name: sampler(side(name), "forward", inputs, loss == "nal") for name in ("held", "looped")}
            found = losses.in_turn(sides, measured.seconds)
            for name, samples in found.items():
                row = measured.row(loss, batch, num_classes, name, "kernel", bench.on_gpu, samples, len(inputs))
                bench.keep(replace(losses.figure(row), key=f"{key}/{name}"))
            ratios = [theirs / ours for ours, theirs in zip(found["held"], found["looped"], strict=True)]
            bench.keep(Figure.of(f"{key}/held:looped", timing.spread(ratios), "times", "higher", len(ratios)))

        bench.attempt(key, one)


@cache
def copy_gb_s(device: torch.device) -> float:
    return losses.copy_bandwidth(device) if device.type == "cuda" else timing.copy_bandwidth(1 << 24) / 1e9


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two tensors over the largest entry."""
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())


def fused_head(bench: Bench) -> None:
    """ELR's step from features to gradients at 21,841 classes, with logits and without: milliseconds, peak memory
    above what the step begins with, and how many times as fast it is without."""
    batch, num_classes = SIZE if bench.on_gpu else MINIATURE
    device = torch.device("cuda" if bench.on_gpu else "cpu")
    dtype = torch.bfloat16 if bench.on_gpu else torch.float32
    key = f"fused_head/elr/{batch}x{num_classes}x{FEATURES}-{str(dtype).removeprefix('torch.')}"
    made: dict[str, Callable[[], tuple[Tensor, ...]]] = {}
    for name, block_rows in (("whole", 0), ("fused", None), ("fused@256", 256), ("fused@2048", 2048)):

        def one(name: str = name, block_rows: int | None = block_rows) -> None:
            call = head_step(batch, num_classes, device, dtype, block_rows)
            call()
            if bench.on_gpu:
                bench.value(f"{key}/{name}/peak", peak_gib(call), "GiB")
            samples = losses.in_turn({name: milliseconds(call, bench.on_gpu)}, 0.5 if bench.on_gpu else 0.01)[name]
            bench.keep(Figure.of(f"{key}/{name}", timing.spread(samples), "ms", "lower", len(samples)))
            made[name] = call

        bench.attempt(f"{key}/{name}", one)

    def both() -> None:
        if not {"fused", "whole"} <= made.keys():
            raise NotMeasured("one of the two failed")
        sides = {name: milliseconds(made[name], bench.on_gpu) for name in ("fused", "whole")}
        found = losses.in_turn(sides, 1.0 if bench.on_gpu else 0.01)
        ratios = [theirs / ours for ours, theirs in zip(found["fused"], found["whole"], strict=True)]
        bench.keep(Figure.of(f"{key}/fused:whole", timing.spread(ratios), "times", "higher", len(ratios)))

    bench.attempt(f"{key}/fused:whole", both)


def head_step(
    batch: int, num_classes: int, device: torch.device, dtype: torch.dtype, block_rows: int | None
) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward of classifier and ELR; block_rows 0: with the logits of the whole batch."""
    random = torch.Generator().manual_seed(0)
    features = torch.randn(batch, FEATURES, generator=random).to(device, dtype).requires_grad_()
    classifier = torch.nn.Linear(FEATURES, num_classes).to(device)
    loss = ELRLoss(batch, num_classes, strength=3.0, momentum=0.7).to(device)
    labels = torch.randint(num_classes, (batch,), generator=random).to(device)
    index = torch.arange(batch, device=device)

    def call() -> tuple[Tensor, ...]:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            if block_rows == 0:
                value = loss(classifier(features), labels, index)
            else:
                linear = fused_linear(features, classifier.weight, classifier.bias, block_rows=block_rows, argmax=True)
                value = loss(linear, labels, index)
        return torch.autograd.grad(value, [features, *classifier.parameters()])

    return call


def peak_gib(call: Callable[[], object]) -> float:
    """GiB that a call takes at its peak, above what was taken before it."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before) / 2**30


def milliseconds(call: Callable[[], object], on_gpu: bool) -> Iterator[float]:
    """Of one call after another, without end; they last so long that their launches are hidden."""
    while True:
        if on_gpu:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            yield start.elapsed_time(end)
        else:
            began = time.perf_counter()
            call()
            yield 1e3 * (time.perf_counter() - began)
