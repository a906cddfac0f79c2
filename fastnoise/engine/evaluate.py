"""Evaluation: what the networks answer for a set of images, of one run or of several that are trained as one.

A pass is an iterator of (outputs, rows), which `Training.answers` makes: `outputs` of R images, float32, and `rows`,
int64 [R], the row of each image in a table that holds one run's images after the other's. A run by itself has its own
images alone, so that a row is a position. What is kept of a pass is said here, in one place: `ClassAnswers` are the
answers per sample of classification, `class_figures` its figures.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..models import Outputs
from .metrics import Evaluation


class ClassAnswers:
    """The answers of a pass where each image has one class.

    Args:
        truths: of each run, int64 [n]: the labels that the answers are compared with.
        num_classes: C; from six classes on, it counts whose label is among the five largest logits.
        device: that of the outputs.
    """

    def __init__(self, truths: Sequence[NDArray[np.int64]], num_classes: int, device: torch.device):
        self.sizes = [len(truth) for truth in truths]
        self.truth = torch.from_numpy(np.concatenate(truths)).to(device)
        self.predictions = torch.empty_like(self.truth)
        self.among = torch.empty_like(self.truth, dtype=torch.bool) if num_classes > 5 else None
        self.attention: Tensor | None = None
        # Of one run a batch's losses are summed where they are made; several runs share a batch.
        shape = () if len(truths) == 1 else self.truth.shape
        self.losses = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, outputs: Outputs, rows: Tensor) -> None:
        """Take up a batch: logits [R, C] and attention [R] of the images in `rows` [R]."""
        logits, truth = outputs.logits, self.truth[rows]
        self.predictions[rows] = logits.argmax(1)
        if self.losses.dim() == 0:
            self.losses += cross_entropy(logits, truth, reduction="sum")
        else:
            self.losses[rows] = cross_entropy(logits, truth, reduction="none").double()
        if self.among is not None:
            self.among[rows] = (logits.topk(5).indices == truth[:, None]).any(1)
        if outputs.attention is not None:
            if self.attention is None:
                self.attention = torch.empty(len(self.truth), device=rows.device)
            self.attention[rows] = outputs.attention

    def evaluations(self) -> list[Evaluation]:
        """Those of each run."""
        losses = [self.losses] if self.losses.dim() == 0 else self.losses.cpu().split(self.sizes)
        among, attention = self._split(self.among), self._split(self.attention)
        return [
            Evaluation(
                predictions.numpy(),
                None if weights is None else weights.numpy(),
                np.nan if right is None else int(right.sum()) / size,
                float(loss.sum()) / size,
            )
            for size, predictions, weights, right, loss in zip(
                self.sizes, self.predictions.cpu().split(self.sizes), attention, among, losses, strict=True
            )
        ]

    def _split(self, table: Tensor | None) -> Sequence[Tensor | None]:
        return [None] * len(self.sizes) if table is None else table.cpu().split(self.sizes)


def class_figures(found: Evaluation, truth: NDArray[np.int64], num_classes: int) -> dict[str, Any]:
    """The figures of classification on a test set, by name; `truth` int64 [n]."""
    figures: dict[str, Any] = {
        "loss": found.loss,
        "accuracy": found.accuracy(truth),
        "macro_f1": found.macro_f1(truth),
        "class_accuracy": found.class_accuracy(truth, num_classes),
    }
    return figures if np.isnan(found.top5) else {**figures, "top5": found.top5}


@torch.no_grad()
def evaluate(answers: ClassAnswers, batches: Iterable[tuple[Outputs, Tensor]]) -> list[Evaluation]:
    """Go through a pass; returns what `answers` makes of it for each run."""
    for outputs, rows in batches:
        answers.add(outputs, rows)
    return answers.evaluations()
