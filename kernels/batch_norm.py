"""Batch norm in training with ReLU and the sum of a residual, for images in channels_last: two launches forward, two
backward.

Images in channels_last are a matrix x of R = B H W rows and C columns. For each column (Ioffe & Szegedy 2015,
algorithm 1)

    y = relu((x - mean) * rstd * weight + bias + residual),    rstd = 1 / sqrt(variance + eps),

and with the gradient g of the sum under the ReLU, n = (x - mean) * rstd,

    dbias = sum g,    dweight = sum g n,    dx = weight rstd (g - dbias / R - n dweight / R),    dresidual = g.

`statistics` and `gradient_sums` read their matrices once. Each program goes over some tiles of rows and stores what it
finds of its columns. The program that finishes last joins what all have stored; no program waits for another. It does
so in the order of the programs, so that equal batches give equal bits. Variances are joined as Welford (1962) and Chan
et al. (1979) do, in fp32: no squares of large means cancel.

Without a residual the backward pass computes the ReLU's mask again from x, which it reads anyway. With a residual it
reads the mask from y, once, and stores g, which is the residual's gradient. A second gradient of y, from a second user
of it, is added as it is read.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .counters import counter

WARPS = 8
TILE = 4096
"""Elements of a tile, 16 per thread: the reductions then take about 100 registers, and two programs fit on a
multiprocessor. With 8192 they take 160 to 200. Rows that don't begin at multiples of 16 bytes are loaded one element at
a time, which takes more registers: they get a quarter of a tile."""
PROGRAMS = 264
"""Programs of a reduction at most: two for each multiprocessor of an H100."""
COLUMN_BLOCKS = 4
"""Blocks of columns, each with an arrival counter: a counter of `counters` has four places."""


@triton.jit
def place(tile, column, num_rows, C: tl.constexpr, ROWS: tl.constexpr):
    """Where a tile's elements lie in a matrix, and which of its rows exist."""
    row = tl.arange(0, ROWS)[:, None]
    return tile.to(tl.int64) * (ROWS * C), row * C + column, row < num_rows - tile * ROWS


@triton.jit
def of_channels(values_C, column, C: tl.constexpr):
    return tl.load(values_C + column, mask=column < C, other=0.0).to(tl.float32)


@triton.jit
def joined(count, mean, squares):
    """Rows, mean and sum of squared distances from it, of each column, from those of the lanes [ROWS, 1 or COLS]."""
    total = tl.sum(count, axis=0, keep_dims=True)
    centre = tl.sum(count * mean, axis=0, keep_dims=True) / total
    distance = mean - centre
    return total, centre, tl.sum(squares + count * distance * distance, axis=0, keep_dims=True)


@triton.jit
def is_last(arrivals):
    """Whether all other programs of this block of columns have stored theirs; if so, the counter is 0 again.

    The barrier lets one thread's count speak for the stores of all threads of its program.
    """
    tl.debug_barrier()
    counter = arrivals + tl.program_id(1)
    last = tl.atomic_add(counter, 1, sem="acq_rel") == tl.num_programs(0) - 1
    if last:
        tl.store(counter, 0)
    return last


@triton.jit
def load_partials(partials_P2C, which: tl.constexpr, program, column, mask, C: tl.constexpr):
    """What other programs have stored, past the first-level cache, which their stores don't reach."""
    place = (program * 2 + which) * C + column
    return tl.load(partials_P2C + place, mask=mask, other=0.0, cache_modifier=".cg")


