"""One contract for every loader, and the choice between them."""

from collections.abc import Iterator
from importlib import import_module
from typing import Protocol

import numpy as np
import torch

from ..errors import ConfigError, DataError, nearest
from .base import LoaderSpec
from .images import one_line
from .plan import Augmentation, Plan
from .table import ImageTable

LOADERS = ("auto", "dali", "torch")


class Loader(Protocol):
    """Turns a table into batches on a device, `(images, index)`.

    images: float32 [B, C, H, W] in channels_last memory format: cropped out of the zero-padded image, flipped, then
    (pixel / 255 - mean) / std. index: int64 [B], each sample's position in the table. Both are the consumer's to keep.

    Batches are a pure function of (seed, epoch, position in the epoch), and every loader gives the same ones.
    """

    name: str
    reason: str
    """Why this loader was chosen, in one line."""
    num_samples: int
    batch_size: int
    num_batches: int
    """Of an epoch."""

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches of an epoch, from `start_batch` on.

        May be abandoned at any point. One epoch runs at a time: the first batch of a new one ends an unfinished one,
        whose iterator then raises RuntimeError. DataError names an image that cannot be decoded.
        """

    def close(self) -> None:
        """Free threads and buffers. Batches given out stay valid, and epoch() may be called again."""


def make_loader(
    kind: str,
    table: ImageTable,
    *,
    batch_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device | str,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    shuffle: bool = False,
    drop_last: bool = False,
    image_size: int | None = None,
    threads: int = 2,
) -> Loader:
    """Build a loader over `table`.

    kind: "dali", "torch", or "auto", which takes DALI where it can be imported and serves the device.
    mean, std: per channel, of pixels scaled to 0..1.
    augmentation: None gives the images as they are, for evaluation.
    drop_last: leave out the last batch where it is smaller than the others.
    image_size: files are resized to this many pixels squared, by default to the table's size.
    threads: DALI's worker threads, or the torch loader's threads that decode files.

    ConfigError for what cannot be served; an explicit kind is never replaced by another.
    """
    device = torch.device(device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("the device is cuda but torch sees no CUDA device: choose cpu")
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    if threads < 1:
        raise ConfigError(f"a loader needs at least 1 thread, not {threads}")
    if len(table) == 0:
        raise DataError("there are no samples to load")
    channels, *size = table.shape
    if not len(mean) == len(std) == channels:
        raise ConfigError(f"{len(mean)} means and {len(std)} standard deviations for images of {channels} channels")
    if min(std) <= 0:
        raise ConfigError(f"the standard deviations must be positive, not {min(std)}")
    if image_size is not None:
        if image_size < 1:
            raise ConfigError(f"the image size must be at least 1 pixel, not {image_size}")
        if table.images is not None and size != [image_size, image_size]:
            raise ConfigError(f"only image files are resized: these images are {size[0]} x {size[1]} already")
        size = [image_size, image_size]
    spec = LoaderSpec(
        table=table,
        plan=Plan(len(table), batch_size, seed=seed, augmentation=augmentation, shuffle=shuffle, drop_last=drop_last),
        size=(size[0], size[1]),
        mean=(255 * np.asarray(mean)).astype(np.float32),
        std=(255 * np.asarray(std)).astype(np.float32),
        device=device,
        threads=threads,
    )
    kind, reason = _choose(kind, device)
    if kind == "dali":
        from .dali import DaliLoader

        return DaliLoader(spec, reason)
    from .torch_loader import TorchLoader

    return TorchLoader(spec, reason)


def _choose(kind: str, device: torch.device) -> tuple[str, str]:
    """Resolve "auto", and say why."""
    if kind not in LOADERS:
        raise ConfigError(f"unknown loader {kind!r}: {nearest(kind, list(LOADERS))}")
    if kind == "torch":
        return kind, "torch was asked for"
    obstacle = _dali_obstacle(device)
    if kind == "dali":
        if obstacle:
            raise ConfigError(f"the dali loader cannot be used: {obstacle}; choose the torch loader")
        return kind, "dali was asked for"
    return ("torch", obstacle) if obstacle else ("dali", "DALI is installed")


def _dali_obstacle(device: torch.device) -> str:
    """Why DALI cannot serve this device, or nothing."""
    if device.type not in ("cpu", "cuda"):
        return f"DALI serves the devices cpu and cuda, not {device.type}"
    try:
        import_module("nvidia.dali")
    except ModuleNotFoundError:
        return "DALI is not installed (pip install nvidia-dali-cuda130, on Linux)"
    except (ImportError, OSError) as error:
        return f"DALI cannot be imported ({one_line(error)})"
    return ""
