"""What every task says of itself, and what the engine keeps of an evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import lazy, own
from ..data import ImageDataset
from ..errors import ConfigError
from ..models import Outputs
from ..noise import NoisyLabels
from ..noise.files import LabelFile
from .names import TASKS, Score, check_task

Labels = NDArray[Any]
"""Labels or answers of n samples, [n] or [n, K]: their dtype and shape are the task's."""


@dataclass(frozen=True)
class Evaluation:
    """What a network answers for a whole image table, in its order."""

    answers: Labels
    """[n, ...], what `Task.answer` makes of the outputs."""
    attention: NDArray[np.float32] | None
    """[n], NAL's weights."""
    loss: float
    """Mean of the task's loss against the labels given to the evaluation."""


class Answers(ABC):
    """What is kept of a pass over images, of one run or of several that are trained as one.

    Args:
        truths: of each run, [n, ...]: the labels that the answers are compared with.
        device: that of the outputs.
    """

    def __init__(self, truths: Sequence[Labels], device: torch.device):
        self.sizes = [len(truth) for truth in truths]
        self.truth = torch.from_numpy(np.concatenate(truths)).to(device)
        self.attention: Tensor | None = None

    def add(self, outputs: Outputs, rows: Tensor) -> None:
        """Take up a batch: logits [R, C] and attention [R] of the images in `rows` [R]."""
        self.keep(outputs.logits, self.truth[rows], rows)
        if outputs.attention is not None:
            if self.attention is None:
                self.attention = torch.empty(len(self.truth), device=rows.device)
            self.attention[rows] = outputs.attention

    @abstractmethod
    def keep(self, logits: Tensor, truth: Tensor, rows: Tensor) -> None:
        """Take up logits [R, C] and labels [R, ...] of the images in `rows` [R]."""

    @abstractmethod
    def evaluations(self) -> Sequence[Evaluation]:
        """Those of each run."""

    def split(self, table: Tensor | None) -> Sequence[Any]:
        """The part of each run of a table [n of all runs, ...] as an array, or None for each."""
        if table is None:
            return [None] * len(self.sizes)
        return [part.numpy() for part in table.cpu().split(self.sizes)]


