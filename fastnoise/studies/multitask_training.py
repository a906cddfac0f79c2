"""One training of `fastnoise study multitask`: two tasks, one of them with wrong labels, and a network they share."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .. import noise
from ..data import Augmentation, ImageDataset, ImageTable, Loader, load_dataset, make_loader, stratified_split
from ..engine.step import choose_device
from ..errors import ConfigError
from ..models.heads import MultiTaskNetwork
from ..models.resnet import BasicBlock, ResNet
from .fit import NetworkFit, derive_seed, optim_config

VALIDATION = 0.1
"""Share of a task's training images that is held out, as in the paper."""
_DEPTHS = (2, 2, 2, 2)  # ResNet18
_EVALUATION_BATCH = 500

# What a seed is for.
_SPLIT, _SUBSET, _WEIGHTS, _BATCHES, _NOISE = range(5)


def split_classes(num_classes: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two halves of the classes at random, each in rising order; of an odd number the first is the smaller."""
    order = np.random.default_rng(derive_seed(seed, _SPLIT)).permutation(num_classes)
    return np.sort(order[: num_classes // 2]), np.sort(order[num_classes // 2 :])


@dataclass(frozen=True, eq=False)
class TaskData:
    """The images of one task, labelled 0, 1, ... in the order of its classes."""

    num_classes: int
    train: ImageTable
    """Its labels may be wrong; those of the others are right."""
    validation: ImageTable
    test: ImageTable


def task_data(
    dataset: ImageDataset, classes: NDArray[np.int64], *, rate: float, limit: int | None, seed: int
) -> TaskData:
    """The part of a data set that shows `classes`.

    Args:
        rate: probability that a training label is replaced by one of the task's others, all equally likely; validation
            labels, held out before, stay right. What one rate replaces every higher rate replaces alike.
        limit: images for training and validation, drawn per class; None: all.
        seed: of the subset and the noise.

    Raises:
        ConfigError: fewer images than `limit`, or too few to validate on some.
    """

    def part(table: ImageTable) -> ImageTable:
        mine = table.take(np.flatnonzero(np.isin(table.labels, classes)))
        return replace(mine, labels=np.searchsorted(classes, mine.labels))

    whole = part(dataset.train)
    if limit is not None:
        if limit > len(whole):
            raise ConfigError(f"--limit-train {limit}: a task of {dataset.name} has {len(whole)} training images")
        kept, _ = stratified_split(whole.labels, 1 - limit / len(whole), derive_seed(seed, _SUBSET))
        whole = whole.take(kept)
    kept, held = stratified_split(whole.labels, VALIDATION, derive_seed(seed, _SUBSET, 1))
    if not len(held):
        raise ConfigError(f"{len(whole)} images of a task leave none to validate on; give a larger --limit-train")
    train = whole.take(kept)
    given = noise.corrupt(
        train.labels, f"symmetric:{rate!r}", seed=derive_seed(seed, _NOISE), num_classes=len(classes)
    ).labels
    return TaskData(len(classes), replace(train, labels=given), whole.take(held), part(dataset.test))


class MultiTask:
    """The tasks of a job with their loaders and the network that they share.

    Args:
        config: as `train` takes it.
    """

    def __init__(self, config: dict[str, Any]):
        self.device = choose_device(config["device"])
        seed, batch_size = config["seed"], config["batch_size"]
        dataset = load_dataset(config["dataset"], Path(config["data_root"]), download=config["download"])
        if dataset.num_classes < 4:
            raise ConfigError(f"{dataset.name} has {dataset.num_classes} classes, and two tasks need at least 4")
        if round(64 * config["width"]) < 1:
            raise ConfigError(f"--width {config['width']} leaves layers with no channels; give a larger one")
        parts = split_classes(dataset.num_classes, seed)[: config["tasks"]]
        self.tasks = [
            task_data(dataset, part, rate=config["rate"] if task else 0.0, limit=config["limit_train"], seed=seed)
            for task, part in enumerate(parts)
        ]
        colour = dataset.train.shape[0] == 3  # mirrored, digits are others
        self.augmentation = Augmentation(dataset.train.shape[1] // 8, flip=colour)
        self.dataset = dataset
        self.loaders = [
            self._loader(
                task.train,
                batch_size,
                seed=derive_seed(seed, _BATCHES, number),
                augmentation=self.augmentation,
                shuffle=True,
                drop_last=True,
            )
            for number, task in enumerate(self.tasks)
        ]
        self.labels = [torch.from_numpy(task.train.labels).to(self.device) for task in self.tasks]
        self.evaluations = [
            {
                split: (self._loader(table, _EVALUATION_BATCH), torch.from_numpy(table.labels).to(self.device))
                for split, table in (("validation", task.validation), ("test", task.test))
            }
            for task in self.tasks
        ]
        # The single task has the weights that it has beside the other: they are drawn backbone, head 1, head 2.
        torch.manual_seed(derive_seed(seed, _WEIGHTS))
        channels, *size = dataset.train.shape
        backbone = ResNet(BasicBlock, _DEPTHS, channels, (size[0], size[1]), config["width"], "mish")
        self.network = MultiTaskNetwork(backbone, [task.num_classes for task in self.tasks])
        self.training = NetworkFit(
            self.network, summed_cross_entropy, optim_config(config), self.device, self.loaders[0].num_batches
        )

    def _loader(self, table: ImageTable, batch_size: int, **options: Any) -> Loader:
        return make_loader(
            "auto",
            table,
            batch_size=min(batch_size, len(table)),
            mean=self.dataset.mean,
            std=self.dataset.std,
            device=self.device,
            **options,
        )

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        """An epoch of task 1, with as many batches of task 2: images, labels for each task in turn."""
        first, *others = self.loaders
        streams = [_endless(loader, epoch * first.num_batches) for loader in others]
        for images, index in first.epoch(epoch):
            batch = [images, self.labels[0][index]]
            for stream, labels in zip(streams, self.labels[1:], strict=True):
                images, index = next(stream)
                batch += [images, labels[index]]
            yield tuple(batch)

    def logits(self, task: int, split: str) -> tuple[Tensor, Tensor]:
        """Logits [N, C] and right labels [N] of a task's "validation" or "test" images."""
        loader, labels = self.evaluations[task][split]
        return self.training.predict(lambda images: self.network(images, task), loader), labels

    def validate(self) -> Tensor:
        """The validation loss of task 1, by which the paper chooses the model (section 4.2)."""
        return cross_entropy(*self.logits(0, "validation"))

    def test(self) -> dict[str, float]:
        """Test accuracy of each task."""
        found = {}
        for task in range(len(self.tasks)):
            logits, labels = self.logits(task, "test")
            found[f"task{task + 1}"] = float((logits.argmax(1) == labels).float().mean())
        return found


def _endless(loader: Loader, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A loader's batches from its `batch`-th on, epoch after epoch."""
    epoch, start = divmod(batch, loader.num_batches)
    while True:
        yield from loader.epoch(epoch, start)
        epoch, start = epoch + 1, 0


def summed_cross_entropy(network: nn.Module, *batch: Tensor) -> Tensor:
    """The sum of the tasks' losses; batch: images and labels of each task in turn.

    Each task's images go through the network by themselves, so that batch norm sees one task at a time.
    """
    losses = [
        cross_entropy(network(images, task), labels)
        for task, (images, labels) in enumerate(zip(batch[::2], batch[1::2], strict=True))
    ]
    return torch.stack(losses).sum()


def train(config: dict[str, Any], folder: Path, console: Console) -> dict[str, Any]:
    """Train one network and return its test accuracies, as `NetworkFit.fit` names them.

    config: dataset, data_root, download, device, seed, tasks (1: the baseline), rate (of task 2), limit_train, width,
    batch_size, and the fields of OptimConfig.
    """
    study = MultiTask(config)
    return study.training.fit(study.batches, study.validate, study.test, folder, console)
