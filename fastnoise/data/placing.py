"""Which part of an image a sample shows, and how large: the geometry that all loaders share, and its random draws.

Everything here is a pure function of the augmentation, the images' sizes and the batch's keys, in NumPy.
"""

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .augment import Augmentation
from .images import image_size
from .table import ImageTable

PLACE, CROP, ROTATE, JITTER, RANDAUGMENT, AUTOAUGMENT = range(6)
"""What draws are for. Each purpose has a stream of its own, so that no word changes the draws of another."""

ATTEMPTS = 10
"""Parts that `resized_crop` draws before it takes the middle, as in torchvision."""


def uniforms(key: NDArray[np.uint64], purpose: int, count: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), [R, count], each a function of its row's key, the purpose and its place in the row.

    Philox4x32-7 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) with the counter
    (block, purpose, 0, 0).
    """
    from .. import _C

    return _C.uniforms(np.ascontiguousarray(key), purpose, count)


@dataclass(frozen=True, slots=True, eq=False)
class Placing:
    """Where each of R images is taken from."""

    part: NDArray[np.int32]
    """[R, 4]: the part of the source image that is resized: top, left, height, width."""
    grid: NDArray[np.int32]
    """[R, 2]: height and width that the part is resized to."""
    corner: NDArray[np.int32]
    """[R, 2]: row and column in the resized part at which the image begins. What lies outside is 0."""

    def row(self, number: int) -> tuple[list[int], list[int], list[int]]:
        """part, grid and corner of one image."""
        return self.part[number].tolist(), self.grid[number].tolist(), self.corner[number].tolist()

    def packed(self) -> NDArray[np.int32]:
        """part, grid and corner, [R, 8], contiguous."""
        return np.ascontiguousarray(np.concatenate([self.part, self.grid, self.corner], axis=1, dtype=np.int32))

    def region(self, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Begin and end, float32 [R, 2], of images of `size` within the source, on the scale of its pixels."""
        scale = self.part[:, 2:] / self.grid
        first = self.part[:, :2] + self.corner * scale
        last = self.part[:, :2] + (self.corner + np.array(size)) * scale
        last = np.minimum(last, self.part[:, :2] + self.part[:, 2:])  # which rounding could pass
        return first.astype(np.float32), last.astype(np.float32)


def place(
    augmentation: Augmentation,
    sizes: NDArray[np.int32],
    key: NDArray[np.uint64] | None,
    corner: NDArray[np.int32] | None,
) -> Placing:
    """Where images of these sizes, [R, 2], are taken from.

    Args:
        key: [R], of the draws; None if nothing is drawn here.
        corner: [R, 2], of the crop if it is drawn already, because all images have one size.
    """
    rows = len(sizes)
    part = np.concatenate([np.zeros_like(sizes), sizes], axis=1).astype(np.int32)
    if augmentation.resized_crop is not None:
        assert key is not None
        part = _random_parts(augmentation, sizes, uniforms(key, PLACE, 2 * ATTEMPTS + 2))
    grid = _grids(augmentation, part[:, 2:])
    size = np.array(augmentation.crop or grid[0])
    if augmentation.centred:
        room = grid - size
        corner = np.where(room < 0, -(-room // 2), np.rint(room / 2)).astype(np.int32)
    elif corner is None and augmentation.crop is not None:
        assert key is not None
        padding = augmentation.crop_padding
        room = grid + 2 * padding - size + 1
        corner = (np.floor(uniforms(key, CROP, 2) * room) - padding).astype(np.int32)
    elif corner is None:
        corner = np.zeros((rows, 2), np.int32)
    return Placing(part, grid, corner)


def _grids(augmentation: Augmentation, sizes: NDArray[np.int32]) -> NDArray[np.int32]:
    """`Augmentation.resized` of every row."""
    side = augmentation.resize
    if not isinstance(side, int):
        fixed = augmentation.resized_crop or side
        return sizes if fixed is None else np.broadcast_to(np.array(fixed, np.int32), sizes.shape)
    short = sizes.min(1, keepdims=True)
    return np.where(sizes == short, side, np.maximum(1, side * sizes.astype(np.int64) // short)).astype(np.int32)


def _random_parts(
    augmentation: Augmentation, sizes: NDArray[np.int32], drawn: NDArray[np.float64]
) -> NDArray[np.int32]:
    """The part of each image that `resized_crop` shows."""
    whole = sizes.astype(np.float64)
    (low, high), (narrow, wide) = augmentation.scale, augmentation.ratio
    area = whole.prod(1, keepdims=True) * (low + (high - low) * drawn[:, : 2 * ATTEMPTS : 2])
    spread = np.log(wide) - np.log(narrow)
    ratio = np.exp(np.log(narrow) + spread * drawn[:, 1 : 2 * ATTEMPTS : 2])
    found = np.rint(np.sqrt(np.stack([area / ratio, area * ratio], axis=-1)))  # [R, ATTEMPTS, 2]
    fits = ((found > 0) & (found <= whole[:, None])).all(-1)
    chosen = found[np.arange(len(sizes)), fits.argmax(1)]
    corner = np.floor(drawn[:, -2:] * (whole - chosen + 1))
    # If none fits: the largest part of an allowed ratio, from the middle.
    own = whole[:, 1] / whole[:, 0]
    height = np.where(own < narrow, np.rint(whole[:, 1] / narrow), whole[:, 0])
    width = np.where(own > wide, np.rint(whole[:, 0] * wide), whole[:, 1])
    largest = np.maximum(1, np.stack([height, width], axis=1))
    none = ~fits.any(1, keepdims=True)
    chosen = np.where(none, largest, chosen)
    corner = np.where(none, (whole - largest) // 2, corner)
    return np.concatenate([corner, chosen], axis=1).astype(np.int32)


class SourceSizes:
    """Heights and widths of a table's images, of files from their headers, which are read once.

    `common` is the size of all of them, where they have one or are resized to it first.
    """

    def __init__(self, table: ImageTable, common: tuple[int, int] | None) -> None:
        self._table, self._common = table, common
        self._known = np.zeros((len(table) if common is None else 0, 2), np.int32)

    def of(self, index: NDArray[np.int64], pool: Executor) -> NDArray[np.int32]:
        """int32 [B, 2]; DataError names a file whose size cannot be read."""
        table = self._table
        if self._common is not None:
            return np.broadcast_to(np.array(self._common, np.int32), (len(index), 2))
        unknown = index[self._known[index, 0] == 0]
        for i, size in zip(unknown, pool.map(lambda i: image_size(table.files[i], table.exif), unknown), strict=True):
            self._known[i] = size
        return self._known[index]
