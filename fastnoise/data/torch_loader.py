"""The loader that needs nothing but NumPy, Pillow and torch."""

from collections.abc import Generator, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from .base import BaseLoader, LoaderSpec
from .images import read_image
from .placing import SourceSizes, place
from .plan import Batch, PlannedEpoch
from .recolour import recolour
from .resample import resampled

T = TypeVar("T")


def prefetch(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Make `items` in a thread of their own, at most `depth` ahead of the consumer.

    What goes wrong in the thread is raised here. The thread ends when this generator does.
    """
    ready: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    slots = Semaphore(depth)
    stopped = False

    def work() -> None:
        try:
            iterator = iter(items)
            while True:
                slots.acquire()
                if stopped:
                    return
                ready.put((next(iterator), None))
        except BaseException as error:  # StopIteration too: it tells the consumer that this is all
            ready.put((None, error))

    thread = Thread(target=work, name="fastnoise-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
            del item
            slots.release()
    finally:
        stopped = True
        slots.release()
        thread.join()


def crop_and_flip(pixels: np.ndarray, corner: np.ndarray | None, flip: np.ndarray | None, padding: int) -> np.ndarray:
    """Crop uint8 [B, H, W, C] out of its zero-padded self at `corner`, then mirror where `flip` is 1.

    Returns a new array of the same shape, or `pixels` itself where there is nothing to do.
    """
    count, height, width, channels = pixels.shape
    if corner is not None:
        padded = np.zeros((count, height + 2 * padding, width + 2 * padding, channels), dtype=np.uint8)
        padded[:, padding : padding + height, padding : padding + width] = pixels
        windows = sliding_window_view(padded, (height, width), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
        pixels = windows[np.arange(count), corner[:, 0] + padding, corner[:, 1] + padding]
    if flip is not None:
        chosen = np.flatnonzero(flip)
        plain = pixels[chosen]
        mirrored = np.empty_like(plain)
        for channel in range(channels):  # five times as fast as one reversed copy, whose inner loop is C long
            mirrored[..., channel] = plain[:, :, ::-1, channel]
        pixels[chosen] = mirrored
    return pixels


def in_hole(hole: np.ndarray, side: int, size: tuple[int, int]) -> np.ndarray:
    """bool [B, H, W]: the pixels within the square of `side` that begins at `hole`."""
    inside = [
        (pixel >= first[:, None]) & (pixel < first[:, None] + side)
        for pixel, first in zip(map(np.arange, size), hole.T, strict=True)
    ]
    return inside[0][:, :, None] & inside[1][:, None, :]


class Finish:
    """The last steps, on the host and on the device, of batches of uint8 that are cropped and flipped.

    On the CPU the host's thread also normalises, in NumPy: torch there would start a second set of OpenMP threads
    beside the training's. For other devices uint8 is what travels (pinned for CUDA), a quarter of the bytes, and torch
    normalises it there.
    """

    def __init__(self, spec: LoaderSpec) -> None:
        self.spec = spec
        self._constants = [np.tile(row, spec.size[1]) for row in (spec.mean, 1 / spec.std)]
        self._device_constants = [torch.from_numpy(row).to(spec.device) for row in self._constants]

    def on_host(self, batch: Batch, pixels: np.ndarray, pool: Executor) -> list[torch.Tensor]:
        """From uint8 [V * B, H, W, C], which is written to, to what `on_device` takes."""
        device, plan = self.spec.device, self.spec.plan
        if plan.augmentation.recolours:
            assert batch.key is not None
            recolour(pixels, plan.augmentation, batch.key, plan.weak_rows(len(pixels)), pool)
        cut = [] if batch.hole is None else [in_hole(batch.hole, plan.cutout, self.spec.size)]
        if device.type == "cpu":
            pixels = normalise(pixels.astype(np.float32), *self._constants)
            for mask in cut:
                pixels[mask] = 0
            cut = []
        parts = [torch.from_numpy(part) for part in (pixels, batch.index, *cut)]
        return [part.pin_memory() for part in parts] if device.type == "cuda" else parts

    def on_device(self, parts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [V * B, C, H, W] in channels_last, and their samples [B]."""
        images, index, *cut = (part.to(self.spec.device, non_blocking=True) for part in parts)
        if self.spec.device.type != "cpu":
            images = normalise(images.float(), *self._device_constants)
        for mask in cut:
            images.masked_fill_(mask[..., None], 0)
        return images.permute(0, 3, 1, 2), index


class TorchLoader(BaseLoader):
    """Gathers, crops and flips whole batches of uint8 in a thread of its own, then finishes them (`Finish`). `threads`
    decode image files.
    """

    name = "torch"

    def __init__(self, spec: LoaderSpec, reason: str) -> None:
        super().__init__(spec, reason)
        self._finish = Finish(spec)
        self._sizes = SourceSizes(spec.table, spec.common)

    def _produce(self, planned: PlannedEpoch) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        def on_host(batch: Batch) -> list[torch.Tensor]:
            return self._finish.on_host(batch, self._pixels(batch, pool), pool)

        with (
            ThreadPoolExecutor(self.spec.threads) as pool,
            closing(prefetch(map(on_host, planned), depth=2)) as ready,
        ):
            yield from map(self._finish.on_device, ready)

    def _pixels(self, batch: Batch, pool: Executor) -> np.ndarray:
        """uint8 [V * B, H, W, C], cropped and flipped."""
        table, plan = self.spec.table, self.spec.plan
        if plan.augmentation.places:
            return crop_and_flip(self._placed(batch, pool), None, batch.flip, 0)
        if table.images is None:
            files = [table.files[i] for i in batch.index]
            read = partial(read_image, size=plan.source, exif=table.exif)
            pixels = np.stack(list(pool.map(read, files)))
        else:
            pixels = table.images[batch.index]
        if plan.views > 1:
            pixels = np.concatenate([pixels] * plan.views)
        return crop_and_flip(pixels, batch.corner, batch.flip, plan.crop_padding)

    def _placed(self, batch: Batch, pool: Executor) -> np.ndarray:
        """uint8 [V * B, H, W, C], each the part of its image that the augmentation shows."""
        spec, count = self.spec, len(batch.index)
        table, size, views = spec.table, spec.size, spec.plan.views
        sizes = np.tile(self._sizes.of(batch.index, pool), (views, 1))
        where = place(spec.plan.augmentation, sizes, batch.key, batch.corner)
        pixels = np.empty((views * count, *size, table.shape[0]), np.uint8)

        def make(sample: int) -> None:
            position = batch.index[sample]
            image = self._image(position)
            for row in range(sample, len(pixels), count):
                pixels[row] = resampled(image, *where.row(row), size)

        for _ in pool.map(make, range(count)):
            pass
        return pixels

    def _image(self, position: int) -> Image.Image | np.ndarray:
        """An image as the augmentation finds it."""
        images = self.spec.table.images
        return self.spec.decoded(position) if images is None else images[position]


def normalise(pixels: Any, mean: Any, scale: Any) -> Any:
    """(pixels - mean) * scale in place, for an array or a tensor [B, H, W, C] and rows of W * C constants.

    Whole rows, because loops over the C channels of single pixels are too short to run as vectors.
    """
    rows = pixels.reshape(-1, len(mean))
    rows -= mean
    rows *= scale
    return pixels
