"""Regression: each image has a value, or several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import ImageDataset
from ..errors import DataError
from ..noise.files import LabelFile
from ..noise.samples import columns_in
from ..noise.targets import NoisyTargets, shift_values
from .base import Answers, Evaluation, Labels, Task, differing
from .names import SCORES

_LARGEST = 1e150


@dataclass(frozen=True)
class ValueEvaluation(Evaluation):
    """A network's answers if an image has values: `answers` are as in training, in units of the task's scale."""

    values: NDArray[np.float64]
    """[n, K], in the data set's unit."""


class ValueAnswers(Answers):
    """The answers of a pass; truths are float64 [n, K], standardised (`Regression.table`)."""

    def __init__(self, truths: Sequence[Labels], task: "Regression", device: torch.device):
        super().__init__([task.table(truth) for truth in truths], device)
        self.task = task
        self.found = torch.empty_like(self.truth)

    def keep(self, logits: Tensor, truth: Tensor, rows: Tensor) -> None:
        self.found[rows] = logits

    def evaluations(self) -> list[Evaluation]:
        errors = (self.found - self.truth).double().square()
        return [
            ValueEvaluation(found, weights, float(squares.mean()), self.task.values(found))
            for found, weights, squares in zip(*map(self.split, (self.found, self.attention, errors)), strict=True)
        ]


class Regression(Task):
    """Each image has K values, float64 [N, K]. Steps see them as float32 (value - centre) / scale; the loss is the mean
    of the squared differences to the outputs, the answer the outputs. Figures are in the data set's unit.

    Args:
        outputs: the names of the values.
        centre, scale: of each value; `of` takes the mean of the data set's training values, and the set's scale or
            their standard deviation, whatever noise comes on top.
    """

    name = "regression"
    unit = "values"
    score = SCORES["regression"]
    keeps_answers = True
    summarised: ClassVar = {"mse": False, "mae": False, "r2": True}

    def __init__(self, outputs: Sequence[str] = (), centre: Sequence[float] = (), scale: Sequence[float] = ()):
        super().__init__(outputs)
        self.centre = np.array(centre if len(centre) else [0.0] * len(self.outputs))
        self.scale = np.array(scale if len(scale) else [1.0] * len(self.outputs))

    @classmethod
    def of(cls, dataset: ImageDataset) -> "Regression":
        values = dataset.train.labels
        if dataset.train.form != "values":
            raise DataError(f"{dataset.name}: a set for regression has real numbers for labels")
        if np.abs(values).max() > _LARGEST or np.abs(dataset.test.labels).max() > _LARGEST:
            raise DataError(f"{dataset.name}: values beyond {_LARGEST:g} have no squares; give them in a larger unit")
        spread = values.std(0)
        scale = dataset.scale or np.where(spread > 0, spread, 1.0).tolist()
        if len(scale) != values.shape[1] or not all(0 < each < np.inf for each in scale):
            raise DataError(f"{dataset.name}: scale must be a positive number for each of {values.shape[1]} values")
        return cls(dataset.class_names, values.mean(0).tolist(), scale)

    def describe(self) -> str:
        return f"values: {', '.join(self.outputs)}"

    def read_labels(self, file: LabelFile) -> Labels:
        return columns_in(file, self.outputs)

    def brought(self, labels: Labels, clean: Labels | None, spec: str) -> NoisyTargets:
        return NoisyTargets(labels, clean, spec, None, len(self.outputs), None)

    def corrupt(self, dataset: ImageDataset, true: Labels, noise: str, seed: int) -> NoisyTargets:
        return shift_values(true, noise, seed=seed)

    def table(self, labels: Labels) -> NDArray[np.float32]:
        return ((labels - self.centre) / self.scale).astype(np.float32)

    def values(self, answers: Labels) -> NDArray[np.float64]:
        """Answers [n, K] in the data set's unit."""
        return np.asarray(answers * self.scale + self.centre)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.float() - labels).square().mean()

    def answer(self, logits: Tensor) -> Tensor:
        return logits.float()

    def unseen(self, count: int, device: torch.device) -> Tensor:
        return torch.full((count, len(self.outputs)), torch.nan, device=device)

    def collect(self, truths: Sequence[Labels], device: torch.device) -> ValueAnswers:
        return ValueAnswers(truths, self, device)

    gives = "value"

    def settings(self) -> dict[str, Any]:
        return {"centre": self.centre.tolist(), "scale": self.scale.tolist()}

    def outcome(self, logits: Tensor) -> Tensor:
        """The values in the data set's unit."""
        scale, centre = (
            torch.tensor(each.tolist(), dtype=torch.float32, device=logits.device) for each in (self.scale, self.centre)
        )
        return logits.float() * scale + centre

    def figures(self, found: Evaluation, truth: Labels) -> dict[str, Any]:
        """mse and mae: mean squared and mean absolute error; r2: the share of the values' variance that is explained,
        for constant values 1 if the answers are right and else 0. If there are several values, means over them."""
        from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score  # a second to import

        assert isinstance(found, ValueEvaluation)
        right = float(np.array_equal(truth, found.values))
        return {
            "loss": found.loss,
            "mse": float(mean_squared_error(truth, found.values)),
            "mae": float(mean_absolute_error(truth, found.values)),
            "r2": float(r2_score(truth, found.values)) if len(truth) > 1 else right,
        }

    def kept(self, found: Evaluation, truth: Labels) -> dict[str, Labels]:
        """Answers are in the data set's unit, as the truth is."""
        assert isinstance(found, ValueEvaluation)
        return {"truth": truth, "answers": found.values}

    def training_figures(self, answers: Labels, given: Labels) -> dict[str, float]:
        return {"train_mse_given": self._mse(answers, given)}

    def shares(self, answers: Labels, given: Labels, clean: Labels) -> dict[str, float]:
        """Mean squared errors instead of shares: of the samples with right values, and of the others against their true
        and their given ones."""
        seen, wrong = ~np.isnan(answers).any(1), differing(given, clean)
        figures = {}
        if (group := seen & ~wrong).any():
            figures["clean_mse"] = self._mse(answers[group], clean[group])
        if (group := seen & wrong).any():
            figures["mislabelled_mse_true"] = self._mse(answers[group], clean[group])
            figures["mislabelled_mse_given"] = self._mse(answers[group], given[group])
        return figures

    def _mse(self, answers: Labels, truth: Labels) -> float:
        seen = ~np.isnan(answers).any(1)
        return float(((self.values(answers[seen]) - truth[seen]) ** 2).mean())
