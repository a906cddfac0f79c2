"""One update of exponential moving averages of weights: all tensors of all networks in one launch.

PyTorch's function for lists of tensors (`torch._foreach_lerp_`) takes the weight as a number, which a captured graph
would keep for ever, and needs a launch for every 64 tensors or 320 pieces. Here the momentum follows a counter on the
device. The tensors' addresses are a table on the device, so that any number of tensors takes one launch. A program
moves one piece of one tensor. It moves 12 bytes per weight; a subtraction, a product and a sum would move 32.
"""

from collections.abc import Iterable

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

PIECE = 4096
"""Weights per program: 16 per thread of 8 warps. Two ResNet-18 take 5,500 programs."""
WARPS = 8


@triton.jit
def move_averages(pieces_K3, updates, momentum, ramp, RAMPED: tl.constexpr, PIECE: tl.constexpr):
    """Each row of the table has the address of a piece of an average, the address of that piece of the weights, and its
    length.

    Pieces begin at multiples of 16 bytes.
    """
    place = pieces_K3 + tl.program_id(0) * 3
    averages = tl.multiple_of(tl.load(place).to(tl.pointer_type(tl.float32)), 16)
    weights = tl.multiple_of(tl.load(place + 1).to(tl.pointer_type(tl.float32)), 16)
    length = tl.load(place + 2)
    if RAMPED:
        missing = 1.0 - tl.minimum(tl.load(updates) / ramp, 1.0)
        momentum *= tl.exp(-5.0 * missing * missing)
    element = tl.arange(0, PIECE)
    if length == PIECE:  # apart, since a mask of any length leaves no vectors
        weight = tl.load(weights + element)
        average = tl.load(averages + element)
        tl.store(averages + element, weight + momentum * (average - weight))
    else:
        weight = tl.load(weights + element, mask=element < length)
        average = tl.load(averages + element, mask=element < length)
        tl.store(averages + element, weight + momentum * (average - weight), mask=element < length)


def alike(average: Tensor, weight: Tensor) -> bool:
    """Whether two tensors have the dtype and memory layout that the kernel needs to move one towards the other."""
    return (
        average.dtype == weight.dtype == torch.float32
        and average.stride() == weight.stride() == torch.empty_like(average, device="meta").stride()  # without gaps
        and not (average.data_ptr() | weight.data_ptr()) % 16
    )


def pieces(pairs: Iterable[tuple[Tensor, Tensor]]) -> np.ndarray:
    """The kernel's table, int64 [K, 3], for pairs of an average and its weights. The two must be `alike`."""
    rows = [np.empty((0, 3), np.int64)]
    for average, weight in pairs:
        first = np.arange(0, average.numel(), PIECE, dtype=np.int64)
        length = np.minimum(average.numel() - first, PIECE)
        rows.append(np.stack([average.data_ptr() + 4 * first, weight.data_ptr() + 4 * first, length], 1))
    return np.concatenate(rows)


def launch(table: Tensor, updates: Tensor, momentum: float, ramp: int) -> None:
    """Move the averages that the table names, on the current device and stream.

    Args:
        table: int64 [K, 3] of `pieces`, on the device.
        updates: float32 scalar there: the number of updates, this one included.
        momentum: of the averages, once `updates` has reached `ramp`; see `fastnoise.ops.averages`.
        ramp: 0 for none.
    """
    if len(table):
        move_averages[(len(table),)](
            table, updates, momentum, float(ramp), RAMPED=ramp > 0, PIECE=PIECE, num_warps=WARPS
        )
