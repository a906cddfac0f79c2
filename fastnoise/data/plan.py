"""What every loader does in an epoch: which samples come in which batch, and how each is cropped and flipped.

All of it is drawn here, by NumPy, as a pure function of (seed, epoch), so that every loader gives the same batches and
an epoch can be entered at any batch. Loaders draw nothing themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError


@dataclass(frozen=True)
class Augmentation:
    """Random crop of the image padded with zeros, then random horizontal flip."""

    crop_padding: int
    """Pixels of padding on each side; the crop has the image's own size, and each of the (2 * crop_padding + 1)^2
    offsets is equally likely. 0: no crop."""
    flip: bool
    """Mirror each image with probability one half."""

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise ConfigError(f"the crop padding must be 0 or more pixels, not {self.crop_padding}")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What to do for one batch of B samples."""

    index: np.ndarray
    """int64 [B], positions in the table."""
    corner: np.ndarray | None
    """int32 [B, 2], row and column in the unpadded image at which the crop begins, -P..P. None: no crop."""
    flip: np.ndarray | None
    """int32 [B], 1 where the image is mirrored. None: no flips."""


class Plan:
    """The batches of every epoch over `num_samples` samples.

    Each sample comes once per epoch. All batches are full but the last, which is smaller where `batch_size` does not
    divide the number of samples, or left out with `drop_last`. ConfigError for a batch size that gives no batch.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"the batch size must be at least 1, not {batch_size}")
        if not 0 <= seed < 2**64:
            raise ConfigError(f"the seed must be between 0 and 2^64 - 1, not {seed}")
        if drop_last and num_samples < batch_size:
            raise ConfigError(f"dropping the last batch leaves none: {num_samples} samples, batch size {batch_size}")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.num_batches = num_samples // batch_size if drop_last else -(-num_samples // batch_size)
        self.seed = seed
        self.shuffle = shuffle
        self.crop_padding = augmentation.crop_padding if augmentation else 0
        self.flips = augmentation.flip if augmentation else False

    def batches(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start_batch` on; ConfigError where the epoch has no such batch."""
        if epoch < 0 or not 0 <= start_batch <= self.num_batches:
            raise ConfigError(f"no batch {start_batch} in epoch {epoch}: an epoch has {self.num_batches} batches")
        return self._batches(epoch, start_batch)

    def _batches(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        count, padding = self.num_samples, self.crop_padding
        # One stream per purpose, so that the crops of a seed do not depend on whether the order is shuffled.
        orders, crops, flips = (
            np.random.Generator(
                np.random.Philox(key=np.array([self.seed, epoch], dtype=np.uint64), counter=[0, 0, 0, purpose])
            )
            for purpose in range(3)
        )
        order = orders.permutation(count) if self.shuffle else np.arange(count)
        corner = crops.integers(-padding, padding, (count, 2), dtype=np.int32, endpoint=True) if padding else None
        flip = flips.integers(0, 2, count, dtype=np.int32) if self.flips else None
        for first in range(start_batch * self.batch_size, self.num_batches * self.batch_size, self.batch_size):
            index = order[first : first + self.batch_size]
            yield Batch(index, None if corner is None else corner[index], None if flip is None else flip[index])
