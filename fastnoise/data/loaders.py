"""The interface of all loaders, and the choice between them."""

from collections.abc import Iterator
from importlib import import_module
from typing import Protocol

import numpy as np
import torch

from ..checks import cpu_cores
from ..errors import ConfigError, DataError, nearest
from .augment import Augmentation
from .base import LoaderSpec
from .feature_loader import FeatureLoader
from .images import one_line
from .plan import Plan
from .resident import ResidentLoader, room, size_text
from .synthetic import SyntheticLoader
from .table import ImageTable
from .torch_loader import TorchLoader

LOADERS = ("auto", "dali", "resident", "synthetic", "torch")

DECODERS = ("pillow", "dali", "dali:cuda")
"""What decodes image files, and on which device."""

MOST_THREADS = 16
"""Of a loader that feeds a GPU, unless its user says otherwise."""

RESIDENT_SHARE = 0.5
"""Share of the device's free memory that images may take with "auto". Training needs the rest."""


class Loader(Protocol):
    """Turns a table into batches on a device, `(images, index)`.

    images: [V * B, C, H, W] of the loader's dtype in channels_last memory format. An image is augmented in the order of
    `Augmentation`, normalised as (pixel / 255 - mean) / std, then cutout is applied. View v of sample b is row
    v * B + b. Each view is augmented by itself; the first is the same as with one view. index: int64 [B], each sample's
    position in the table. The consumer may keep both.

    Batches depend only on (seed, epoch, position in the epoch). All loaders give the same batches, except "synthetic",
    whose images are noise.
    """

    name: str
    reason: str
    """The reason for choosing this loader, in one line."""
    num_samples: int
    batch_size: int
    num_batches: int
    """Of an epoch over all samples."""

    def count_batches(self, order: np.ndarray | None = None) -> int:
        """Batches of an epoch over all samples, or in this order."""

    def epoch(
        self, epoch: int, start_batch: int = 0, order: np.ndarray | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches of an epoch, from `start_batch` on.

        order: int64 [M], positions in the table, which replace the loader's own order and may repeat; ConfigError for a
        position outside the table. A repeated sample is augmented anew each time.

        You may stop at any point. One epoch runs at a time: the first batch of a new epoch ends an unfinished one,
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
    threads: int | None = None,
    views: int = 1,
    weak_views: int = 1,
    dtype: torch.dtype = torch.float32,
    shard: tuple[int, int] = (0, 1),
    share_batches: bool = False,
) -> Loader:
    """Build a loader over `table`. Frozen features have one of their own, which gives [V * B, D, 1, 1].

    kind: "dali"; "torch"; "resident" for images in an array, which on CUDA stays in device memory; "synthetic" for
        benchmarks, whose images are noise; or "auto". "auto" takes "resident" for an array (on CUDA only if it needs at
        most RESIDENT_SHARE of the free memory), else "dali" if it can be imported and serves the device, else "torch".
    mean, std: per channel, of pixels scaled to 0..1.
    augmentation: None leaves the images as they are. If it resizes, images come out in its own size, and files need
        none in common.
    drop_last: leave out the last batch if it is smaller than the others.
    image_size: files are resized to this many pixels squared, by default to the table's size.
    threads: DALI's worker threads, the torch loader's threads that decode files, or the maximum number of threads that
        the resident loader uses for a batch on the CPU. None: `default_threads`.
    views: images given of each sample, each augmented for itself.
    weak_views: of several views, the first so many have no RandAugment and no AutoAugment.
    dtype: of the images: float32, float16 or bfloat16.
    shard, share_batches: the samples of one of several processes, as `Plan` takes them.

    ConfigError if the loader cannot be used here, DataError for a table without samples. An explicit kind is never
    replaced by another.
    """
    device = torch.device(device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("the device is cuda but torch sees no CUDA device: choose cpu")
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    threads = default_threads(device) if threads is None else threads
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
        if augmentation is not None and augmentation.resizes:
            raise ConfigError(f"an image size of {image_size} and an augmentation that resizes: give one of them")
        size = [image_size, image_size]
    if augmentation is not None and augmentation.recolours and channels not in (1, 3):
        raise ConfigError(f"rotate, jitter, randaugment and autoaugment take images of 1 or 3 channels, not {channels}")
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ConfigError(f"images are float32, float16 or bfloat16, not {str(dtype).removeprefix('torch.')}")
    plan = Plan(
        len(table),
        batch_size,
        seed=seed,
        augmentation=augmentation,
        shuffle=shuffle,
        drop_last=drop_last,
        views=views,
        weak_views=weak_views,
        source=(size[0], size[1]),
        shard=shard,
        share_batches=share_batches,
    )
    if table.is_features and plan.augments:
        raise ConfigError("features have no pixels: train on them without crops, flips and cutout")
    scale = 1 if table.is_features else 255
    spec = LoaderSpec(
        table=table,
        plan=plan,
        size=plan.size,
        mean=(scale * np.asarray(mean)).astype(np.float32),
        std=(scale * np.asarray(std)).astype(np.float32),
        device=device,
        dtype=dtype,
        threads=threads,
    )
    kind, reason = _choose(kind, table, device, plan.augmentation)
    if kind == "dali":
        from .dali import DaliLoader

        return DaliLoader(spec, reason)
    if kind == "features":
        return FeatureLoader(spec, reason, RESIDENT_SHARE)
    if kind == "resident":
        return ResidentLoader(spec, reason)
    if kind == "synthetic":
        return SyntheticLoader(spec, reason)
    return TorchLoader(spec, reason)


def default_threads(device: torch.device) -> int:
    """The threads of a loader for this device: all cores, up to MOST_THREADS, if they feed a GPU. On a CPU the network
    needs the cores, and 2 threads are enough to stay ahead of it."""
    return min(cpu_cores(), MOST_THREADS if device.type == "cuda" else 2)


def _choose(
    kind: str, table: ImageTable, device: torch.device, augmentation: Augmentation | None = None
) -> tuple[str, str]:
    """Resolve "auto", and say why."""
    if kind not in LOADERS:
        raise ConfigError(f"unknown loader {kind!r}: {nearest(kind, list(LOADERS))}")
    if kind == "synthetic":
        return kind, "synthetic was asked for: the images are noise, to measure training without loading"
    if table.is_features and table.images is not None:
        if kind == "dali":
            raise ConfigError("the dali loader makes batches of images, and these are features; drop --loader")
        return "features", f"features in memory ({size_text(table.images.nbytes)}) are gathered"
    if kind == "torch":
        return kind, "torch was asked for"
    if kind == "resident":
        if obstacle := _resident_obstacle(table, device, augmentation):
            raise ConfigError(f"the resident loader cannot be used: {obstacle}; choose the dali or torch loader")
        return kind, "resident was asked for"
    if kind == "dali":
        if obstacle := _dali_obstacle(device):
            raise ConfigError(f"the dali loader cannot be used: {obstacle}; choose the torch loader")
        return kind, "dali was asked for"
    obstacle = _resident_obstacle(table, device, augmentation)
    if table.images is not None and not obstacle:
        size = size_text(table.images.nbytes)
        if device.type == "cpu":
            return "resident", f"images in memory ({size}) are augmented fastest by the C++ core"
        free = room(table, device)
        if table.images.nbytes <= RESIDENT_SHARE * free:
            return "resident", f"the images ({size}) fit into the device's free memory ({size_text(free)})"
        obstacle = f"the images ({size}) take more than {RESIDENT_SHARE:.0%} of the device's free {size_text(free)}"
    without = _dali_obstacle(device)
    return ("torch", f"{obstacle}; {without}") if without else ("dali", f"{obstacle}; DALI is installed")


def decoder(kind: str, table: ImageTable, device: torch.device) -> str:
    """What decodes and resizes a table's files under a loader of this kind: pillow, dali, or dali:cuda on a GPU.

    Their decoded pixels are the same, but resized ones differ by up to two of 255 levels.
    """
    if table.images is not None or _choose(kind, table, device)[0] != "dali":
        return "pillow"
    return "dali:cuda" if device.type == "cuda" else "dali"


def without_decoder(name: str, device: torch.device) -> str:
    """Why what `decoder` names cannot decode for networks on this device, or nothing."""
    if name == "dali:cuda" and device.type != "cuda":
        return f"the networks are on the device {device.type}"
    return "" if name == "pillow" else _dali_obstacle(torch.device("cuda" if name == "dali:cuda" else "cpu"))


def _resident_obstacle(table: ImageTable, device: torch.device, augmentation: Augmentation | None) -> str:
    """Why the resident loader cannot serve this table and device, or nothing. Whether there is room is not asked."""
    if table.images is None:
        return "images in files are not held in memory"
    if device.type not in ("cpu", "cuda"):
        return f"the resident loader serves the devices cpu and cuda, not {device.type}"
    if device.type == "cuda" and augmentation is not None and augmentation.strong:
        return "on CUDA it has no RandAugment and no AutoAugment"
    if device.type == "cuda":
        try:
            import_module("triton")
        except (ImportError, OSError) as error:
            return f"Triton cannot be imported ({one_line(error)})"
    return ""


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