class Task(ABC):
    """What is learnt from a data set.

    The engine and the methods know tasks by this interface alone. What goes into a step (`loss`, `answer`) works on
    tensors and is compiled with the step.

    Args:
        outputs: what each column of the labels means: the names of classes, labels or values.
    """

    name: ClassVar[str]
    """By which methods say that they serve it. A subclass with its parent's name is served by the same methods."""
    unit: ClassVar[str]
    """What its outputs are called, in the plural: classes."""
    score: ClassVar[Score]
    """One of its figures."""
    keeps_answers: ClassVar[bool] = False
    """Whether a run's folder keeps `kept` of the test images."""
    summarised: ClassVar[Mapping[str, bool | None]]
    """The figures of `figures` that summary.json holds, the score among them: whether the higher value is the better
    one, None for lists."""

    def __init__(self, outputs: Sequence[str] = ()):
        self.outputs = tuple(outputs)

    @classmethod
    def of(cls, dataset: ImageDataset) -> "Task":
        """The task for a data set; DataError if its labels have another form."""
        return cls(dataset.class_names)

    # -- the head --------------------------------------------------------------------------------------------

    @property
    def num_outputs(self) -> int:
        """Columns of the network's logits."""
        return len(self.outputs)

    def describe(self) -> str:
        """What the outputs are: "10 classes"."""
        return f"{len(self.outputs)} {self.unit}"

    def head(self, num_features: int) -> nn.Module:
        """What makes logits [B, num_outputs] of features [B, num_features]."""
        return nn.Linear(num_features, self.num_outputs)

    # -- labels and noise ------------------------------------------------------------------------------------

    @abstractmethod
    def read_labels(self, file: LabelFile) -> Labels:
        """The labels of all rows of a file that --labels names, [N, ...]; classes -1 where they are not known.

        DataError if they do not fit.
        """

    @abstractmethod
    def brought(self, labels: Labels, clean: Labels | None, spec: str) -> NoisyLabels:
        """Labels that were not made here, with the true ones if they are known; `spec` says where they are from."""

    @abstractmethod
    def corrupt(self, dataset: ImageDataset, true: Labels, noise: str, seed: int) -> NoisyLabels:
        """Noisy labels from the true ones of the first samples of a data set; ConfigError for another task's noise."""

    def table(self, labels: Labels) -> Labels:
        """Labels [N, ...] as the steps read them; as they are but for tasks that scale them."""
        return labels

    # -- in a step: tensors only -----------------------------------------------------------------------------

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch: logits [B, num_outputs], labels [B, ...] as `table` gives them."""

    @abstractmethod
    def answer(self, logits: Tensor) -> Tensor:
        """What is kept of each sample in training: [B, ...], of the form that `unseen` has."""

    @abstractmethod
    def unseen(self, count: int, device: torch.device) -> Tensor:
        """The table of answers [count, ...] before any sample was seen: filled with -1, or NaN for real numbers."""

    # -- for new images --------------------------------------------------------------------------------------

    gives: ClassVar[str] = "output"
    """What `outcome` gives for each output, in the singular: probability, value."""

    def settings(self) -> dict[str, Any]:
        """The arguments of `__init__` behind the names, as JSON has them: a model file keeps them."""
        return {}

    def outcome(self, logits: Tensor) -> Tensor:
        """What is said of new images: float32 [B, num_outputs]; the outputs themselves unless a task says more."""
        return logits.float()

    def columns(self, answers: Labels, outcome: NDArray[np.float32]) -> dict[str, Labels]:
        """Columns of a table of new images by name, a row for each image: the `outcome` [n, num_outputs] by output, and
        what a task has to say of the `answers` [n, ...]."""
        names = self.outputs if outcome.shape[1] == len(self.outputs) else tuple(map(str, range(outcome.shape[1])))
        return {f"{self.gives}:{name}": column for name, column in zip(names, outcome.T, strict=True)}

    # -- figures ---------------------------------------------------------------------------------------------

    def collect(self, truths: Sequence[Labels], device: torch.device) -> Answers:
        """What keeps the answers of an evaluation; the arguments are those of `Answers`. By default those of `answer`,
        and the mean of `loss`."""
        return PlainAnswers(truths, self, device)

    @abstractmethod
    def figures(self, found: Evaluation, truth: Labels) -> dict[str, Any]:
        """The figures of an evaluation by name, `loss` and the score among them."""

    def validation_figures(self, found: Evaluation, truth: Labels) -> dict[str, Any]:
        """Those of `figures` that metrics.jsonl has of the validation set."""
        return {self.score.name: self.figures(found, truth)[self.score.name]}

    def kept(self, found: Evaluation, truth: Labels) -> dict[str, Labels]:
        """Arrays by name, a row for each image: what answers.npz has of the test images after the last epoch."""
        return {"truth": truth, "answers": found.answers}

    @abstractmethod
    def training_figures(self, answers: Labels, given: Labels) -> dict[str, float]:
        """Figures of the answers in training, which may lack samples (`unseen`), against the given labels; by the names
        that metrics.jsonl has."""

    @abstractmethod
    def shares(self, answers: Labels, given: Labels, clean: Labels) -> dict[str, float]:
        """How the samples with right and with wrong labels are answered; arrays as in `training_figures`."""

    def closing_figures(self, answers: Labels, given: Labels) -> dict[str, Any]:
        """Figures of the summary on what the network answers for the training images at the end, whatever is known of
        the true labels: answers [N, ...] beside the given labels [N, ...]. By default none."""
        return {}


class PlainAnswers(Answers):
    """What `Task.answer` says of each image, and the mean of `Task.loss`, of one run."""

    def __init__(self, truths: Sequence[Labels], task: Task, device: torch.device):
        super().__init__([task.table(truth) for truth in truths], device)
        (size,) = self.sizes
        self.task, self.found = task, task.unseen(size, device)
        self.loss = torch.zeros((), dtype=torch.float64, device=device)

    def keep(self, logits: Tensor, truth: Tensor, rows: Tensor) -> None:
        self.found[rows] = self.task.answer(logits)
        self.loss += self.task.loss(logits, truth) * len(rows)

    def evaluations(self) -> list[Evaluation]:
        (answers,), (weights,) = self.split(self.found), self.split(self.attention)
        return [Evaluation(answers, weights, float(self.loss) / len(answers))]


def differing(one: Labels, other: Labels) -> NDArray[np.bool_]:
    """Which rows of two arrays of labels [n] or [n, K] differ; bool [n]."""
    different = np.asarray(one != other)
    return different if different.ndim == 1 else np.asarray(different.any(1))


def find_task(name: str) -> type[Task]:
    """The task called `name`, or the class that FILE.py:NAME names; ConfigError if there is none."""
    if own.is_own(name):
        mine: type[Task] = own.load(name, "task", Task)
        if getattr(mine, "__abstractmethods__", None):
            raise ConfigError(f"--task {name}: it lacks {', '.join(sorted(mine.__abstractmethods__))}")
        return mine
    check_task(name)
    found: type[Task] = lazy.named(TASKS[name])
    return found
