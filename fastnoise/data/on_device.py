"""What the resident loader does to images in device memory besides crops, flips and cutouts, as Pillow does it."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .augment import Size

LUMA = (19595, 38470, 7471)
"""Of red, green and blue, in 1 / 65536: Pillow's conversion to grey (ITU-R 601-2)."""


def rotations(angle: NDArray[np.float64], size: Size) -> NDArray[np.int32]:
    """The matrices, [R, 6] in 1 / 65536, by which `Image.rotate` finds the nearest pixel; angles in degrees.

    As in Pillow: rotation about the middle, then its C code's fixed point. ImageOps' short ways for multiples of 90
    degrees give the same pixels of square images.
    """
    height, width = size
    turned = -np.radians(angle % 360)
    cosine, sine = np.round(np.cos(turned), 15), np.round(np.sin(turned), 15)
    middle_x, middle_y = width / 2, height / 2
    right = cosine * -middle_x + sine * -middle_y + middle_x
    down = -sine * -middle_x + cosine * -middle_y + middle_y
    matrix = [
        cosine,
        sine,
        right + cosine * 0.5 + sine * 0.5,
        -sine,
        cosine,
        down - sine * 0.5 + cosine * 0.5,
    ]
    return np.floor(np.stack(matrix, axis=1) * 65536 + 0.5).astype(np.int32)


def jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation of uint8 [R, H, W, C] times factors, float32 [R, 3]; C is 1 or 3."""
    light, contrast, colour = (factors[:, column].view(-1, 1, 1, 1) for column in range(3))
    pixels = _blend(0, images.int(), light)
    mean = _grey(pixels).flatten(1).sum(1).double() / math.prod(pixels.shape[1:3])
    pixels = _blend((mean + 0.5).int().view(-1, 1, 1, 1), pixels, contrast)
    if pixels.shape[3] == 3:
        pixels = _blend(_grey(pixels), pixels, colour)
    return pixels.to(torch.uint8)


def _blend(first: Tensor | int, second: Tensor, share: Tensor) -> Tensor:
    """Pillow's `Image.blend`, which cuts fractions off."""
    return (first + share * (second - first)).clamp(0, 255).int()


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[3] == 1:
        return pixels
    luma = torch.tensor(LUMA, dtype=torch.int32, device=pixels.device)
    return ((pixels * luma).sum(3, keepdim=True, dtype=torch.int32) + 0x8000) >> 16
