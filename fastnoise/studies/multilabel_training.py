"""One training of `fastnoise study multilabel`: an image has several labels, and those of one group are swapped."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ..data import Augmentation, ImageTable, Loader, load_dataset, make_loader
from ..data.folder import IMAGENET_MEAN_STD
from ..engine.metrics import average_precision
from ..engine.step import choose_device
from ..errors import ConfigError, DataError
from ..models import create_model
from ..noise.other_targets import corrupt_multilabel
from .canvas import compose_canvases
from .coco import CocoSet, decode, read_coco, same_categories
from .fit import NetworkFit, derive_seed, optim_config

VALIDATION = 0.1
"""Share of the training images that is held out, as in the paper."""
CANVASES = 25_000, 5_000
"""Training and test canvases of a full study: as many as mini-COCO's images."""
_EVALUATION_BATCH = 250

# What a seed is for.
_SUBSET, _CANVASES, _WEIGHTS, _BATCHES, _NOISE = range(5)


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels uint8 [N, C], zeros and ones."""

    table: ImageTable
    labels: NDArray[np.uint8]

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> "Split":
        """A split of pixels [N, H, W, channels]; the table's own labels, one an image, mean nothing here."""
        return cls(ImageTable(np.zeros(len(pixels), np.int64), images=pixels), labels)

    def take(self, positions: NDArray[np.int64]) -> "Split":
        """The samples at these positions."""
        return Split(self.table.take(positions), self.labels[positions])


@dataclass(frozen=True, eq=False)
class MultiLabelData:
    """A multi-label set; validation and test labels are right."""

    train: Split
    validation: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    """Whether a mirrored image shows the same."""


@dataclass(frozen=True)
class DataChoice:
    """What decides the data: all of a job's fields that do."""

    dataset: str
    image_size: int
    limit_train: int | None
    data_seed: int
    first_group: int | None
    data_root: str
    download: bool
    annotations: str | None
    """The files are those of the data set coco, None for another."""
    images: str | None
    test_annotations: str | None
    test_images: str | None


@lru_cache(maxsize=1)
def load_data(choice: DataChoice, cache: Path, console: Console | None = None) -> MultiLabelData:
    """The images and labels; DataError and ConfigError say what is wrong with them in one line.

    Args:
        cache: folder for decoded images.
        console: shows the progress of decoding.
    """
    return _coco(choice, cache, console) if choice.dataset == "coco" else _canvases(choice)


