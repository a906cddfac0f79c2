"""Multi-label classification: each image has any number of labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ..data import ImageDataset
from ..errors import DataError
from ..noise.files import LabelFile
from ..noise.samples import columns_in
from ..noise.targets import NoisyTargets, swap_labels
from .base import Answers, Evaluation, Labels, Task
from .classification import split_shares
from .names import SCORES


@dataclass(frozen=True)
class MultiLabelEvaluation(Evaluation):
    """A network's answers if an image has several labels: `answers` are int8 [n, C] of zeros and ones."""

    scores: NDArray[np.float32]
    """[n, C], the logits."""
    label_loss: NDArray[np.float64]
    """[C], mean binary cross-entropy of each label."""


class MultiLabelAnswers(Answers):
    """The answers of a pass; truths are uint8 [n, C]."""

    def __init__(self, truths: Sequence[Labels], device: torch.device):
        super().__init__(truths, device)
        self.scores = torch.empty(self.truth.shape, device=device)

    def keep(self, logits: Tensor, truth: Tensor, rows: Tensor) -> None:
        self.scores[rows] = logits

    def evaluations(self) -> list[Evaluation]:
        losses = binary_cross_entropy_with_logits(self.scores, self.truth.float(), reduction="none").double()
        found: list[Evaluation] = []
        for scores, weights, loss in zip(*map(self.split, (self.scores, self.attention, losses)), strict=True):
            each = loss.mean(0)
            found.append(MultiLabelEvaluation((scores > 0).astype(np.int8), weights, float(each.mean()), scores, each))
        return found


class MultiLabel(Task):
    """Each image has any number of labels. They are uint8 [N, C], zeros and ones; the loss is the mean over samples and
    labels of the binary cross-entropy of a sigmoid for each; the answer is the labels with a probability above 1/2."""

    name = "multilabel"
    unit = "labels"
    score = SCORES["multilabel"]
    keeps_answers = True
    summarised: ClassVar = {"mean_average_precision": True, "average_precision": None}

    @classmethod
    def of(cls, dataset: ImageDataset) -> "MultiLabel":
        if dataset.train.form != "labels":
            raise DataError(f"{dataset.name}: a multi-label set has labels of zeros and ones [N, C]")
        return cls(dataset.class_names)

    def read_labels(self, file: LabelFile) -> Labels:
        labels = columns_in(file, self.outputs)
        if not np.isin(labels, (0, 1)).all():
            raise DataError(f"{file.source}: must be zeros and ones [N, {len(self.outputs)}]")
        return labels.astype(np.uint8)

    def brought(self, labels: Labels, clean: Labels | None, spec: str) -> NoisyTargets:
        return NoisyTargets(labels, clean, spec, None, len(self.outputs), None)

    def corrupt(self, dataset: ImageDataset, true: Labels, noise: str, seed: int) -> NoisyTargets:
        return swap_labels(true, noise, seed=seed)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(logits.float(), labels.float())

    def answer(self, logits: Tensor) -> Tensor:
        return (logits > 0).to(torch.int8)

    def unseen(self, count: int, device: torch.device) -> Tensor:
        return torch.full((count, len(self.outputs)), -1, dtype=torch.int8, device=device)

    def collect(self, truths: Sequence[Labels], device: torch.device) -> MultiLabelAnswers:
        return MultiLabelAnswers(truths, device)

    gives = "probability"

    def outcome(self, logits: Tensor) -> Tensor:
        """The labels' probabilities."""
        return logits.float().sigmoid()

    def columns(self, answers: Labels, outcome: NDArray[np.float32]) -> dict[str, Labels]:
        """The labels that an image has first, with semicolons between them."""
        names = np.array(self.outputs)
        said = np.array(["; ".join(names[row.astype(bool)]) for row in answers])
        return {"predicted": said} | super().columns(answers, outcome)

    def figures(self, found: Evaluation, truth: Labels) -> dict[str, Any]:
        """label_loss and average_precision are of each label; None for the precision of one that no image has."""
        assert isinstance(found, MultiLabelEvaluation)
        precisions = average_precision(found.scores, truth)
        return {
            "loss": found.loss,
            "mean_average_precision": float(np.nanmean(precisions)) if not np.isnan(precisions).all() else 0.0,
            "average_precision": [None if np.isnan(value) else float(value) for value in precisions],
            "label_loss": found.label_loss.tolist(),
        }

    def validation_figures(self, found: Evaluation, truth: Labels) -> dict[str, Any]:
        figures = self.figures(found, truth)
        return {name: figures[name] for name in ("loss", "mean_average_precision", "label_loss")}

    def kept(self, found: Evaluation, truth: Labels) -> dict[str, Labels]:
        """With the logits as scores, float32 [n, C]."""
        assert isinstance(found, MultiLabelEvaluation)
        return {"truth": truth, "answers": found.answers, "scores": found.scores}

    def training_figures(self, answers: Labels, given: Labels) -> dict[str, float]:
        seen = answers >= 0
        return {"train_accuracy_given": float((answers == given)[seen].mean())}

    def shares(self, answers: Labels, given: Labels, clean: Labels) -> dict[str, float]:
        """Those of classification, counted over all labels of all samples."""
        return split_shares(answers.ravel(), given.ravel(), clean.ravel())


def average_precision(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Average precision of each label of several at once, float64 [C]; NaN if no sample has the label.

    Args:
        scores: [N, C], larger for likelier labels; logits will do, since only their order counts.
        labels: [N, C], zeros and ones.
    """
    from sklearn.metrics import average_precision_score  # which takes a second to import

    found = np.full(labels.shape[1], np.nan)
    for column in np.flatnonzero(labels.any(0)):
        found[column] = average_precision_score(labels[:, column], scores[:, column])
    return found
