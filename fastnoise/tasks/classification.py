"""Classification: each image has one class."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from .. import noise as noises
from ..checks import cpu_cores
from ..data import ImageDataset, ImageTable
from ..data.images import read_image
from ..errors import ConfigError, DataError
from ..noise import NoisyLabels
from ..noise.files import LabelFile
from ..noise.samples import classes_in
from .base import Answers, Evaluation, Labels, Task
from .names import SCORES


@dataclass(frozen=True)
class ClassEvaluation(Evaluation):
    """A network's answers if each image has one class: `answers` are predictions, int64 [n]."""

    top5: float
    """Share of samples whose label is among the five largest logits; NaN for fewer than six classes."""

    def accuracy(self, labels: NDArray[np.int64]) -> float:
        """Share of predictions equal to `labels`."""
        return float((self.answers == labels).mean())

    def class_accuracy(self, labels: NDArray[np.int64], num_classes: int) -> list[float | None]:
        """`accuracy` of each class's samples; None for a class that `labels` lacks."""
        sizes = np.bincount(labels, minlength=num_classes)
        right = np.bincount(labels[self.answers == labels], minlength=num_classes)
        return [int(found) / int(size) if size else None for found, size in zip(right, sizes, strict=True)]

    def macro_f1(self, labels: NDArray[np.int64]) -> float:
        """Mean over the classes, predicted or in `labels`, of 2 TP / (2 TP + FP + FN)."""
        from sklearn.metrics import f1_score  # which takes a second to import

        return float(f1_score(labels, self.answers, average="macro", zero_division=0))


class ClassAnswers(Answers):
    """The answers of a pass if each image has one class.

    Args:
        truths: of each run, int64 [n].
        num_classes: C; from six classes on, it counts whose label is among the five largest logits.
        device: that of the outputs.
    """

    def __init__(self, truths: Sequence[NDArray[np.int64]], num_classes: int, device: torch.device):
        super().__init__(truths, device)
        # Of one run a batch's losses are summed where they are made; several runs share a batch.
        shape = () if len(truths) == 1 else self.truth.shape
        self.losses = torch.zeros(shape, dtype=torch.float64, device=device)
        self.predictions = torch.empty_like(self.truth)
        self.among = torch.empty_like(self.truth, dtype=torch.bool) if num_classes > 5 else None

    def keep(self, logits: Tensor, truth: Tensor, rows: Tensor) -> None:
        self.predictions[rows] = logits.argmax(1)
        if self.losses.dim() == 0:
            self.losses += cross_entropy(logits, truth, reduction="sum")
        else:
            self.losses[rows] = cross_entropy(logits, truth, reduction="none").double()
        if self.among is not None:
            self.among[rows] = (logits.topk(5).indices == truth[:, None]).any(1)

    def evaluations(self) -> list[ClassEvaluation]:
        losses = [self.losses] if self.losses.dim() == 0 else self.losses.cpu().split(self.sizes)
        tables = (self.predictions, self.attention, self.among)
        return [
            ClassEvaluation(
                predictions, weights, float(loss.sum()) / size, np.nan if among is None else int(among.sum()) / size
            )
            for size, loss, predictions, weights, among in zip(
                self.sizes, losses, *map(self.split, tables), strict=True
            )
        ]


GIVEN_UP = 0.3
"""A class counts as given up if it is answered for fewer training images than this share of those with its label."""