def _held_out(count: int, choice: DataChoice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of the training images train and which validate, in rising order."""
    order = np.random.default_rng(derive_seed(choice.data_seed, _SUBSET, 1)).permutation(count)
    held = round(VALIDATION * count)
    if not held:
        raise ConfigError(f"{count} training images leave none to validate on; give more")
    return np.sort(order[held:]), np.sort(order[:held])


def group_ranges(num_classes: int, first_group: int | None) -> tuple[range, range]:
    """The two groups of labels, of which the first has five eighths by default: COCO's 1 to 50 and 51 to 80."""
    first = round(num_classes * 5 / 8) if first_group is None else first_group
    if not 2 <= first <= num_classes - 2:
        raise ConfigError(
            f"--first-group {first}: of {num_classes} labels each group needs at least 2, as one has no other to be "
            "swapped for"
        )
    return range(first), range(first, num_classes)


def _canvases(choice: DataChoice) -> MultiLabelData:
    digits = load_dataset("mnist", Path(choice.data_root), download=choice.download)
    groups = group_ranges(digits.num_classes, choice.first_group)
    train, test = (
        Split.of(
            *compose_canvases(
                source, count, choice.image_size, seed=derive_seed(choice.data_seed, _CANVASES, number), groups=groups
            )
        )
        for number, (source, count) in enumerate(
            ((digits.train, choice.limit_train or CANVASES[0]), (digits.test, CANVASES[1]))
        )
    )
    pixels = train.table.images
    assert pixels is not None
    mean, std = (float(value) / 255 for value in (pixels.mean(), pixels.std()))
    kept, held = _held_out(len(train.labels), choice)
    return MultiLabelData(train.take(kept), train.take(held), test, (mean,), (std,), flip=False)


def _coco(choice: DataChoice, cache: Path, console: Console | None) -> MultiLabelData:
    names = ("annotations", "images", "test_annotations", "test_images")
    paths = {name: Path(getattr(choice, name)) for name in names}
    train = read_coco(paths["annotations"], paths["images"])
    test = read_coco(paths["test_annotations"], paths["test_images"])
    same_categories(train, paths["annotations"], test, paths["test_annotations"])
    count = len(train.files) if choice.limit_train is None else choice.limit_train
    if count > len(train.files):
        raise ConfigError(f"--limit-train {count}: there are {len(train.files)} training images")
    chosen = np.random.default_rng(derive_seed(choice.data_seed, _SUBSET)).permutation(len(train.files))[:count]

    def split(images: CocoSet, positions: NDArray[np.int64]) -> Split:
        files = tuple(images.files[position] for position in positions)
        return Split.of(decode(files, choice.image_size, cache, console), images.labels[positions])

    # Decoded part by part: a selection from the mapped array would be a copy in each process.
    kept, held = (split(train, np.sort(chosen)[part]) for part in _held_out(count, choice))
    return MultiLabelData(kept, held, split(test, np.arange(len(test.files))), *IMAGENET_MEAN_STD, flip=True)


class MultiLabel:
    """The data of a job with their loaders, the network and its training.

    Args:
        config: as `train` takes it.
        cache, console: as `load_data` takes them.
    """

    def __init__(self, config: dict[str, Any], cache: Path, console: Console | None = None):
        self.device = choose_device(config["device"])
        data = load_data(DataChoice(**{name: config[name] for name in DataChoice.__annotations__}), cache, console)
        self.data = data
        groups = group_ranges(data.train.labels.shape[1], config["first_group"])
        self.corrupted, self.clean = groups if config["corrupted_group"] == 1 else groups[::-1]
        for group in groups:
            if not data.test.labels[:, group.start : group.stop].any():
                raise DataError(
                    f"no test image has a label of {group.start + 1} to {group.stop}; give a larger test set"
                )
        seed = config["seed"]
        noisy = corrupt_multilabel(
            data.train.labels,
            config["rate"],
            seed=derive_seed(seed, _NOISE),
            group=f"{self.corrupted.start}-{self.corrupted.stop - 1}",
            cardinality=config["cardinality"],
        )
        self.swapped = float((noisy < data.train.labels).sum() / max(1, data.train.labels[:, self._columns()].sum()))
        self.labels = torch.from_numpy(noisy).to(self.device, torch.float32)
        self.loader = self._loader(
            data.train,
            config["batch_size"],
            seed=derive_seed(seed, _BATCHES),
            augmentation=Augmentation(config["image_size"] // 16, flip=data.flip),
            shuffle=True,
            drop_last=True,
        )
        self.validation, self.test_images = (
            self._loader(part, _EVALUATION_BATCH) for part in (data.validation, data.test)
        )
        clean = slice(self.clean.start, self.clean.stop)
        self.validation_labels = torch.from_numpy(data.validation.labels[:, clean]).to(self.device, torch.float32)
        torch.manual_seed(derive_seed(seed, _WEIGHTS))
        channels, *size = data.train.table.shape
        self.network = create_model(
            "resnet18",
            num_classes=self.labels.shape[1],
            channels=channels,
            image_size=(size[0], size[1]),
            width=config["width"],
        )
        self.training = NetworkFit(
            self.network, mean_binary_cross_entropy, optim_config(config), self.device, self.loader.num_batches
        )

    def _columns(self) -> slice:
        return slice(self.corrupted.start, self.corrupted.stop)

    def _loader(self, split: Split, batch_size: int, **options: Any) -> Loader:
        return make_loader(
            "auto",
            split.table,
            batch_size=min(batch_size, len(split.table)),
            mean=self.data.mean,
            std=self.data.std,
            device=self.device,
            **options,
        )

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        """An epoch's images and given labels."""
        return ((images, self.labels[index]) for images, index in self.loader.epoch(epoch))

    def _logits(self, loader: Loader) -> Tensor:
        return self.training.predict(lambda images: self.network(images).logits, loader)

    def validate(self) -> Tensor:
        """The validation loss of the clean group's labels."""
        logits = self._logits(self.validation)[:, self.clean.start : self.clean.stop]
        return binary_cross_entropy_with_logits(logits, self.validation_labels)

    def test(self) -> dict[str, float]:
        """Mean average precision over the labels of the clean group, of the corrupted one, and of both."""
        found = average_precision(self._logits(self.test_images).cpu().numpy(), self.data.test.labels)
        return {
            "clean": float(np.nanmean(found[self.clean.start : self.clean.stop])),
            "corrupted": float(np.nanmean(found[self._columns()])),
            "overall": float(np.nanmean(found)),
        }


def mean_binary_cross_entropy(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Over samples and labels, of the sigmoids of the network's logits."""
    return binary_cross_entropy_with_logits(network(images).logits, targets)


def train(config: dict[str, Any], folder: Path, console: Console) -> dict[str, Any]:
    """Train one network and return its mean average precisions, as `NetworkFit.fit` names them, and the share of the
    group's labels that were "swapped".

    config: the fields of DataChoice and OptimConfig, device, seed, rate, corrupted_group (1 or 2), cardinality,
    width, batch_size.
    """
    study = MultiLabel(config, folder.parent.parent / "images", console)
    figures = study.training.fit(study.batches, study.validate, study.test, folder, console)
    return {**figures, "swapped": study.swapped}
