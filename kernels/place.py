"""Parts of images from a table in device memory, resized, cropped, mirrored and rotated: what comes before `augment`.

The kernel draws nothing: a table says where each image is taken from (`fastnoise.data.placing`). A program makes BLOCK
consecutive numbers of one image, each from the pixels under its own triangle, so that nothing is kept between a pass
over columns and one over rows. The loops have as many turns as the image's scale needs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .augment import geometry


@triton.jit
def overlap(tap, centre, support):
    """The weight of the pixel `tap` in an antialiased, linear resize."""
    return tl.maximum(1.0 - tl.abs(tap.to(tl.float32) + 0.5 - centre) / support, 0.0)


@triton.jit
def place_images(
    images_NHWC,
    index_R,
    places_R8,
    flip_R,
    turn_R6,
    out,
    H: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Row r of the output is made from sample index_R[r]."""
    row = tl.program_id(0).to(tl.int64)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    channel = element % C
    x = element // C % WIDTH
    y = element // (C * WIDTH)
    within = y < HEIGHT
    if turn_R6 is not None:  # Pillow's fixed point of 16 bits: the nearest pixel of the image before it was rotated
        a = tl.load(turn_R6 + row * 6)
        b = tl.load(turn_R6 + row * 6 + 1)
        d = tl.load(turn_R6 + row * 6 + 3)
        e = tl.load(turn_R6 + row * 6 + 4)
        turned_x = (tl.load(turn_R6 + row * 6 + 2) + a * x + b * y) >> 16
        turned_y = (tl.load(turn_R6 + row * 6 + 5) + d * x + e * y) >> 16
        x = turned_x
        y = turned_y
        within = within & (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    if flip_R is not None:
        x = tl.where(tl.load(flip_R + row) != 0, WIDTH - 1 - x, x)
    place = places_R8 + row * 8
    top = tl.load(place)
    left = tl.load(place + 1)
    height = tl.load(place + 2)
    width = tl.load(place + 3)
    grid_y = tl.load(place + 4)
    grid_x = tl.load(place + 5)
    y = y + tl.load(place + 6)
    x = x + tl.load(place + 7)
    within = within & (y >= 0) & (y < grid_y) & (x >= 0) & (x < grid_x)
    scale_y = height.to(tl.float32) / grid_y.to(tl.float32)
    scale_x = width.to(tl.float32) / grid_x.to(tl.float32)
    support_y = tl.maximum(scale_y, 1.0)
    support_x = tl.maximum(scale_x, 1.0)
    centre_y = (y.to(tl.float32) + 0.5) * scale_y
    centre_x = (x.to(tl.float32) + 0.5) * scale_x
    low_y = tl.floor(centre_y - support_y + 0.5).to(tl.int32)
    low_x = tl.floor(centre_x - support_x + 0.5).to(tl.int32)
    taps_y = (2.0 * support_y).to(tl.int32) + 2
    taps_x = (2.0 * support_x).to(tl.int32) + 2
    source = images_NHWC + tl.load(index_R + row) * (H * W * C) + channel
    total = tl.zeros([BLOCK], tl.float32)
    weights = tl.zeros([BLOCK], tl.float32)
    for j in range(taps_y):
        weight_y = overlap(low_y + j, centre_y, support_y)
        source_y = top + tl.minimum(tl.maximum(low_y + j, 0), height - 1)
        for i in range(taps_x):
            weight = weight_y * overlap(low_x + i, centre_x, support_x)
            source_x = left + tl.minimum(tl.maximum(low_x + i, 0), width - 1)
            pixel = tl.load(source + (source_y * W + source_x) * C, mask=within & (weight > 0), other=0)
            total += weight * pixel.to(tl.float32)
            weights += weight
    value = tl.where(within, tl.floor(total / weights + 0.5), 0.0).to(tl.uint8)
    tl.store(out + row * (HEIGHT * WIDTH * C) + element, value, mask=element < HEIGHT * WIDTH * C)


def launch_places(
    images: Tensor,
    index: Tensor,
    places: Tensor,
    size: tuple[int, int],
    *,
    flip: Tensor | None = None,
    turn: Tensor | None = None,
) -> Tensor:
    """uint8 [R, *size, C]: the images that `places` name, on the current device and stream.

    Args:
        images: uint8 [N, H, W, C], contiguous.
        index: [R] int64, each in [0, N), which is not checked here.
        places: [R, 8] int32, contiguous: top, left, height and width of the part, which lies in the image; height and
            width that it is resized to; row and column in it at which the result begins. What lies outside is 0.
        flip: [R] int32, 1 to mirror the result.
        turn: [R, 6] int32, contiguous: the matrix of a rotation of the mirrored result, from its pixels to those before
            it, in 1 / 65536; the offsets hold the half pixel.
    """
    _, height, width, channels = images.shape
    out = torch.empty((len(index), *size, channels), dtype=torch.uint8, device=images.device)
    numbers = size[0] * size[1] * channels
    block, num_warps = geometry(numbers)
    place_images[(len(index), triton.cdiv(numbers, block))](
        images,
        index,
        places,
        flip,
        turn,
        out,
        H=height,
        W=width,
        C=channels,
        HEIGHT=size[0],
        WIDTH=size[1],
        BLOCK=block,
        num_warps=num_warps,
    )
    return out