class Classification(Task):
    """Each image has one class. Labels are int64 [N], the loss is cross-entropy, the answer the likeliest class."""

    name = "classification"
    unit = "classes"
    score = SCORES["classification"]
    summarised: ClassVar = {"accuracy": True, "macro_f1": True, "class_accuracy": None, "top5": True}

    @classmethod
    def of(cls, dataset: ImageDataset) -> "Classification":
        if dataset.train.form != "classes":
            raise DataError(f"{dataset.name}: a set for classification has a class for each image")
        if dataset.num_classes < 2:
            raise ConfigError(f"{dataset.name}: a classifier needs at least 2 classes, not {dataset.num_classes}")
        return cls(dataset.class_names)

    def read_labels(self, file: LabelFile) -> NDArray[np.int64]:
        return classes_in(file, self.outputs)

    def brought(self, labels: Labels, clean: Labels | None, spec: str) -> NoisyLabels:
        return NoisyLabels(
            labels=labels, clean_labels=clean, spec=spec, seed=None, num_classes=len(self.outputs), requested_rate=None
        )

    def corrupt(self, dataset: ImageDataset, true: Labels, noise: str, seed: int) -> NoisyLabels:
        count = len(true)
        return noises.corrupt(
            true,
            noise,
            seed=seed,
            num_classes=len(self.outputs),
            dataset=dataset.name,
            inputs=_inputs(dataset.train, count, noise),
            human_labels={name: human[:count] for name, human in dataset.human_labels.items()},
        )

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels)

    def answer(self, logits: Tensor) -> Tensor:
        return logits.argmax(1)

    def unseen(self, count: int, device: torch.device) -> Tensor:
        return torch.full((count,), -1, dtype=torch.int64, device=device)

    def collect(self, truths: Sequence[Labels], device: torch.device) -> ClassAnswers:
        return ClassAnswers(truths, len(self.outputs), device)

    gives = "probability"

    def outcome(self, logits: Tensor) -> Tensor:
        """The classes' probabilities."""
        return logits.float().softmax(1)

    def closing_figures(self, answers: Labels, given: Labels) -> dict[str, Any]:
        """training_answers: the share of the given labels that the network answers with, and the classes that it gives
        up, the most forsaken first."""
        said, answered = (np.bincount(labels, minlength=len(self.outputs)) for labels in (given, answers))
        shares = answered / np.maximum(said, 1)
        few = [label for label in np.argsort(shares, kind="stable") if said[label] and shares[label] < GIVEN_UP]
        return {
            "training_answers": {
                "agreement": float((answers == given).mean()),
                "given_up": [self.outputs[label] for label in few],
            }
        }

    def columns(self, answers: Labels, outcome: NDArray[np.float32]) -> dict[str, Labels]:
        """The predicted class first, with its probability."""
        said: dict[str, Labels] = {"predicted": np.array(self.outputs)[answers]}
        if outcome.shape[1] == len(self.outputs):
            said[self.gives] = np.take_along_axis(outcome, answers[:, None], 1)[:, 0]
        return said | super().columns(answers, outcome)

    def figures(self, found: Evaluation, truth: Labels) -> dict[str, Any]:
        found = _of_classes(found)
        figures: dict[str, Any] = {
            "loss": found.loss,
            "accuracy": found.accuracy(truth),
            "macro_f1": found.macro_f1(truth),
            "class_accuracy": found.class_accuracy(truth, len(self.outputs)),
        }
        return figures if np.isnan(found.top5) else {**figures, "top5": found.top5}

    def validation_figures(self, found: Evaluation, truth: Labels) -> dict[str, Any]:
        return {"accuracy": _of_classes(found).accuracy(truth)}

    def training_figures(self, answers: Labels, given: Labels) -> dict[str, float]:
        seen = answers >= 0
        return {"train_accuracy_given": float((answers == given)[seen].mean())}

    def shares(self, answers: Labels, given: Labels, clean: Labels) -> dict[str, float]:
        return split_shares(answers, given, clean)


IDN_SIDE = 32
"""Side in pixels at which images in files become the inputs of instance-dependent noise: that of CIFAR, for which its
models were made. The noise then does not depend on --image-size and on how images are augmented."""


def _inputs(table: ImageTable, count: int, noise: str) -> NDArray[np.uint8] | None:
    """The pixels of the first samples for noise that depends on them; None of files for other noise."""
    if table.images is not None:
        return table.images[:count]
    if not noises.parse(noise).of_inputs:
        return None
    with ThreadPoolExecutor(cpu_cores()) as pool:
        read = partial(read_image, size=(IDN_SIDE, IDN_SIDE), exif=table.exif)
        return np.stack(list(pool.map(read, (table.files[place] for place in range(count)))))


def _of_classes(found: Evaluation) -> ClassEvaluation:
    """An evaluation with the figures of classes, also of a task of the user's that keeps no top-5 accuracy."""
    if isinstance(found, ClassEvaluation):
        return found
    return ClassEvaluation(found.answers, found.attention, found.loss, np.nan)


def split_shares(
    predictions: NDArray[np.int64], given: NDArray[np.int64], clean: NDArray[np.int64]
) -> dict[str, float]:
    """Clean and mislabelled samples split into predicted true, memorised and other (ELR, Figure 1).

    Of the clean samples, the shares predicted as their true label and as another; of the mislabelled ones, as
    their true label, as their wrong given label (memorised), and as another. int64 [N] each; a prediction of
    -1 (not visited) is left out. A group without samples gives no entry.
    """
    seen = predictions >= 0
    wrong = given != clean
    shares: dict[str, float] = {}
    if (group := seen & ~wrong).any():
        true = float((predictions[group] == clean[group]).mean())
        shares |= {"clean_true": true, "clean_other": 1 - true}
    if (group := seen & wrong).any():
        true = float((predictions[group] == clean[group]).mean())
        memorised = float((predictions[group] == given[group]).mean())
        shares |= {
            "mislabelled_true": true,
            "mislabelled_memorised": memorised,
            "mislabelled_other": max(0.0, 1 - true - memorised),
        }
    return shares
