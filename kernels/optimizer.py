"""One update of all weights by SGD or Adam, in one launch.

PyTorch's fused optimisers pass the addresses of tensors as arguments of a kernel, and need a launch for every few dozen
tensors. Here the addresses are a table on the device, so that any number of tensors takes one launch, and a captured
graph finds them where they were. A program updates one piece of one tensor. Each group's learning rate is read from
the device, so that a captured graph follows its schedule.

The optimiser reads gradients in float32. Tensors that have a bfloat16 copy, with which the next forward pass computes,
have gradients in bfloat16 as well; the kernel writes the copy together with the weights. SGD with momentum then moves
20 bytes per weight: 2 of the gradient, 8 of the weight, 8 of the momentum, 2 of the copy. PyTorch's moves 20 for the
update alone, 6 to cast the weight and 6 to cast the gradient. An exponential moving average of the weights follows in
the same launch, for 8 bytes per weight more: 28 in all. A launch of its own (`kernels/average.py`) reads the weight
again and moves 12. Tensors without a gradient, such as batch norm's statistics, have averages that follow here too.

Arithmetic is in float32, in the order of torch.optim's fused forms for the CPU, with products and sums fused as a CPU
fuses them. What Adam needs once for all weights of a tensor is in float64 as there: float32 would lose the first digits
of 1 - beta^step.
"""

import math
from collections.abc import Sequence

import numpy as np
import triton
import triton.language as tl
from torch import Tensor

PIECE = 2048
"""Weights per program: 8 per thread of 8 warps. A ResNet-34 takes 10,400 programs."""
WARPS = 8

WEIGHT = tl.constexpr(0)
GRADIENT = tl.constexpr(1)
FIRST = tl.constexpr(2)
SECOND = tl.constexpr(3)
RATE = tl.constexpr(4)
STEP = tl.constexpr(5)
COPY = tl.constexpr(6)
AVERAGE = tl.constexpr(7)
LENGTH = tl.constexpr(8)
COLUMNS = tl.constexpr(9)
"""Of the table of tensors, int64 [T, 9]: the addresses of weight, gradient, momentum (or first moment), second moment,
learning rate, number of the step, bfloat16 copy, and average, 0 for what there is not; and the number of weights. A
tensor without a gradient is not updated; its average follows it."""


@triton.jit
def numbers(row, COLUMN: tl.constexpr, DTYPE: tl.constexpr, ALIGNMENT: tl.constexpr):
    """The tensor whose address stands in a column of the table."""
    return tl.multiple_of(tl.load(row + COLUMN).to(tl.pointer_type(DTYPE)), ALIGNMENT)


