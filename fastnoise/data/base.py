"""What all loaders share: their settings, and the rule that one epoch runs at a time."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from .images import open_rgb, read_image
from .placing import place
from .plan import Batch, Plan, PlannedEpoch
from .table import ImageTable


@dataclass(frozen=True, eq=False)
class LoaderSpec:
    """A loader's work, checked by `make_loader`."""

    table: ImageTable
    plan: Plan
    size: tuple[int, int]
    """Height and width of the images given out."""
    mean: np.ndarray
    """float32 [C], on the scale of the pixels, 0..255."""
    std: np.ndarray
    """float32 [C], likewise."""
    device: torch.device
    dtype: torch.dtype
    """Of the images given out."""
    threads: int

    @property
    def common(self) -> tuple[int, int] | None:
        """Height and width of all images before the augmentation; None for files of any size, which it resizes."""
        free = self.table.images is None and self.plan.augmentation.resizes
        return None if free else self.plan.source

    def decoded(self, position: int) -> Image.Image | np.ndarray:
        """An image file as the augmentation finds it, RGB: in its own size, or in the common one, uint8 [H, W, 3]."""
        file, exif = self.table.files[position], self.table.exif
        return open_rgb(file, exif) if self.common is None else read_image(file, self.common, exif)

    def places(self, batch: Batch, rows: int) -> np.ndarray:
        """int32 [rows, 8], `Placing.packed` of all images of a batch of a table in memory."""
        sizes = np.broadcast_to(np.array(self.plan.source, np.int32), (rows, 2))
        return place(self.plan.augmentation, sizes, batch.key, batch.corner).packed()


def upload(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Onto the device; to CUDA without a wait: torch keeps the pinned copy until it was read."""
    tensor = torch.from_numpy(array)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def aligned(part: torch.Tensor) -> torch.Tensor:
    """A batch of an epoch's int64 positions, or a copy. Kernels are compiled for the alignment of their tensors (16
    bytes or not), and a part that begins at an odd place would make them compile again."""
    return part.clone() if part.storage_offset() % 2 else part


def aligned_part(index: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Positions first..last - 1 of an epoch's, `aligned`."""
    return aligned(index[first:last])


def aligned_parts(index: torch.Tensor, first: int, last: int, size: int) -> Iterator[torch.Tensor]:
    """Positions first..last - 1 of an epoch's in batches of `size`, each `aligned` when its turn comes."""
    return map(aligned, index[first:last].split(size))


class BaseLoader(ABC):
    """Implements fastnoise.data.Loader on top of one method, `_produce`."""

    name: str

    def __init__(self, spec: LoaderSpec, reason: str) -> None:
        self.spec = spec
        self.reason = reason
        self.num_samples = spec.plan.num_samples
        self.batch_size = spec.plan.batch_size
        self.num_batches = spec.plan.num_batches
        self._running: Generator[tuple[torch.Tensor, torch.Tensor], None, None] | None = None

    @abstractmethod
    def _produce(self, planned: PlannedEpoch) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        """Turn planned batches into (images, index), images of any floating type. Frees what it holds when it ends or
        is closed."""

    def count_batches(self, order: np.ndarray | None = None) -> int:
        return self.spec.plan.count_batches(order)

    def epoch(
        self, epoch: int, start_batch: int = 0, order: np.ndarray | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self._run(self.spec.plan.batches(epoch, start_batch, order))

    def _run(self, planned: PlannedEpoch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self._stop()
        producer = self._running = self._produce(planned)
        try:
            for images, index in producer:
                yield images.to(self.spec.dtype), index
                if self._running is not producer:  # going on would end the caller's epoch early without a word
                    raise RuntimeError("this epoch was ended by a later epoch() or close() of the same loader")
        finally:
            producer.close()

    def _stop(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def close(self) -> None:
        self._stop()
