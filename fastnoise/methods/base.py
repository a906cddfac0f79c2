"""What a method may change in plain training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..config import DataConfig, OptimConfig
from ..models import Network, Outputs
from ..options import MethodOptions
from ..tasks import Task
from ..tasks.classification import Classification
from .scan import Scan


class Forward(NamedTuple):
    """What the forward half of a step gives; everything stays on the device."""

    loss: Tensor
    """Scalar, with gradient."""
    predictions: Tensor
    """[B] int64, the class that the networks together give each sample of `index` in training; of other tasks than
    classification what `Task.answer` makes of their logits."""
    attention: Tensor | None = None
    """[B] float32, NAL's attention weight tau in (0, 1)."""


class Phase(NamedTuple):
    """How a stretch of epochs is optimised, for methods that train in several."""

    learning_rate: float
    weight_decay: float
    fresh: bool
    """Whether the epoch begins with a new optimiser: moments and momenta are zero again."""


class Selection(NamedTuple):
    """Samples that a method picked in the epoch that has just ended, and what it takes them to be."""

    members: Tensor
    """[N] bool."""
    labels: Tensor | None = None
    """[N] int64, the members' classes; what it holds for others is not read. None: the given labels."""


@dataclass(frozen=True)
class Setting:
    """What a method may know of its run before the run begins."""

    optim: OptimConfig
    mean: tuple[float, ...]
    """Per channel, of pixels scaled to 0..1: images come as (pixel - mean) / std."""
    std: tuple[float, ...]
    batch_size: int = DataConfig.batch_size
    """Samples in a full batch."""


@dataclass(frozen=True)
class Estimates:
    """What a method takes each training sample to be, in the order of the training set."""

    labels: Tensor
    """[N] int64, the corrected class."""
    confidence: Tensor
    """[N] float32 in [0, 1]: how sure the method is that the given label is right."""
    suspected: Tensor
    """[N] bool: the samples that it takes to be mislabelled."""
    attention: Tensor | None = None
    """[N] float32 in (0, 1), NAL's attention weights."""


@dataclass
class Run:
    """What a method sees of the run between two epochs, and may change: `labels`, in place."""

    epoch: int
    """The epoch that has just ended, from 1; 0 before the first."""
    epochs: int
    seed: int
    networks: Sequence[Network]
    given: Tensor
    """[N] int64, the labels as they came."""
    labels: Tensor
    """[N] int64, the label table that the steps read; pseudo-labels are written here."""
    scan: Scan
    """One pass over the training set in order, in evaluation mode and without augmentation: scan(f) keeps what f makes
    of each batch's outputs, a row for each sample (`Scan`)."""
    warn: Callable[[str], None]
    """Tells the user something, once a line."""

    def random(self, purpose: int) -> np.random.Generator:
        """Random numbers of this epoch, a function of (seed, epoch, purpose) alone."""
        return random_numbers(self.seed, self.epoch, purpose)


def random_numbers(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """NumPy's Philox keyed by (seed, epoch) with a stream per purpose; loaders use the purposes below 16."""
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, 16 + purpose]))


