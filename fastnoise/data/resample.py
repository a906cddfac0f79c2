"""The part of an image that a sample shows, resized by Pillow: what the other loaders are measured by."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .augment import Augmentation, Size
from .placing import place


class Window(NamedTuple):
    """One dimension of an image that is cropped, resized and cropped again."""

    first: int
    last: int
    """Pixels first..last - 1 of the image are read."""
    before: int
    after: int
    """Times that the first and the last pixel are repeated in front and behind."""
    begin: float
    end: float
    """Of what is resized, counted from the first pixel with its repetitions."""
    start: int
    stop: int
    """Where the result lies in what comes out; the rest is 0."""

    @classmethod
    def of(cls, top: int, length: int, grid: int, corner: int, size: int) -> "Window":
        """From a placement: `size` pixels from `corner` on, of the part top, length resized to `grid`.

        A smaller image reads beyond its part: the border's pixel stands for those that are not there, as in DALI.
        Pillow by itself leaves them out and weighs the others more.
        """
        start, stop = min(max(-corner, 0), size), max(min(grid - corner, size), 0)
        scale = length / grid
        begin, end = (corner + start) * scale, (corner + stop) * scale
        reach = 0 if length == grid else math.ceil(max(scale, 1)) + 1
        low, high = math.floor(begin) - reach, math.ceil(end) + reach
        first, last = min(max(low, 0), length), max(min(high, length), 0)
        before, after = (first - low, high - last) if scale > 1 else (0, 0)
        offset = first - before
        return cls(
            top + first, top + last, before, after, begin - offset, min(end, length + after) - offset, start, stop
        )


def resampled(
    image: Image.Image | NDArray[np.uint8], part: list[int], grid: list[int], corner: list[int], size: Size
) -> NDArray[np.uint8]:
    """One image of a `Placing`, uint8 [H, W, C] of `size`; bilinear with antialiasing.

    Args:
        image: in mode RGB or L, or uint8 [H, W, C].
        part, grid, corner: its row of the placement.
    """
    rows, columns = (Window.of(part[d], part[d + 2], grid[d], corner[d], size[d]) for d in (0, 1))
    if isinstance(image, Image.Image):
        image = np.asarray(image.crop((columns.first, rows.first, columns.last, rows.last)))
    else:
        image = image[rows.first : rows.last, columns.first : columns.last]
    pixels = image if image.ndim == 3 else image[..., None]
    out = np.zeros((*size, pixels.shape[2]), np.uint8)
    inner = out[rows.start : rows.stop, columns.start : columns.stop]
    if not inner.size:
        return out
    if part[2:] == grid:
        inner[:] = pixels
        return out
    if rows.before or rows.after or columns.before or columns.after:
        pixels = np.pad(pixels, ((rows.before, rows.after), (columns.before, columns.after), (0, 0)), mode="edge")
    box = (columns.begin, rows.begin, columns.end, rows.end)
    # Colours together; Pillow takes two and four channels for something with alpha.
    for group in [slice(None)] if pixels.shape[2] == 3 else range(pixels.shape[2]):
        picture = Image.fromarray(np.ascontiguousarray(pixels[..., group]))
        inner[..., group] = np.asarray(picture.resize(inner.shape[1::-1], Image.Resampling.BILINEAR, box=box))
    return out


def evaluated(image: Image.Image | NDArray[np.uint8], augmentation: Augmentation) -> NDArray[np.uint8]:
    """One image as evaluation gives it to the network, uint8 [H, W, C]; of `augmentation` nothing is random."""
    height, width = (image.height, image.width) if isinstance(image, Image.Image) else image.shape[:2]
    where = place(augmentation, np.array([[height, width]], np.int32), None, None)
    return resampled(image, *where.row(0), augmentation.output_size((height, width)))
