"""Batches of training images from a table of uint8 images in device memory, in one kernel: gather, crop, flip,
normalise, cut out, cast, channels last.

The kernel draws no random numbers. A table of the whole epoch says which sample is where and how it is augmented, so
that one launch makes any number of batches and needs nothing from the host. A program makes BLOCK consecutive numbers
of one image. It stores vectors. It loads single bytes, because crop and flip put them at any alignment, but the loads
of a warp lie in one or two cache lines. Sizes are constexpr, so that divisions by them become multiplications, and mask
and alignment of the stores are known.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_BLOCK = 1024
"""Numbers per program: 8 per thread of 4 warps. A batch of 128 images of 32 x 32 x 3 takes 384 programs."""

ALIGNMENT = 512
"""Every batch begins at a multiple of this many bytes, as a tensor of its own would. Kernels are compiled for the
alignment of their tensors, and cuDNN chooses kernels by it."""


@triton.jit(do_not_specialize=["first", "batch", "rows", "units", "length"])
def augment_images(
    images_NHWC,
    index_M,
    draws_VMD,
    mean_C,
    scale_C,
    out,
    start,
    first,
    batch,
    rows,
    units,
    length,
    H: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    D: tl.constexpr,
    CUTOUT: tl.constexpr,
    BLOCK: tl.constexpr,
    UNIT: tl.constexpr,
):
    """Row v * batch + b of the output's batch k is view v of the sample at position first + k * batch + b of the epoch,
    counted from the position that `start` points to, if it is given.

    A batch has `rows` rows and begins `units` UNITs after the one before.
    """
    number = tl.program_id(0) // rows
    row = tl.program_id(0) % rows
    position = first + number * batch + row % batch
    if start is not None:
        position += tl.load(start)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    channel = element % C
    x = element // C % W
    y = element // (C * W)
    source_x = x
    source_y = y
    draw = (row // batch).to(tl.int64) * length + position
    if draws_VMD is not None:
        source_y = y + tl.load(draws_VMD + draw * D)
        mirrored = tl.load(draws_VMD + draw * D + 2) != 0
        source_x = tl.where(mirrored, W - 1 - x, x) + tl.load(draws_VMD + draw * D + 1)
    inside = (source_y >= 0) & (source_y < H) & (source_x >= 0) & (source_x < W) & (element < H * W * C)
    sample = tl.load(index_M + position)
    pixel = tl.load(
        images_NHWC + sample * (H * W * C) + ((source_y * W + source_x) * C + channel), mask=inside, other=0
    ).to(tl.float32)
    # The torch loader's own order of operations, which leaves no product to be fused with a sum: the same bits.
    value = (pixel - tl.load(mean_C + channel)) * tl.load(scale_C + channel)
    if CUTOUT > 0:
        down = y - tl.load(draws_VMD + draw * D + 3)
        right = x - tl.load(draws_VMD + draw * D + 4)
        value = tl.where((down >= 0) & (down < CUTOUT) & (right >= 0) & (right < CUTOUT), 0.0, value)
    value = value.to(out.dtype.element_ty)
    place = number.to(tl.int64) * units * UNIT + row.to(tl.int64) * (H * W * C)
    tl.store(out + place + element, value, mask=element < H * W * C)


def geometry(numbers: int) -> tuple[int, int]:
    """Block and warps for images of H * W * C numbers."""
    block = min(MAX_BLOCK, max(32, triton.next_power_of_2(numbers)))
    return block, max(1, block // 256)


def bytes_of(rows: int, numbers: int, dtype: torch.dtype) -> int:
    """Bytes from the start of a batch of `rows` images of `numbers` values to the start of the next batch."""
    return -(-rows * numbers * dtype.itemsize // ALIGNMENT) * ALIGNMENT


def launch(
    images: Tensor,
    index: Tensor,
    draws: Tensor | None,
    mean: Tensor,
    scale: Tensor,
    *,
    first: int,
    last: int,
    batch: int,
    views: int = 1,
    cutout: int = 0,
    dtype: torch.dtype = torch.float32,
    start: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Make the batches of the epoch's positions first..last - 1 on the current device and stream.

    It launches the kernel directly: loaders run outside autograd and compiled code, so no dispatcher is needed.

    Args:
        images: uint8 [N, H, W, C], contiguous.
        index: [M] int64, each in [0, N), which is not checked here.
        draws: [views, M, 5] int32, contiguous: row and column in the image at which the crop begins (pixels outside the
            image are 0), 1 to mirror the crop, and row and column of the result at which the cutout begins.
        mean, scale: [C] float32, of pixels 0..255: an image is (pixel - mean) * scale.
        batch: samples in each batch. first..last - 1 must be a whole number of batches.
        cutout: side of the square set to 0; 0 for none.
        dtype: float32, float16 or bfloat16.
        start: int64 on the device; its first number is added to the positions. None: 0.

    Returns:
        Each batch, [views * batch, C, H, W] in channels_last memory format, view after view. The batches share new
        memory, which is freed together with the last of them.
    """
    _, height, width, channels = images.shape
    numbers, rows, count = height * width * channels, views * batch, (last - first) // batch
    unit = ALIGNMENT // dtype.itemsize
    units = bytes_of(rows, numbers, dtype) // ALIGNMENT
    out = torch.empty(count * units * unit, dtype=dtype, device=images.device)
    block, num_warps = geometry(numbers)
    augment_images[(count * rows, triton.cdiv(numbers, block))](
        images,
        index,
        draws,
        mean,
        scale,
        out,
        start,
        first,
        batch,
        rows,
        units,
        len(index),
        H=height,
        W=width,
        C=channels,
        D=0 if draws is None else draws.shape[2],
        CUTOUT=cutout,
        BLOCK=block,
        UNIT=unit,
        num_warps=num_warps,
    )
    form = (count, rows, channels, height, width)
    return out.as_strided(form, (units * unit, numbers, 1, width * channels, channels)).unbind()