@triton.jit
def load_gradient(row, place, mask, scale, COPIES: tl.constexpr, ALIGNMENT: tl.constexpr):
    """A piece of a gradient, float32, without the factor by which the loss was scaled."""
    if COPIES:
        if tl.load(row + COPY) != 0:
            gradient = tl.load(numbers(row, GRADIENT, tl.bfloat16, ALIGNMENT // 2) + place, mask=mask).to(tl.float32)
        else:
            gradient = tl.load(numbers(row, GRADIENT, tl.float32, ALIGNMENT) + place, mask=mask)
    else:
        gradient = tl.load(numbers(row, GRADIENT, tl.float32, ALIGNMENT) + place, mask=mask)
    if scale is not None:
        gradient = tl.div_rn(gradient, tl.load(scale))
    return gradient


@triton.jit
def move_average(row, place, mask, weight, average, ALIGNMENT: tl.constexpr):
    """Move a piece of the average towards the weights; `average` is its momentum."""
    averages = numbers(row, AVERAGE, tl.float32, ALIGNMENT) + place
    tl.store(averages, tl.fma(tl.load(averages, mask=mask) - weight, average, weight), mask=mask)


@triton.jit
def store_weight(row, place, mask, weight, average, COPIES: tl.constexpr, ALIGNMENT: tl.constexpr):
    """Write a piece of the weights, and of their copy and average."""
    tl.store(numbers(row, WEIGHT, tl.float32, ALIGNMENT) + place, weight, mask=mask)
    if COPIES:  # noqa: SIM102  a constant: without copies nothing is loaded
        if tl.load(row + COPY) != 0:
            tl.store(numbers(row, COPY, tl.bfloat16, ALIGNMENT // 2) + place, weight.to(tl.bfloat16), mask=mask)
    if average is not None:  # noqa: SIM102  a constant, too
        if tl.load(row + AVERAGE) != 0:
            move_average(row, place, mask, weight, average, ALIGNMENT)


@triton.jit
def own_piece(pieces_K2, tensors_T9, found_inf, average, ALIGNMENT: tl.constexpr, PIECE: tl.constexpr):
    """Of this program: its tensor's row of the table, the places of its weights, and how many weights there are from
    the first on.

    There are none to update if the tensor has no gradient, or if the step is left out because a gradient has
    overflowed. The average is then moved here.
    """
    row = tensors_T9 + tl.load(pieces_K2 + tl.program_id(0) * 2) * COLUMNS
    first = tl.load(pieces_K2 + tl.program_id(0) * 2 + 1).to(tl.int64) * PIECE
    place, left = first + tl.arange(0, PIECE), tl.load(row + LENGTH) - first
    updated = tl.load(row + GRADIENT) != 0
    if found_inf is not None:
        updated = updated & (tl.load(found_inf) == 0)
    if average is not None:  # noqa: SIM102  a constant: without averages nothing is loaded
        if (not updated) & (tl.load(row + AVERAGE) != 0):
            mask = tl.arange(0, PIECE) < left
            weight = tl.load(numbers(row, WEIGHT, tl.float32, ALIGNMENT) + place, mask=mask)
            move_average(row, place, mask, weight, average, ALIGNMENT)
    return row, place, tl.where(updated, left, 0)


@triton.jit
def sgd_piece(
    row,
    place,
    mask,
    scale,
    momentum,
    decay,
    average,
    MOMENTUM: tl.constexpr,
    NESTEROV: tl.constexpr,
    COPIES: tl.constexpr,
    ALIGNMENT: tl.constexpr,
):
    weight = tl.load(numbers(row, WEIGHT, tl.float32, ALIGNMENT) + place, mask=mask)
    change = load_gradient(row, place, mask, scale, COPIES, ALIGNMENT)
    change = tl.fma(weight, decay, change)
    if MOMENTUM:
        velocities = numbers(row, FIRST, tl.float32, ALIGNMENT) + place
        velocity = momentum * tl.load(velocities, mask=mask) + change
        tl.store(velocities, velocity, mask=mask)
        change = tl.fma(velocity, momentum, change) if NESTEROV else velocity
    weight = tl.fma(change, -tl.load(numbers(row, RATE, tl.float32, 4)), weight)
    store_weight(row, place, mask, weight, average, COPIES, ALIGNMENT)


@triton.jit
def sgd(
    pieces_K2,
    tensors_T9,
    scale,
    found_inf,
    momentum,
    decay,
    average,
    MOMENTUM: tl.constexpr,
    NESTEROV: tl.constexpr,
    COPIES: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    PIECE: tl.constexpr,
):
    """v <- momentum * v + (g + decay * w); w <- w - rate * v, or with Nesterov's rule
    w <- w - rate * (g + decay * w + momentum * v) (Sutskever et al. 2013, as torch.optim.SGD has it).

    Row k of `pieces_K2` names the tensor and the piece of it that program k updates.
    """
    row, place, left = own_piece(pieces_K2, tensors_T9, found_inf, average, ALIGNMENT, PIECE)
    if left >= PIECE:  # apart, since a mask of any length leaves no vectors
        sgd_piece(row, place, None, scale, momentum, decay, average, MOMENTUM, NESTEROV, COPIES, ALIGNMENT)
    elif left > 0:
        mask = tl.arange(0, PIECE) < left
        sgd_piece(row, place, mask, scale, momentum, decay, average, MOMENTUM, NESTEROV, COPIES, ALIGNMENT)


@triton.jit
def adam_piece(
    row,
    place,
    mask,
    scale,
    share1,
    beta2,
    share2,
    decay,
    epsilon,
    average,
    LOG1: tl.constexpr,
    LOG2: tl.constexpr,
    DECOUPLED: tl.constexpr,
    COPIES: tl.constexpr,
    ALIGNMENT: tl.constexpr,
):
    step = tl.load(numbers(row, STEP, tl.float32, 4)).to(tl.float64)
    rate = tl.load(numbers(row, RATE, tl.float32, 4)).to(tl.float64)
    size = (rate / (1.0 - tl.exp(step * LOG1))).to(tl.float32)
    correction = tl.sqrt(1.0 - tl.exp(step * LOG2)).to(tl.float32)
    weight = tl.load(numbers(row, WEIGHT, tl.float32, ALIGNMENT) + place, mask=mask)
    gradient = load_gradient(row, place, mask, scale, COPIES, ALIGNMENT)
    if DECOUPLED:
        weight *= (1.0 - rate * decay).to(tl.float32)
    else:
        gradient = tl.fma(weight, decay, gradient)
    firsts = numbers(row, FIRST, tl.float32, ALIGNMENT) + place
    seconds = numbers(row, SECOND, tl.float32, ALIGNMENT) + place
    first = tl.load(firsts, mask=mask)
    first = tl.fma(gradient - first, share1, first)
    second = tl.fma(share2 * gradient, gradient, beta2 * tl.load(seconds, mask=mask))
    tl.store(firsts, first, mask=mask)
    tl.store(seconds, second, mask=mask)
    weight -= tl.div_rn(size * first, tl.div_rn(tl.sqrt_rn(second), correction) + epsilon)
    store_weight(row, place, mask, weight, average, COPIES, ALIGNMENT)


@triton.jit
def adam(
    pieces_K2,
    tensors_T9,
    scale,
    found_inf,
    share1,
    beta2,
    share2,
    decay,
    epsilon,
    average,
    LOG1: tl.constexpr,
    LOG2: tl.constexpr,
    DECOUPLED: tl.constexpr,
    COPIES: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    PIECE: tl.constexpr,
):
    """Adam (Kingma and Ba 2015, algorithm 1); with DECOUPLED AdamW (Loshchilov and Hutter 2019, algorithm 2).

    `share1` and `share2` are 1 - beta, LOG1 and LOG2 ln(beta). The numbers of the steps are those of this one.
    """
    row, place, left = own_piece(pieces_K2, tensors_T9, found_inf, average, ALIGNMENT, PIECE)
    if left >= PIECE:
        adam_piece(
            row, place, None, scale, share1, beta2, share2, decay, epsilon, average,
            LOG1, LOG2, DECOUPLED, COPIES, ALIGNMENT,
        )  # fmt: skip
    elif left > 0:
        mask = tl.arange(0, PIECE) < left
        adam_piece(
            row, place, mask, scale, share1, beta2, share2, decay, epsilon, average,
            LOG1, LOG2, DECOUPLED, COPIES, ALIGNMENT,
        )  # fmt: skip


def pieces(lengths: Sequence[int]) -> np.ndarray:
    """int32 [K, 2]: for tensors of these numbers of weights, the tensor and the number of the piece of each program."""
    counts = [-(-length // PIECE) for length in lengths]
    tensor = np.repeat(np.arange(len(counts)), counts)
    number = np.concatenate([np.arange(0), *(np.arange(count) for count in counts)])
    return np.stack([tensor, number], 1).astype(np.int32)


def launch_sgd(
    table: tuple[Tensor, Tensor],
    *,
    momentum: float,
    decay: float,
    nesterov: bool,
    copies: bool,
    alignment: int,
    scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    average: float | None = None,
) -> None:
    """Update the weights that a table names, on the current device and stream.

    Args:
        table: `pieces`, int32 [K, 2], and the table of tensors, int64 [T, 9], both on the device.
        momentum: 0 for none; the table then needs no momenta.
        decay: weight decay, as a part of the gradient.
        copies: whether any tensor has a bfloat16 copy.
        alignment: of all float32 tensors but the rates, in bytes: 16 or 4. That of bfloat16 is half as much, so that
            a thread has the same weights of both, and nothing goes through shared memory.
        scale: float32 scalar on the device, by which gradients are divided; None for 1.
        found_inf: float32 scalar there; the step is left out unless it is 0. None for 0.
        average: momentum of the averages, as `kernels/average.py` has it; None if the table has none.
    """
    if len(table[0]):
        sgd[(len(table[0]),)](
            *table,
            scale,
            found_inf,
            momentum,
            decay,
            average,
            MOMENTUM=momentum != 0,
            NESTEROV=nesterov,
            COPIES=copies,
            ALIGNMENT=alignment,
            PIECE=PIECE,
            num_warps=WARPS,
        )


def launch_adam(
    table: tuple[Tensor, Tensor],
    *,
    betas: tuple[float, float],
    decay: float,
    epsilon: float,
    decoupled: bool,
    copies: bool,
    alignment: int,
    scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    average: float | None = None,
) -> None:
    """`launch_sgd` for Adam, or AdamW if the weight decay is `decoupled`. `betas` are in [0, 1).

    The table has the same form: int32 [K, 2] and int64 [T, 8].
    """
    if len(table[0]):
        adam[(len(table[0]),)](
            *table,
            scale,
            found_inf,
            1 - betas[0],
            betas[1],
            1 - betas[1],
            decay,
            epsilon,
            average,
            LOG1=math.log(betas[0]) if betas[0] else -math.inf,
            LOG2=math.log(betas[1]) if betas[1] else -math.inf,
            DECOUPLED=decoupled,
            COPIES=copies,
            ALIGNMENT=alignment,
            PIECE=PIECE,
            num_warps=WARPS,
        )