@triton.jit(do_not_specialize=["num_rows", "momentum", "eps"])
def statistics(
    x_RC,
    mean_C,
    rstd_C,
    running_mean_C,
    running_var_C,
    partials_P2C,
    arrivals,
    num_rows,
    momentum,
    eps,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """Mean and 1 / sqrt(variance + eps) of each column; the running statistics move towards mean and unbiased variance.

    Each lane keeps count, mean and sum of squared distances of the elements that it has seen.
    """
    column = tl.program_id(1) * COLS + tl.arange(0, COLS)[None, :]
    inside = column < C
    num_tiles = tl.cdiv(num_rows, ROWS)
    step = tl.num_programs(0)
    count = tl.zeros([ROWS, 1], tl.float32)
    mean = tl.zeros([ROWS, COLS], tl.float32)
    squares = tl.zeros([ROWS, COLS], tl.float32)
    seen = 0.0
    tile = tl.program_id(0)
    while tile < num_tiles:  # no range, for which Triton 3.6's interpreter asks NumPy 2.5 for an int in vain
        start, element, exists = place(tile, column, num_rows, C, ROWS)
        x = tl.load(x_RC + start + element, mask=exists & inside, other=0.0).to(tl.float32)
        seen += 1.0
        distance = tl.where(exists, x - mean, 0.0)
        mean += distance * (1.0 / seen)
        squares += distance * (x - mean)
        count += exists.to(tl.float32)
        tile += step
    _, mean_1C, squares_1C = joined(count, mean, squares)
    own = tl.program_id(0) * 2 * C + column
    tl.store(partials_P2C + own, mean_1C, mask=inside)
    tl.store(partials_P2C + own + C, squares_1C, mask=inside)
    if is_last(arrivals):
        count = tl.zeros([ROWS, 1], tl.float32)
        mean = tl.zeros([ROWS, COLS], tl.float32)
        squares = tl.zeros([ROWS, COLS], tl.float32)
        first = 0
        while first < step:
            program = first + tl.arange(0, ROWS)[:, None]
            exists = program < step
            last_tile = num_tiles - 1
            rows = (last_tile - program + step) // step * ROWS
            rows -= tl.where(last_tile % step == program, num_tiles * ROWS - num_rows, 0)
            added = tl.where(exists, rows, 0).to(tl.float32)
            together = count + added
            share = added / tl.maximum(together, 1.0)
            mask = exists & inside
            distance = tl.where(exists, load_partials(partials_P2C, 0, program, column, mask, C) - mean, 0.0)
            mean += distance * share
            squares += load_partials(partials_P2C, 1, program, column, mask, C) + distance * distance * count * share
            count = together
            first += ROWS
        total, mean_1C, squares_1C = joined(count, mean, squares)
        tl.store(mean_C + column, mean_1C, mask=inside)
        tl.store(rstd_C + column, 1.0 / tl.sqrt(squares_1C / total + eps), mask=inside)
        before = tl.load(running_mean_C + column, mask=inside, other=0.0)
        tl.store(running_mean_C + column, before + momentum * (mean_1C - before), mask=inside)
        before = tl.load(running_var_C + column, mask=inside, other=0.0)
        tl.store(running_var_C + column, before + momentum * (squares_1C / (total - 1.0) - before), mask=inside)


@triton.jit(do_not_specialize=["num_rows"])
def normalise(
    x_RC,
    residual_RC,
    mean_C,
    rstd_C,
    weight_C,
    bias_C,
    out_RC,
    num_rows,
    RELU: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """One tile of y. NaN stays NaN."""
    column = tl.program_id(1) * COLS + tl.arange(0, COLS)[None, :]
    start, element, exists = place(tl.program_id(0), column, num_rows, C, ROWS)
    mask = exists & (column < C)
    x = tl.load(x_RC + start + element, mask=mask, other=0.0).to(tl.float32)
    scale = of_channels(rstd_C, column, C) * of_channels(weight_C, column, C)
    y = (x - of_channels(mean_C, column, C)) * scale + of_channels(bias_C, column, C)
    if residual_RC is not None:
        y += tl.load(residual_RC + start + element, mask=mask, other=0.0).to(tl.float32)
    if RELU:
        y = tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out_RC + start + element, y.to(out_RC.dtype.element_ty), mask=mask)


@triton.jit
def load_gradient(
    upstream_RC,
    second_RC,
    out_RC,
    x,
    mean,
    scale,
    bias,
    place,
    mask,
    RELU: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """g of a tile. As in PyTorch the gradient passes where y is NaN."""
    gradient = tl.load(upstream_RC + place, mask=mask, other=0.0).to(tl.float32)
    if second_RC is not None:
        gradient += tl.load(second_RC + place, mask=mask, other=0.0).to(tl.float32)
    if RELU:
        if out_RC is not None:
            y = tl.load(out_RC + place, mask=mask, other=0.0)
        else:
            y = ((x - mean) * scale + bias).to(DTYPE)
        gradient = tl.where(y <= 0.0, 0.0, gradient)
    return gradient


@triton.jit(do_not_specialize=["num_rows"])
def gradient_sums(
    upstream_RC,
    second_RC,
    x_RC,
    out_RC,
    mean_C,
    rstd_C,
    weight_C,
    bias_C,
    dweight_C,
    dbias_C,
    dresidual_RC,
    partials_P2C,
    arrivals,
    num_rows,
    RELU: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """dbias and dweight; and g, if there is a residual. `second_RC`, `out_RC` and `dresidual_RC` may be None."""
    column = tl.program_id(1) * COLS + tl.arange(0, COLS)[None, :]
    inside = column < C
    mean, rstd = of_channels(mean_C, column, C), of_channels(rstd_C, column, C)
    scale, bias = rstd * of_channels(weight_C, column, C), of_channels(bias_C, column, C)
    num_tiles = tl.cdiv(num_rows, ROWS)
    step = tl.num_programs(0)
    sums = tl.zeros([ROWS, COLS], tl.float32)
    products = tl.zeros([ROWS, COLS], tl.float32)
    tile = tl.program_id(0)
    while tile < num_tiles:
        start, element, exists = place(tile, column, num_rows, C, ROWS)
        mask = exists & inside
        x = tl.load(x_RC + start + element, mask=mask, other=0.0).to(tl.float32)
        gradient = load_gradient(
            upstream_RC, second_RC, out_RC, x, mean, scale, bias, start + element, mask, RELU, x_RC.dtype.element_ty
        )
        if dresidual_RC is not None:
            tl.store(dresidual_RC + start + element, gradient.to(dresidual_RC.dtype.element_ty), mask=mask)
        sums += gradient
        products += gradient * (x - mean)
        tile += step
    own = tl.program_id(0) * 2 * C + column
    tl.store(partials_P2C + own, tl.sum(sums, axis=0, keep_dims=True), mask=inside)
    tl.store(partials_P2C + own + C, tl.sum(products, axis=0, keep_dims=True), mask=inside)
    if is_last(arrivals):
        sums = tl.zeros([ROWS, COLS], tl.float32)
        products = tl.zeros([ROWS, COLS], tl.float32)
        first = 0
        while first < step:
            program = first + tl.arange(0, ROWS)[:, None]
            mask = (program < step) & inside
            sums += load_partials(partials_P2C, 0, program, column, mask, C)
            products += load_partials(partials_P2C, 1, program, column, mask, C)
            first += ROWS
        tl.store(dbias_C + column, tl.sum(sums, axis=0, keep_dims=True), mask=inside)
        tl.store(dweight_C + column, tl.sum(products, axis=0, keep_dims=True) * rstd, mask=inside)


@triton.jit(do_not_specialize=["num_rows"])
def gradient_of_images(
    upstream_RC,
    second_RC,
    x_RC,
    mean_C,
    rstd_C,
    weight_C,
    bias_C,
    dweight_C,
    dbias_C,
    dx_RC,
    num_rows,
    RELU: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """One tile of dx. With a residual `upstream_RC` is g, and there is no ReLU left."""
    column = tl.program_id(1) * COLS + tl.arange(0, COLS)[None, :]
    start, element, exists = place(tl.program_id(0), column, num_rows, C, ROWS)
    mask = exists & (column < C)
    mean, rstd = of_channels(mean_C, column, C), of_channels(rstd_C, column, C)
    scale, bias = rstd * of_channels(weight_C, column, C), of_channels(bias_C, column, C)
    x = tl.load(x_RC + start + element, mask=mask, other=0.0).to(tl.float32)
    gradient = load_gradient(
        upstream_RC, second_RC, None, x, mean, scale, bias, start + element, mask, RELU, x_RC.dtype.element_ty
    )
    share = 1.0 / num_rows.to(tl.float32)
    first = of_channels(dbias_C, column, C) * share
    second = of_channels(dweight_C, column, C) * rstd * share
    dx = (gradient - first - (x - mean) * second) * scale
    tl.store(dx_RC + start + element, dx.to(dx_RC.dtype.element_ty), mask=mask)


def geometry(num_rows: int, channels: int) -> tuple[int, int]:
    """Rows and columns of a tile.

    A block of columns is at least 64 wide, which is 128 bytes in half precision, and there are at most COLUMN_BLOCKS.
    """
    columns = min(triton.next_power_of_2(channels), 64)
    while columns * COLUMN_BLOCKS < channels:
        columns *= 2
    tile = TILE if channels % 8 == 0 else TILE // 4
    return max(1, min(tile // columns, triton.next_power_of_2(num_rows))), columns


def grids(num_rows: int, channels: int, rows: int, columns: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Programs of a reduction and of a pass that writes every element, along rows and along columns."""
    tiles, blocks = triton.cdiv(num_rows, rows), triton.cdiv(channels, columns)
    return (min(tiles, max(1, PROGRAMS // blocks)), blocks), (tiles, blocks)


def _plan(images: Tensor) -> tuple[int, tuple[int, int], tuple[int, int], dict[str, int]]:
    """Rows of the matrix, `grids`, and what all kernels take by name."""
    count, channels, height, width = images.shape
    num_rows = count * height * width
    rows, columns = geometry(num_rows, channels)
    given = {"C": channels, "ROWS": rows, "COLS": columns, "num_warps": WARPS}
    return num_rows, *grids(num_rows, channels, rows, columns), given


def _matrix(images: Tensor | None) -> Tensor | None:
    """Images as a kernel reads them: in channels_last, copied if they are not."""
    return None if images is None else images.contiguous(memory_format=torch.channels_last)


def launch(
    images: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    residual: Tensor | None,
    momentum: float,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise a batch on the current device; the running statistics move in place.

    Args:
        images: [B, C, H, W] float32, float16 or bfloat16, more than one value per channel.
        weight, bias, running_mean, running_var: float32 [C], contiguous.
        residual: as images, added before the ReLU; None for none.
        momentum: share of the batch in the running statistics.
        eps: added to the variance.
        relu: whether negative values become 0.

    Returns:
        y as images, in channels_last; mean and rstd, float32 [C].
    """
    num_rows, reduction, elementwise, given = _plan(images)
    x, mean = _matrix(images), torch.empty_like(weight)
    rstd, out = torch.empty_like(mean), torch.empty_like(images, memory_format=torch.channels_last)
    partials = mean.new_empty(reduction[0] * 2 * len(mean))
    statistics[reduction](
        x, mean, rstd, running_mean, running_var, partials, counter(images.device), num_rows, momentum, eps, **given
    )
    normalise[elementwise](x, _matrix(residual), mean, rstd, weight, bias, out, num_rows, RELU=relu, **given)
    return out, mean, rstd


def launch_gradient(
    upstream: Tensor,
    second: Tensor | None,
    images: Tensor,
    out: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    relu: bool,
) -> list[Tensor]:
    """The gradients of `launch`.

    Args:
        upstream: of y, [B, C, H, W] in the dtype of images.
        second: added to `upstream`; None for none.
        images, weight, bias, relu: what `launch` was given.
        out: y, if there is a residual under the ReLU; else None.
        mean, rstd: as `launch` returned them.

    Returns:
        Those of images, weight and bias, the last two float32 [C]; with `out` also that of the residual.
    """
    num_rows, reduction, elementwise, given = _plan(images)
    x, upstream, second = _matrix(images), _matrix(upstream), _matrix(second)  # type: ignore[assignment]
    dweight, dbias = torch.empty_like(weight), torch.empty_like(bias)
    dx = torch.empty_like(images, memory_format=torch.channels_last)
    dresidual = None if out is None else torch.empty_like(dx)
    partials = mean.new_empty(reduction[0] * 2 * len(mean))
    gradient_sums[reduction](
        upstream, second, x, _matrix(out), mean, rstd, weight, bias, dweight, dbias, dresidual, partials,
        counter(images.device), num_rows, RELU=relu, **given,
    )  # fmt: skip
    if dresidual is not None:
        upstream, second, relu = dresidual, None, False
    gradient_of_images[elementwise](
        upstream, second, x, mean, rstd, weight, bias, dweight, dbias, dx, num_rows, RELU=relu, **given
    )
    return [dx, dweight, dbias] if dresidual is None else [dx, dweight, dbias, dresidual]
