"""Several classifications at once: the classes fall into groups, a head for each, and an image belongs to one of them.

Hard parameter sharing, as in Figure 2 of Khanal and Kanan, "How Does Heterogeneous Label Noise Impact Generalization in
Neural Nets?" (ISVC 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..data import ImageDataset
from ..errors import DataError
from ..texts import counted
from .base import Answers, Evaluation, Labels, Task
from .classification import Classification
from .names import SCORES


@dataclass(frozen=True)
class MultiTaskEvaluation(Evaluation):
    """Answers of several heads, int64 [n, G]: what each head takes an image for."""

    losses: NDArray[np.float32]
    """[n], cross-entropy of each image in its own head."""


class MultiTaskAnswers(Answers):
    """The answers of a pass; truths are int64 [n]."""

    def __init__(self, truths: Sequence[Labels], task: "MultiTask", device: torch.device):
        super().__init__(truths, device)
        self.task = task
        self.found = task.unseen(len(self.truth), device)
        self.losses = torch.zeros(len(self.truth), device=device)

    def keep(self, logits: Tensor, truth: Tensor, rows: Tensor) -> None:
        self.found[rows] = self.task.answer(logits)
        self.losses[rows] = self.task.losses(logits, truth)

    def evaluations(self) -> list[Evaluation]:
        return [
            MultiTaskEvaluation(found, weights, float(losses.mean(dtype=np.float64)), losses)
            for found, weights, losses in zip(*map(self.split, (self.found, self.attention, self.losses)), strict=True)
        ]


class Heads(nn.Module):
    """A linear classifier for each task: features [B, F] -> the logits of all, one after the other."""

    def __init__(self, num_features: int, sizes: Sequence[int]):
        super().__init__()
        self.classifiers = nn.ModuleList(nn.Linear(num_features, size) for size in sizes)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([classifier(features) for classifier in self.classifiers], 1)


class MultiTask(Classification):
    """Each image has one class, and each class belongs to one of G tasks. Labels are int64 [N]; the loss is the mean
    over images of the cross-entropy in the head of its class; the answer is what each head says, int64 [B, G].

    Args:
        outputs: the names of the classes, those of the first task first.
        sizes: of the tasks: how many classes each has.
    """

    name = "multitask"
    score = SCORES["classification"]
    summarised: ClassVar = {"accuracy": True, "task_accuracy": None}

    def __init__(self, outputs: Sequence[str] = (), sizes: Sequence[int] = ()):
        super().__init__(outputs)
        self.sizes = tuple(sizes)
        self.starts = tuple(sum(self.sizes[:number]) for number in range(len(self.sizes)))

    @classmethod
    def of(cls, dataset: ImageDataset) -> "MultiTask":
        if not dataset.groups or sum(dataset.groups) != dataset.num_classes or min(dataset.groups) < 2:
            raise DataError(f"{dataset.name}: groups must say how many classes each task has, two at least")
        return cls(dataset.class_names, dataset.groups)

    def describe(self) -> str:
        return f"{counted(len(self.sizes), 'task')} of {' and '.join(map(str, self.sizes))} classes"

    def head(self, num_features: int) -> Heads:
        return Heads(num_features, self.sizes)

    def group_of(self, labels: Tensor) -> Tensor:
        """The task of each class, int64, from 0."""
        groups = torch.zeros_like(labels)
        for start in self.starts[1:]:
            groups = groups + (labels >= start)
        return groups

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[B], cross-entropy of each image in the head of its class."""
        columns = self.group_of(torch.arange(logits.shape[1], device=logits.device))
        other = columns[None] != self.group_of(labels)[:, None]
        return cross_entropy(logits.float().masked_fill(other, -torch.inf), labels, reduction="none")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.losses(logits, labels).mean()

    def answer(self, logits: Tensor) -> Tensor:
        parts = zip(self.starts, logits.split(self.sizes, 1), strict=True)
        return torch.stack([start + part.argmax(1) for start, part in parts], 1)

    def unseen(self, count: int, device: torch.device) -> Tensor:
        return torch.full((count, len(self.sizes)), -1, dtype=torch.int64, device=device)

    def collect(self, truths: Sequence[Labels], device: torch.device) -> MultiTaskAnswers:  # type: ignore[override]
        return MultiTaskAnswers(truths, self, device)

    def settings(self) -> dict[str, Any]:
        return {"sizes": list(self.sizes)}

    def outcome(self, logits: Tensor) -> Tensor:
        """The classes' probabilities, in each task for itself."""
        return torch.cat([part.softmax(1) for part in logits.float().split(list(self.sizes), 1)], 1)

    def columns(self, answers: Labels, outcome: NDArray[np.float32]) -> dict[str, Labels]:
        """What each head predicts first."""
        names = np.array(self.outputs)
        said = {f"predicted:{number}": names[column] for number, column in enumerate(answers.T, 1)}
        return said | Task.columns(self, answers, outcome)

    def figures(self, found: Evaluation, truth: Labels) -> dict[str, Any]:
        """task_accuracy and task_loss are of each task; None for one that has no images."""
        assert isinstance(found, MultiTaskEvaluation)
        right, groups = self._own(found.answers, truth) == truth, self._groups(truth)
        masks = [groups == number for number in range(len(self.sizes))]
        return {
            "loss": found.loss,
            "accuracy": float(right.mean()),
            "task_accuracy": [float(right[mask].mean()) if mask.any() else None for mask in masks],
            "task_loss": [float(found.losses[mask].mean(dtype=np.float64)) if mask.any() else None for mask in masks],
        }

    def validation_figures(self, found: Evaluation, truth: Labels) -> dict[str, Any]:
        return self.figures(found, truth)

    def training_figures(self, answers: Labels, given: Labels) -> dict[str, float]:
        return super().training_figures(self._own(answers, given), given)

    def shares(self, answers: Labels, given: Labels, clean: Labels) -> dict[str, float]:
        return super().shares(self._own(answers, clean), given, clean)

    def closing_figures(self, answers: Labels, given: Labels) -> dict[str, Any]:
        return super().closing_figures(self._own(answers, given), given)

    def _groups(self, labels: Labels) -> NDArray[np.int64]:
        return np.searchsorted(self.starts, labels, side="right") - 1

    def _own(self, answers: Labels, labels: Labels) -> NDArray[np.int64]:
        """What the head of each image's class says."""
        return np.asarray(answers[np.arange(len(labels)), self._groups(labels)])
