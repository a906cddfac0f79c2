"""Batches of a resident loader that follow a position on the device: nothing of a batch comes from the host, so that a
captured graph makes the next batch whenever it is replayed."""

import numpy as np
import torch
from torch import Tensor

from .loaders import Loader
from .resident import ResidentLoader, on_device


def positioned_obstacle(loader: Loader) -> str | None:
    """Why the batches of a loader cannot follow a position on the device, in one line; None if they can."""
    if not isinstance(loader, ResidentLoader):
        return f"the {loader.name} loader makes batches on the host; take --loader resident"
    augmentation = loader.spec.plan.augmentation
    if augmentation.places or augmentation.recolours:
        return "its augmentation resizes or recolours images, in steps that the host draws; take crop, flip and cutout"
    return None


class PositionedBatches:
    """The batches of a resident loader, bit for bit, each made when it is asked for.

    What is drawn for an epoch lies on the device, at the same address in all epochs; so does the position. On the CPU
    the C++ core makes a batch, on CUDA the loader's kernel, on the current stream.

    Attributes:
        generation: how often that memory has been made anew, for an epoch longer than all before it. A graph that was
            captured before reads memory that is free.

    Args:
        loader: one without a `positioned_obstacle`.
    """

    def __init__(self, loader: ResidentLoader):
        spec = loader.spec
        self.loader, self.spec, self.batch_size = loader, spec, spec.plan.batch_size
        self.generation = 0
        device = spec.device
        self._images = on_device(spec.table, device) if device.type == "cuda" else None
        self._mean = torch.from_numpy(spec.mean).to(device)
        self._scale = torch.from_numpy(np.reciprocal(spec.std)).to(device)
        self._places = torch.arange(self.batch_size, device=device)
        """int64 [B], the places of the next batch's samples in the epoch."""
        self._index = torch.empty(0, dtype=torch.int64, device=device)
        """int64 [M], the epoch's samples in order."""
        self._draws: Tensor | None = None
        """int32 [views, M, 5], as `fastnoise.kernels.augment.launch` takes them."""

    def begin(self, epoch: int, start_batch: int = 0, order: np.ndarray | None = None) -> int:
        """Draw an epoch and go before its batch `start_batch`; returns the epoch's number of samples."""
        planned = self.spec.plan.batches(epoch, start_batch, order)
        whole = planned.draw()
        packed, count = whole.packed(), len(whole.index)
        if count > len(self._index):
            self.generation += 1
            self._index = self._index.new_empty(count)
            if packed is not None:
                shape = (len(packed), count, packed.shape[2])
                self._draws = torch.empty(shape, dtype=torch.int32, device=self._index.device)
        self._fill(self._index[:count], whole.index)
        if packed is not None:
            assert self._draws is not None
            for view, drawn in zip(self._draws, packed, strict=True):
                self._fill(view[:count], drawn)
        torch.arange(self.batch_size, out=self._places)
        self._places += start_batch * self.batch_size
        return count

    @staticmethod
    def _fill(tensor: Tensor, array: np.ndarray) -> None:
        source = torch.from_numpy(np.ascontiguousarray(array))
        tensor.copy_(source.pin_memory() if tensor.device.type == "cuda" else source, non_blocking=True)

    def next(self, size: int | None = None) -> tuple[Tensor, Tensor]:
        """The next batch, of `size` samples if it is the smaller last one: images and index, as the loader gives them.

        On CUDA it waits for nothing, and can be captured.
        """
        size = self.batch_size if size is None else size
        spec, places = self.spec, self._places[:size]
        index = self._index.index_select(0, places)
        if self._images is None:
            images = self._on_host(index.numpy(), int(places[0]))
        else:
            from ..kernels.augment import launch

            with torch.cuda.device_of(self._images):
                (images,) = launch(
                    self._images,
                    self._index,
                    self._draws,
                    self._mean,
                    self._scale,
                    first=0,
                    last=size,
                    batch=size,
                    views=spec.plan.views,
                    cutout=spec.plan.cutout,
                    dtype=spec.dtype,
                    start=places,
                )
        self._places += self.batch_size
        return images, index

    def _on_host(self, index: np.ndarray, first: int) -> Tensor:
        from .. import _C

        spec, table = self.spec, self.spec.table.images
        assert table is not None
        images = torch.empty((spec.plan.views * len(index), *spec.size, table.shape[3]))
        draws = None
        if self._draws is not None:
            draws = self._draws[:, first : first + len(index)].flatten(0, 1).contiguous().numpy()
        _C.augment(
            table,
            index,
            draws,
            self._mean.numpy(),
            self._scale.numpy(),
            images.numpy(),
            cutout=spec.plan.cutout,
            threads=spec.threads,
        )
        return images.permute(0, 3, 1, 2).to(spec.dtype)
