"""Runs the kernel of averaged weights on CPU tensors: reads cases as JSON from stdin, writes what is found of each.

A process of its own, started with TRITON_INTERPRET=1, because Triton reads that when it is imported.
"""

import json
import sys
from typing import Any

import torch
from _interpret import save_work
from fastnoise.kernels import average as kernels
from torch import Tensor

from fastnoise.ops.averages import MovingAverage


def pairs() -> tuple[list[Tensor], list[Tensor]]:
    """Weights of many sizes and layouts; the last four are not the kernel's."""
    random = torch.Generator().manual_seed(0)

    def made(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    several = 2 * kernels.PIECE
    weights = [made(3), made(0), made(several), made(several + 5), made(())]
    weights += [made(8, 6, 3, 3).to(memory_format=torch.channels_last), made(5, 7).t()]
    weights += [made(4, 9)[:, :5], made(12)[1:7], made(6).bfloat16(), made(6).double()]
    averages = [torch.randn(w.shape, generator=random).to(w.dtype).as_strided_(w.shape, w.stride()) if w.dim() < 2
                else torch.empty_like(w).copy_(torch.randn(w.shape, generator=random)) for w in weights]  # fmt: skip
    return averages, weights


def differences(momentum: float, ramp: int, updates: int) -> dict[str, Any]:
    """Largest error of the kernel's averages against float64, and what it left to others or wrote beside them."""
    averages, weights = pairs()
    before = [average.clone() for average in averages]
    move, count = MovingAverage(momentum, ramp), torch.tensor(float(updates))
    move.locate(averages, weights)
    table = move._table
    assert table is not None
    kernels.launch(table, count, momentum, ramp)
    missing = 1 - min(1.0, updates / ramp) if ramp else 0.0
    exact = momentum * torch.tensor(-5 * missing**2, dtype=torch.float64).exp()
    error, touched = 0.0, 0
    for place, (average, weight, old) in enumerate(zip(averages, weights, before, strict=True)):
        if place in move._rest:
            touched += int(not torch.equal(average, old))
        elif average.numel():
            wanted = exact * old.double() + (1 - exact) * weight.double()
            error = max(error, float((average - wanted).abs().max()))
    move.locate(averages, weights)
    kept = move._table is table
    averages[0] = averages[0].clone()
    move.locate(averages, weights)
    return {
        "error": error,
        "touched": touched,
        "rest": move._rest,
        "pieces": len(table),
        "kept": kept,
        "renewed": move._table is not table,
    }


if __name__ == "__main__":
    save_work()
    json.dump([differences(*case) for case in json.load(sys.stdin)], sys.stdout)
