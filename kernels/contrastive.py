"""NT-Xent (Chen et al. 2020, Eq. 1) without storing the matrix of similarities: its blocks are computed when needed.

With unit rows z_i, s_ij = z_i . z_j / T and i' the other view of i's sample (row i + n / 2, modulo n),

    L_i = log sum_{k != i} exp(s_ik) - s_ii'.

The forward pass goes over the blocks of a row once, with a running maximum, and keeps the logarithm of the sum, M_i.
The backward pass computes every P_ij = exp(s_ij - M_i) from it again. s_ij occurs in L_i and in L_j, so that with the
upstream gradients u

    dL/dz_i = 1/T sum_{j != i} (u_i P_ij + u_j P_ji - (u_i + u_j) [j = i']) z_j.

Products take three passes of TF32, which keep fp32's precision; one pass would resolve similarities to one part in
1,000 only. Rows of any width are processed in chunks. Besides input and output the kernels need memory for n numbers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS, CHUNK, NUM_WARPS = 64, 64, 32, 8  # 4 warps spill, and so do chunks of 64


@triton.jit
def load_chunk(directions_ND, row, start, num_rows, D: tl.constexpr, CHUNK: tl.constexpr):
    """Columns start .. start + CHUNK of some rows, 0 beyond the matrix."""
    column = start + tl.arange(0, CHUNK)
    inside = (row < num_rows)[:, None] & (column < D)[None, :]
    return tl.load(directions_ND + row[:, None] * D + column[None, :], mask=inside, other=0.0)


@triton.jit
def similarities(
    directions_ND,
    row,
    other,
    num_rows,
    TEMPERATURE: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """s between two blocks of rows: [ROWS, COLUMNS]."""
    product = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, D, CHUNK):
        own_RK = load_chunk(directions_ND, row, start, num_rows, D, CHUNK)
        other_CK = load_chunk(directions_ND, other, start, num_rows, D, CHUNK)
        product = tl.dot(own_RK, tl.trans(other_CK), product, input_precision="tf32x3")
    return product / TEMPERATURE


@triton.jit(do_not_specialize=["num_rows"])
def nt_xent_rows(
    directions_ND,
    loss_N,
    log_sum_N,
    num_rows,
    TEMPERATURE: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Loss and M of ROWS rows per program."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    pair = (row + num_rows // 2) % num_rows
    highest = tl.full([ROWS], -3.4028234e38, tl.float32)
    power = tl.zeros([ROWS], tl.float32)
    positive = tl.zeros([ROWS], tl.float32)
    for start in range(0, num_rows, COLUMNS):
        other = start + tl.arange(0, COLUMNS).to(tl.int64)
        similarity = similarities(directions_ND, row, other, num_rows, TEMPERATURE, D, ROWS, COLUMNS, CHUNK)
        counted = (other[None, :] < num_rows) & (other[None, :] != row[:, None])
        positive += tl.sum(tl.where(counted & (other[None, :] == pair[:, None]), similarity, 0.0), axis=1)
        higher = tl.maximum(highest, tl.max(tl.where(counted, similarity, -3.4028234e38), axis=1))
        terms = tl.where(counted, tl.exp(similarity - higher[:, None]), 0.0)
        power = power * tl.exp(highest - higher) + tl.sum(terms, axis=1)
        highest = higher
    log_sum = highest + tl.log(power)
    tl.store(loss_N + row, log_sum - positive, mask=row < num_rows)
    tl.store(log_sum_N + row, log_sum, mask=row < num_rows)


@triton.jit(do_not_specialize=["num_rows"])
def nt_xent_gradient(
    directions_ND,
    log_sum_N,
    upstream_N,
    gradient_ND,
    num_rows,
    TEMPERATURE: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The gradient of ROWS rows and CHUNK of their columns per program."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * CHUNK
    pair = (row + num_rows // 2) % num_rows
    own_sum = tl.load(log_sum_N + row, mask=row < num_rows, other=0.0)
    own_weight = tl.load(upstream_N + row, mask=row < num_rows, other=0.0)
    gradient = tl.zeros([ROWS, CHUNK], tl.float32)
    for start in range(0, num_rows, COLUMNS):
        other = start + tl.arange(0, COLUMNS).to(tl.int64)
        similarity = similarities(directions_ND, row, other, num_rows, TEMPERATURE, D, ROWS, COLUMNS, CHUNK)
        counted = (other[None, :] < num_rows) & (other[None, :] != row[:, None]) & (row[:, None] < num_rows)
        other_sum = tl.load(log_sum_N + other, mask=other < num_rows, other=0.0)
        other_weight = tl.load(upstream_N + other, mask=other < num_rows, other=0.0)
        both = own_weight[:, None] + other_weight[None, :]
        weight = own_weight[:, None] * tl.exp(tl.where(counted, similarity - own_sum[:, None], 0.0))
        weight += other_weight[None, :] * tl.exp(tl.where(counted, similarity - other_sum[None, :], 0.0))
        weight -= tl.where(other[None, :] == pair[:, None], both, 0.0)
        other_CK = load_chunk(directions_ND, other, first, num_rows, D, CHUNK)
        gradient = tl.dot(tl.where(counted, weight, 0.0), other_CK, gradient, input_precision="tf32x3")
    column = first + tl.arange(0, CHUNK)
    inside = (row < num_rows)[:, None] & (column < D)[None, :]
    tl.store(gradient_ND + row[:, None] * D + column[None, :], gradient / TEMPERATURE, mask=inside)


def geometry(temperature: float, width: int) -> dict[str, float]:
    """The kernels' constants for rows of that width."""
    chunk = min(CHUNK, max(16, triton.next_power_of_2(width)))
    return {"TEMPERATURE": temperature, "D": width, "ROWS": ROWS, "COLUMNS": COLUMNS, "CHUNK": chunk}


def launch(directions: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Losses L and logarithms M, float32 [n] each, of unit rows float32 [n, D] on the current device; n even."""
    directions = directions.contiguous()
    count, width = directions.shape
    loss, log_sum = directions.new_empty(count), directions.new_empty(count)
    constants = geometry(temperature, width)
    nt_xent_rows[(triton.cdiv(count, ROWS),)](directions, loss, log_sum, count, **constants, num_warps=NUM_WARPS)
    return loss, log_sum


def launch_gradient(directions: Tensor, log_sum: Tensor, upstream: Tensor, temperature: float) -> Tensor:
    """d sum_i upstream_i L_i / d directions, float32 [n, D], from directions [n, D], log_sum and upstream [n]."""
    directions = directions.contiguous()
    count, width = directions.shape
    gradient = torch.empty_like(directions)
    constants = geometry(temperature, width)
    grid = triton.cdiv(count, ROWS), triton.cdiv(width, constants["CHUNK"])
    nt_xent_gradient[grid](
        directions, log_sum, upstream.contiguous(), gradient, count, **constants, num_warps=NUM_WARPS
    )
    return gradient
