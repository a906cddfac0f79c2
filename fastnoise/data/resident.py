"""The loader of tables that fit in memory: on CUDA in the device's, with one kernel for hundreds of batches."""

import weakref
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import groupby

import numpy as np
import torch

from ..checks import free_memory
from ..errors import ConfigError
from .base import BaseLoader, LoaderSpec, aligned_parts, upload
from .on_device import jitter, rotations
from .plan import Batch, PlannedEpoch
from .recolour import angles, jitter_factors, recolour
from .table import ImageTable
from .torch_loader import crop_and_flip, prefetch

_uploaded: "weakref.WeakKeyDictionary[ImageTable, weakref.WeakValueDictionary[torch.device, torch.Tensor]]" = (
    weakref.WeakKeyDictionary()
)
"""Tables in device memory while a loader holds them: several loaders of one table share it."""

PART_BYTES = 2**29
"""The most that the batches of one launch take of a CUDA device's memory: a whole epoch of CIFAR in bfloat16."""

PART_SHARE = 1 / 16
"""Of the device's free memory: the most that they take where that is less. While a consumer holds the last batch of one
launch and takes the first of the next, both are there."""


def size_text(size: float) -> str:
    """Bytes as people say them."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def room(table: ImageTable, device: torch.device) -> int:
    """Bytes of CUDA memory that the table can take, or has taken already."""
    if device in _uploaded.get(table, ()):
        assert table.images is not None
        return (free_memory(device) or 0) + table.images.nbytes
    return free_memory(device) or 0


def on_device(table: ImageTable, device: torch.device) -> torch.Tensor:
    """The table's images on the device, uploaded if they are not there; ConfigError if they don't fit."""
    assert table.images is not None
    tables = _uploaded.setdefault(table, weakref.WeakValueDictionary())
    images = tables.get(device)
    if images is None:
        free = (free_memory(device) or 0) if device.type == "cuda" else table.images.nbytes
        if table.images.nbytes > free:
            raise ConfigError(
                f"the resident loader keeps all images on the device: {size_text(table.images.nbytes)}, of which "
                f"{size_text(free)} are free; choose the dali or torch loader"
            )
        images = tables[device] = torch.from_numpy(table.images).to(device)
    return images


class ResidentLoader(BaseLoader):
    """Makes each batch from the table in memory in one pass.

    On CUDA the uint8 table lies on the device. An epoch's order, crops, flips and cutouts are drawn and uploaded when
    it begins; from then on one kernel, launched on torch's current stream with no copy and no wait, makes as many
    batches as PART_BYTES and PART_SHARE allow, and a batch is a view of them: a few microseconds of Python, where a
    launch takes 40. A batch that is kept keeps the others of its launch. Take an epoch's batches on one stream. On the
    CPU the C++ core does the work, batch by batch, in a thread of its own that stays ahead of the consumer.
    """

    name = "resident"

    def __init__(self, spec: LoaderSpec, reason: str) -> None:
        super().__init__(spec, reason)
        self._mean, self._scale = spec.mean, np.reciprocal(spec.std)
        self._images = on_device(spec.table, spec.device) if spec.device.type == "cuda" else None

    def _produce(self, planned: PlannedEpoch) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        return self._on_device(planned) if self.spec.device.type == "cuda" else self._on_host(planned)

    def _on_device(self, planned: PlannedEpoch) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        from ..kernels.augment import launch

        spec = self.spec
        if self._images is None:  # freed by close()
            self._images = on_device(spec.table, spec.device)
        if spec.plan.augmentation.places or spec.plan.augmentation.recolours:
            yield from self._placed(planned)
            return
        whole = planned.draw()
        packed = whole.packed()
        images, index = self._images, upload(whole.index, spec.device)
        draws = None if packed is None else upload(packed, spec.device)
        mean, scale = upload(self._mean, spec.device), upload(self._scale, spec.device)
        for first, last, size in self._parts(planned):
            with torch.cuda.device_of(images):
                made = launch(
                    images,
                    index,
                    draws,
                    mean,
                    scale,
                    first=first,
                    last=last,
                    batch=size,
                    views=spec.plan.views,
                    cutout=spec.plan.cutout,
                    dtype=spec.dtype,
                )
            yield from zip(made, aligned_parts(index, first, last, size), strict=True)
            del made  # what nobody keeps is free for the next launch

    def _placed(self, planned: PlannedEpoch) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        """The same for what needs more than crops of an image's own size: uint8 images are made first, in the order of
        the batches, and take the place of the table."""
        from ..kernels.augment import launch
        from ..kernels.place import launch_places

        spec, images = self.spec, self._images
        assert images is not None
        augmentation, views = spec.plan.augmentation, spec.plan.views
        whole = planned.draw()
        index, mean, scale = (upload(part, spec.device) for part in (whole.index, self._mean, self._scale))
        for first, last, size in self._parts(planned):
            batch = whole.part(first, last, size, views)
            turn = None
            if augmentation.rotate:
                assert batch.key is not None
                turn = upload(rotations(angles(augmentation, batch.key), spec.size), spec.device)
            with torch.cuda.device_of(images):
                made = launch_places(
                    images,
                    upload(batch.index, spec.device),
                    upload(spec.places(batch, len(batch.index)), spec.device),
                    spec.size,
                    flip=None if batch.flip is None else upload(batch.flip, spec.device),
                    turn=turn,
                )
                if augmentation.jitter:
                    assert batch.key is not None
                    factors = jitter_factors(augmentation, batch.key).astype(np.float32)
                    made = jitter(made, upload(factors, spec.device))
                holes = None if batch.hole is None else replace(batch, corner=None, flip=None).packed()
                finished = launch(
                    made,
                    torch.arange(len(made), device=spec.device),
                    None if holes is None else upload(holes[None], spec.device),
                    mean,
                    scale,
                    first=0,
                    last=len(made),
                    batch=views * size,
                    cutout=spec.plan.cutout,
                    dtype=spec.dtype,
                )
            del made
            yield from zip(finished, aligned_parts(index, first, last, size), strict=True)
            del finished

    def _parts(self, planned: PlannedEpoch) -> Iterator[tuple[int, int, int]]:
        """What each launch makes: the positions first..last - 1 of the epoch, in batches of so many samples."""
        from ..kernels.augment import bytes_of

        spec = self.spec
        free = free_memory(spec.device)
        memory = PART_BYTES if free is None else min(PART_BYTES, PART_SHARE * free)
        if spec.plan.augmentation.jitter:
            memory /= 8  # its sums are of 32 bits, and several are there at once
        numbers = spec.size[0] * spec.size[1] * spec.table.shape[0]
        for size, group in groupby(planned.spans(), lambda span: span[1] - span[0]):
            spans = list(group)
            most = max(1, int(memory / bytes_of(spec.plan.views * size, numbers, spec.dtype)))
            for start in range(0, len(spans), most):
                part = spans[start : start + most]
                yield part[0][0], part[-1][1], size

    def _on_host(self, planned: PlannedEpoch) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        from .. import _C

        spec = self.spec
        table = spec.table.images
        assert table is not None
        augmentation = spec.plan.augmentation

        def make(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
            rows = spec.plan.views * len(batch.index)
            images = torch.empty((rows, *spec.size, table.shape[3]))
            source, index, draws = table, batch.index, batch.packed()
            if augmentation.places or augmentation.recolours:
                source, index = np.empty(images.shape, np.uint8), np.arange(rows)
                _C.resample(table, batch.index, spec.places(batch, rows), source, threads=spec.threads)
                if draws is not None:
                    draws[:, :2] = 0  # the crop is done
            if augmentation.recolours:
                assert batch.key is not None
                source = crop_and_flip(source, None, batch.flip, 0)
                if draws is not None:
                    draws[:, 2] = 0  # and the flip
                recolour(source, augmentation, batch.key, spec.plan.weak_rows(len(source)), pool)
            _C.augment(
                source,
                index,
                draws,
                self._mean,
                self._scale,
                images.numpy(),
                cutout=spec.plan.cutout,
                threads=spec.threads,
            )
            return images.permute(0, 3, 1, 2), torch.from_numpy(batch.index)

        with (
            ThreadPoolExecutor(spec.threads) as pool,
            closing(prefetch(map(make, planned), depth=2)) as ready,
        ):
            yield from ready

    def close(self) -> None:
        super().close()
        self._images = None
