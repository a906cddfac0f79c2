"""What is trained in a benchmark: images, wrong labels, a network and a batch size."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastnoise import noise
from fastnoise.data import Augmentation, ImageTable, load_dataset
from fastnoise.errors import ConfigError, DataError, nearest
from fastnoise.models import MODELS

STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of ImageNet, for generated images in colour."""

_GENERATED = {"mnist": (28, 28, 1, 10), "cifar10": (32, 32, 3, 10), "cifar100": (32, 32, 3, 100)}
_NETWORK = {"digits": "small_cnn", "mnist": "lenet5"}


@dataclass(frozen=True, eq=False)
class Workload:
    """A training set with 40 % of its labels wrong, and the network that learns it."""

    name: str
    source: str
    """Where the images come from, in words."""
    table: ImageTable
    labels: np.ndarray
    """int64 [N], the given labels."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    augmentation: Augmentation
    model: str
    batch_size: int
    width: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.table.shape

    @property
    def key(self) -> str:
        width = "" if self.width == 1 else f"x{self.width:g}"
        return f"{self.name}-{self.model}{width}-b{self.batch_size}"


def make_workload(
    dataset: str, data_root: Path, *, model: str | None = None, batch_size: int = 128, width: float = 1.0
) -> Workload:
    """A data set under `data_root` or, where it is not there, generated images of the same number and form.

    Nothing is downloaded. ConfigError for unknown names.
    """
    known = ("digits", *_GENERATED)
    if dataset not in known:
        raise ConfigError(f"unknown dataset {dataset!r}; {nearest(dataset, list(known))}")
    model = model or _NETWORK.get(dataset, "resnet34")
    if model not in MODELS:
        raise ConfigError(f"unknown model {model!r}; {nearest(model, list(MODELS))}")
    try:
        found = load_dataset(dataset, data_root, download=False)
        table, source, mean, std = found.train, f"the images of {dataset}", found.mean, found.std
        num_classes = found.num_classes
    except DataError:
        height, width_, channels, num_classes = _GENERATED[dataset]
        count = 60_000 if dataset == "mnist" else 50_000
        table = generated((count, height, width_, channels), num_classes)
        source = f"generated images in the form of {dataset}, which is not under {data_root}"
        mean, std = (tuple(row[:channels]) for row in STATISTICS)
    if len(table) < batch_size:
        raise ConfigError(f"a batch of {batch_size} images, but {dataset} has {len(table)}; lower the batch size")
    in_colour = table.shape[0] == 3
    augmentation = Augmentation(4, True) if in_colour else Augmentation(0, False)
    return Workload(
        dataset, source, table, noisy(table.labels, num_classes), mean, std, num_classes, augmentation, model,
        batch_size, width,
    )  # fmt: skip


def generated(shape: tuple[int, int, int, int], num_classes: int) -> ImageTable:
    """Random images uint8 [N, H, W, C] with random labels."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, shape, dtype=np.uint8)
    return ImageTable(random.integers(0, num_classes, shape[0]), images=images)


def noisy(labels: np.ndarray, num_classes: int) -> np.ndarray:
    return noise.corrupt(labels, "symmetric:0.4", seed=0, num_classes=num_classes).labels


def jpeg_folder(folder: Path, count: int, side: int, num_classes: int) -> ImageTable:
    """Write `count` smooth random JPEG files of side x side pixels and return their table.

    Noise enlarged eightfold has about the bytes per pixel of a photograph; white noise has several times as many, and
    decoding takes as much longer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random, files = np.random.default_rng(0), []
    for number in range(count):
        small = random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        files.append(folder / f"{number:05}.jpg")
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return ImageTable(random.integers(0, num_classes, count), files=tuple(map(str, files)))


def images_workload(table: ImageTable, source: str, name: str, model: str, batch_size: int, classes: int) -> Workload:
    """A workload on a table made here: generated images or a folder of files."""
    mean, std = STATISTICS
    return Workload(
        name, source, table, noisy(table.labels, classes), mean, std, classes, Augmentation(4, True), model, batch_size
    )