class Method(nn.Module):
    """One way of training on wrong labels: networks, losses, and what happens around steps and between epochs.

    The trainer knows methods by this interface alone. A subclass sets the class attributes, builds what it needs in
    `__init__` (calling super().__init__() first) and overrides the hooks it needs. Whatever changes while training is
    kept in buffers and submodules: the state_dict is the method's part of a checkpoint, and a captured graph reads
    tensors only.

    Args:
        options: an instance of `Options`, already checked.
        num_samples: N, the size of the training set.
        num_classes: C.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[str, ...] | None] = ("classification",)
    """The tasks that it serves, by name; None: every one, since it takes loss and answers from `task`."""
    task: Task = Classification()
    """What is learnt (`fastnoise.tasks`); set before `configure`."""
    Options: ClassVar[type[MethodOptions]] = MethodOptions
    """The dataclass of its options: what the command line, TOML files and sweeps take for it beside the fields that
    every run has."""
    attention: bool = False
    """Whether the networks get NAL's attention branch; may depend on the options."""
    features: bool = False
    """Whether the method works on features, which a network of the user's that gives logits alone has not."""
    networks: int = 1
    """How many networks are trained side by side, from different initial weights; may depend on the options."""
    views: int = 1
    """Augmented views of each sample in a batch: images come as [views * B, ...], view after view."""
    full_precision_images: bool = False
    """Whether images come in float32 whatever the step's precision, for a method that computes with pixels in ways that
    half precision would show in; others get them as the network takes them, in the dtype of mixed precision."""
    program: int = 0
    """Which of the method's steps runs, set in `start_epoch`: where it changes, the step is compiled and captured
    anew, so that different ones may follow each other (a warm-up, then the method)."""

    per_sample: tuple[str, ...] = ()
    """Its buffers that have a row for each training sample, by their paths."""
    stackable: ClassVar[bool] = False
    """Whether several runs of the method can be trained as one (`fastnoise.engine.stacked`). It trains one network by
    `loss`, its `criterion` has reduction "none" too, a sample's loss is that of its own outputs and rows, and hooks
    between epochs ask for `Run.scan` alone, without features. Each class says so for itself: what a subclass overrides
    may differ."""

    criterion: nn.Module
    """The loss with its per-sample state."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.stackable = vars(cls).get("stackable", False)

    def __init__(self, options: MethodOptions, num_samples: int, num_classes: int):
        super().__init__()

    def configure(self, setting: Setting) -> None:
        """Called once, first of all hooks; ConfigError where the setting contradicts the method's options."""

    def attach(self, networks: Sequence[Network]) -> None:
        """Called once with the networks, on their device, before the first step: the place to make averaged copies."""

    # -- inside the step: tensors only, compiled fullgraph ---------------------------------------------------

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        """Forward pass and loss of a batch.

        images: [views * B, channels, H, W] channels_last, in the dtype of mixed precision where that is on; labels:
        int64 [B], from the label table; index: int64 [B].
        The default sends the batch through the one network and takes `loss`.
        """
        outputs: Outputs = networks[0](images)
        attention = None if outputs.attention is None else outputs.attention.detach().float().sigmoid()
        return Forward(self.loss(outputs, labels, index), self.task.answer(outputs.logits.detach()), attention)

    def loss(self, outputs: Outputs, labels: Tensor, index: Tensor) -> Tensor:
        """Mean loss of a batch for methods with one network: a scalar, differentiable in the outputs."""
        loss: Tensor = self.criterion(outputs.logits, labels, index)
        return loss

    def after_update(self, networks: Sequence[Network]) -> None:
        """Called after each update of the weights, inside the captured graph: averages of weights move here."""

    def predict(self, networks: Sequence[Network], images: Tensor) -> Outputs:
        """The answer for unseen images: one network's outputs, or the mean of the networks' logits."""
        if len(networks) == 1:
            outputs: Outputs = networks[0](images)
            return outputs
        return Outputs(torch.stack([network(images).logits for network in networks]).mean(0))

    # -- between steps and epochs ----------------------------------------------------------------------------

    def rounds(self, epochs: int) -> Sequence[int]:
        """Lengths of the trainings that a run of `epochs` consists of, with `epochs` as their sum.

        Each begins with a new optimiser and has the learning rate's schedule to itself. What becomes of the weights is
        up to `end_epoch`.
        """
        return (epochs,)

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        """Called on the host before each step, batch counted from 0; may only write to buffers, without a wait."""

    def start_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 1, and again when a run resumes inside one."""

    def phase(self, epoch: int) -> Phase | None:
        """How `epoch` is optimised; None leaves it to the run's schedule."""
        return None

    def order(self, epoch: int, seed: int) -> np.ndarray | None:
        """The samples of an epoch, int64 positions that may repeat, cut into batches in turn; None: each once.

        A function of (epoch, seed) and the method's buffers, so that a resumed epoch has the same order.
        """
        return None

    def end_epoch(self, run: Run) -> None:
        """Called once before the first epoch (run.epoch 0) and after each: fits, selections and relabelling."""

    def report(self) -> dict[str, float]:
        """Figures of the epoch that the method adds to the metrics."""
        return {}

    def selections(self) -> dict[str, Selection]:
        """The selections of the epoch that has just ended, by name: the trainer, which knows true labels where there
        are any, adds their figures to the metrics."""
        return {}

    # -- among several runs that are trained as one ----------------------------------------------------------

    @classmethod
    def stack_obstacle(cls, options: Any) -> str | None:
        """Why runs with these options can't be trained as one although the method is `stackable`, in one line."""
        return None

    def settle(self, attention: Tensor | None) -> None:
        """Take up what the steps of all runs together have not told the method; called before `end_epoch` and before
        a checkpoint inside an epoch.

        attention: [N] float32, the weights of the epoch's samples, NaN where not visited; None without a branch.
        """

    # -- what the run has found out --------------------------------------------------------------------------

    def corrected(self, labels: Tensor) -> Tensor | None:
        """The class int64 [N] that the method now takes each training sample to be, on the device of `labels`.

        `labels` int64 [N] are the given ones. None for a method that corrects nothing.
        """
        return None

    def estimates(self, run: Run) -> Estimates | None:
        """The corrected labels with confidence, at the end of a run; None for a method that estimates none."""
        return None
