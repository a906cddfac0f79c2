"""What a method may change in plain training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import DataConfig, OptimConfig
from ..data.balance import drawn_subset
from ..losses import TargetLoss
from ..losses.base import FusedLoss
from ..models import Network, Outputs
from ..models.heads import joint
from ..ops.looks import Scores
from ..options import MethodOptions
from ..tasks import Task
from ..tasks.classification import Classification
from .scan import Scan
from .shards import Shards


class Forward(NamedTuple):
    """What the forward half of a step gives; everything stays on the device."""

    loss: Tensor
    """Scalar, with gradient."""
    predictions: Tensor
    """[B] int64, the class that the networks together predict for each sample of `index`. For tasks other than
    classification: what `Task.answer` makes of their logits."""
    attention: Tensor | None = None
    """[B] float32, NAL's attention weight tau in (0, 1)."""
    logits: Tensor | None = None
    """[B, C] detached, what each sample of `index` is answered in training: the scores of its given label are of it
    (`Method.note_looks`). Of several views the first, of several networks the mean, unless they divide the batch. None
    if only mixtures of images go through the network: then there are no scores."""


class Phase(NamedTuple):
    """How some epochs are optimised, for methods that train in several phases."""

    learning_rate: float | None
    """None: as the run's schedule says, whose epochs are those without another rate."""
    weight_decay: float
    fresh: bool
    """Whether the epoch begins with a new optimiser, whose moments and momenta are zero."""
    second: bool = False
    """Whether the steps are those of `Method.second_optimizer`."""


class Selection(NamedTuple):
    """Samples that a method selected in the last epoch, and the classes that it assigns to them."""

    members: Tensor
    """[N] bool."""
    labels: Tensor | None = None
    """[N] int64, the classes of the members; other entries are not read. None: the given labels."""


@dataclass(frozen=True)
class Setting:
    """What a method knows about its run before the run begins."""

    optim: OptimConfig
    mean: tuple[float, ...]
    """Mean per channel of pixels scaled to 0..1. Images are (pixel - mean) / std."""
    std: tuple[float, ...]
    batch_size: int = DataConfig.batch_size
    """Samples in a full batch."""
    given: NDArray[Any] | None = None
    """[N, ...], the given labels of the training set; None if a step is tried without one."""
    epoch_batches: int | None = None
    """Batches of an epoch, if it has not all samples."""
    balanced: bool = False
    """Whether the classes of the given labels have equal shares of the samples that are drawn for an epoch."""

    def drawn(self, epoch: int, seed: int, share: int) -> NDArray[np.int64] | None:
        """The positions of the samples that are drawn for an epoch, 1 / `share` of a batch's for each of its batches,
        in random order; None if it has all."""
        if self.epoch_batches is None:
            return None
        assert self.given is not None
        return drawn_subset(self.given, self.epoch_batches * self.batch_size // share, seed, epoch, self.balanced)


@dataclass(frozen=True)
class Estimates:
    """The method's estimate for each training sample, in the order of the training set."""

    labels: Tensor
    """[N] int64, the corrected class."""
    confidence: Tensor
    """[N] float32 in [0, 1]: how sure the method is that the given label is right."""
    suspected: Tensor
    """[N] bool: the samples that are probably mislabelled."""
    attention: Tensor | None = None
    """[N] float32 in (0, 1), NAL's attention weights."""


def nothing_collected() -> None:
    """The scores of a run that collects none."""


@dataclass
class Run:
    """What a method sees of the run between two epochs. It may change `labels`, in place."""

    epoch: int
    """The epoch that has just ended, counted from 1; 0 before the first."""
    epochs: int
    seed: int
    networks: Sequence[Network]
    given: Tensor
    """[N] int64, the labels as they came."""
    labels: Tensor
    """[N] int64, the label table that the training steps read. Write pseudo-labels here."""
    scan: Scan
    """One pass over the training set in order, in evaluation mode and without augmentation. scan(f) calls f with each
    batch's outputs and keeps what it returns, one row for each sample (`Scan`)."""
    warn: Callable[[str], None]
    """Shows the user a warning of one line."""
    scores: Callable[[], Scores | None] = nothing_collected
    """scores() has what the steps so far have seen of each given label, [N] each (`Scores`); None if nothing is
    collected."""

    def warn_of_prelude(
        self, method: "Method", before: int = 0, what: str = "warm-up, plain cross-entropy", /, **options: int
    ) -> None:
        """Warn before the first epoch if the run ends within the method's prelude.

        Args:
            method: the run's.
            before: epochs of other kinds at its beginning.
            what: the prelude's other epochs are.
            options: name of an option that makes it shorter -> its value.
        """
        if self.epoch or method.prelude < self.epochs:
            return
        lower = " or ".join(f"--{name.replace('_', '-')} ({value})" for name, value in options.items() if value)
        self.warn(
            f"{method.name}: all {self.epochs - before} epochs are {what}; give more --epochs, or a lower {lower}"
        )

    def random(self, purpose: int) -> np.random.Generator:
        """Random numbers of this epoch, which depend only on (seed, epoch, purpose)."""
        return random_numbers(self.seed, self.epoch, purpose)


def random_numbers(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """NumPy's Philox generator with key (seed, epoch) and one stream per purpose. Loaders use other streams."""
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, 16 + purpose]))


class Method(nn.Module):
    """One way of training on wrong labels: networks, losses, and what happens around steps and between epochs.

    The trainer knows a method only by this interface. A subclass sets the class attributes, builds what it needs in
    `__init__` (calling super().__init__() first) and overrides the hooks it needs. Keep whatever changes in training in
    buffers and submodules: the state_dict is the method's part of a checkpoint, and a captured graph reads only
    tensors.

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
    """The dataclass of the method's options. The command line, TOML files and sweeps take them beside the fields that
    every run has."""
    attention: bool = False
    """Whether the networks get NAL's attention branch. It may depend on the options."""
    features: bool = False
    """Whether the method needs the features before the last layer. A user's network may give only logits."""
    networks: int = 1
    """Number of networks, which train side by side from different initial weights. It may depend on the options."""
    views: int = 1
    """Augmented views of each sample in a batch: images come as [views * B, ...], view after view."""
    weak_views: int = 1
    """How many of several views, from the first on, --augment's RandAugment and AutoAugment leave out."""
    full_precision_images: bool = False
    """Whether images always come in float32, for a method that computes with pixels and needs the precision. Otherwise
    they come as the network takes them, in the dtype of mixed precision."""
    program: int = 0
    """Number of the training step that runs, for a method with several (a warm-up, then the method). Set it in
    `start_epoch`. When it changes, the step is compiled and captured anew."""

    second_optimizer: ClassVar[str] = ""
    """An optimiser as --optimizer names it, for phases that ask for it (`Phase.second`); "" if there are none. Which
    layers a phase trains, a method says by `requires_grad_` of their parameters in `start_epoch`; those that have been
    frozen before the run stay so."""
    per_sample: tuple[str, ...] = ()
    """Names (dotted paths) of the buffers that have a row for each training sample."""
    draws: ClassVar[int] = 0
    """For a method with an `order` of its own: by which share of a batch it draws the samples of an epoch of
    --epoch-batches (`Setting.drawn`); 0 if its order needs all samples."""
    stackable: ClassVar[bool] = False
    """Whether several runs of the method can be trained as one (`fastnoise.engine.stacked`). Conditions: it trains one
    network by `loss`; its `criterion` also has reduction "none"; a sample's loss depends only on its own outputs and
    rows; of the run, hooks between epochs use only `Run.scan`, without features. A subclass does not inherit it."""

    learns_true_labels: ClassVar[bool] = False
    """Whether it learns from the true labels where they are known: for a network that noise is made from. All other
    methods learn from the given ones, whatever is known."""
    weighted: ClassVar[bool] = False
    """Whether the method's loss takes class weights (--balance weights), by `weight_of`. `loss` as it is does, with one
    of fastnoise's losses as the criterion. A subclass does not inherit it."""
    shares: ClassVar[int] = 0
    """Parts of equal size into which a batch is divided, each for a network by itself, where the method orders an epoch
    by `order`. 0: it divides none."""
    whole_batches: ClassVar[bool] = False
    """Of a method with `shares`: whether it also has epochs in the loader's order, of whose batches a network gets one
    view of all images."""

    fused_head: bool = False
    """Whether a training step does nothing with the logits but give them to one loss of fastnoise, reduced to a mean
    and without weights of samples, and to `Task.answer` after it. Then `--fused-head` can leave them unwritten. It may
    depend on the options. A subclass does not inherit it."""

    parallel: ClassVar[bool] = False
    """Whether several processes can train a run of the method together. Conditions: what a step writes for its samples
    is in `sharded` or made common by `exchange`; all other buffers change in the same way in all processes, or between
    epochs, when those of the first process replace the others'. A subclass does not inherit it."""
    shards: Shards = Shards()
    """The samples that this process trains; set before `configure`."""

    criterion: nn.Module
    """The loss with its per-sample state."""
    class_weights: Tensor | None
    """float32 [C], set before `configure` if the run has --balance weights."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name in ("stackable", "weighted", "parallel", "fused_head"):
            setattr(cls, name, vars(cls).get(name, False))

    def __init__(self, options: MethodOptions, num_samples: int, num_classes: int):
        super().__init__()
        self.register_buffer("class_weights", None, persistent=False)

    def configure(self, setting: Setting) -> None:
        """Called once, before all other hooks. ConfigError if the setting contradicts the method's options."""

    def attach(self, networks: Sequence[Network]) -> None:
        """Called once before the first step with the networks, on their device. Make averaged copies here."""

    # -- inside the step: tensors only, compiled fullgraph ---------------------------------------------------

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        """Forward pass and loss of a batch.

        images: [views * B, channels, H, W] channels_last, in the dtype of mixed precision if that is on; labels: int64
        [B], from the label table; index: int64 [B].
        The default sends the batch through the one network and calls `loss`.
        """
        outputs: Outputs = networks[0](images)
        attention = None if outputs.attention is None else outputs.attention.detach().float().sigmoid()
        loss, logits = self.loss(outputs, labels, index), outputs.logits.detach()
        return Forward(loss, self.task.answer(logits), attention, logits)

    def loss(self, outputs: Outputs, labels: Tensor, index: Tensor) -> Tensor:
        """Mean loss of a batch for methods with one network: a scalar, differentiable in the outputs."""
        loss: Tensor = self.criterion(outputs.logits, labels, index, **self.weight_of(labels))
        return loss

    def note_looks(self, looks: Tensor) -> bool:
        """Let the loss of each training step note what it sees of the given labels in this table (`ops.looks`).

        Returns False if it can't; then the step notes the logits that are in `Forward`. By default the loss does if
        the method is one with `fused_head`: one loss gets the logits of a step, as they are.
        """
        if not (self.fused_head and isinstance(self.criterion, FusedLoss) and self.criterion.notes):
            return False
        self.criterion.looks = looks
        return True

    def weight_of(self, labels: Tensor) -> dict[str, Tensor]:
        """The keyword `weight` [B] of a loss by class weights; none if the run has no class weights."""
        return {} if self.class_weights is None else {"weight": self.class_weights[labels]}

    def after_update(self, networks: Sequence[Network]) -> None:
        """Called after each update of the weights, inside the captured graph. Update averages of weights here."""

    def predict(self, networks: Sequence[Network], images: Tensor) -> Outputs:
        """The answer for unseen images: one network's outputs, or the mean of the networks' logits.

        If a method answers in another way, its model file keeps the method's buffers that have no row for each sample,
        and whoever uses the file names the method.
        """
        return joint(networks, images)

    # -- between steps and epochs ----------------------------------------------------------------------------

    def rounds(self, epochs: int) -> Sequence[int]:
        """The number of epochs of each round of training that a run of `epochs` consists of; their sum is `epochs`.

        Each round begins with a new optimiser and has its own learning-rate schedule. `end_epoch` decides whether the
        weights are kept.
        """
        return (epochs,)

    def end_obstacle(self, epochs: int) -> str | None:
        """Why a run that has ended after `epochs` cannot go on to more, in words that follow the method's name; None if
        it can, because `end_epoch` did all that the next epoch needs."""
        return None

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        """Called on the host before each step; batch counts from 0. It may only write to buffers, without waiting."""

    def start_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 1, and again if a run resumes inside the epoch."""

    def at_rate(self, learning_rate: float) -> None:
        """Called after `start_epoch` with the learning rate at which the epoch begins, for a method that updates
        something by itself and follows the run's schedule."""

    @property
    def prelude(self) -> int:
        """The last epoch before the method's own part begins, as after a warm-up of plain cross-entropy; 0 if it has
        no such prelude."""
        return 0

    def phase(self, epoch: int) -> Phase | None:
        """How `epoch` is optimised. None: as the run's schedule says."""
        return None

    def order(self, epoch: int, seed: int) -> np.ndarray | None:
        """The samples of an epoch in order: int64 positions, which may repeat. None: each sample once, shuffled.

        It must depend only on (epoch, seed) and the method's buffers, so that a resumed epoch has the same order.
        """
        return None

    def end_epoch(self, run: Run) -> None:
        """Called once before the first epoch (run.epoch is 0) and after each. Fit, select and relabel here."""

    def report(self) -> dict[str, float]:
        """Figures that the method adds to the metrics of the epoch."""
        return {}

    def selections(self) -> dict[str, Selection]:
        """The selections of the last epoch, by name. The trainer adds their figures to the metrics; if it knows the
        true labels, these include precision and recall."""
        return {}

    # -- among several processes that train the run --------------------------------------------------------------

    def sharded(self) -> dict[str, int]:
        """The buffers that have rows for the samples of this process alone: name in `state_dict` -> their dimension.

        By default the targets of every loss.
        """
        return {
            f"{name}.{table}" if name else table: 0
            for name, module in self.named_modules()
            if isinstance(module, TargetLoss)
            for table in ("targets", "visits")
            if getattr(module, table) is not None
        }

    def exchange(self) -> None:
        """Called at the end of an epoch, before `end_epoch`, and only if several processes train the run: give all of
        them what the steps of each have written (`Shards.share_`, `Shards.sum_`)."""

    # -- among several runs that are trained as one ----------------------------------------------------------

    @classmethod
    def stack_obstacle(cls, options: Any) -> str | None:
        """Why a `stackable` method with these options can't be stacked, in one line; None if it can."""
        return None

    def settle(self, attention: Tensor | None) -> None:
        """Receive what the joint steps of several runs did not record for this method. Called before `end_epoch` and
        before a checkpoint inside an epoch.

        attention: [N] float32, the epoch's attention weights, NaN for samples not yet visited; None without a branch.
        """

    # -- what the run has found out --------------------------------------------------------------------------

    def corrected(self, labels: Tensor) -> Tensor | None:
        """The method's current class for each training sample, int64 [N], on the device of `labels`.

        `labels`, int64 [N], are the given labels. None for a method that corrects nothing.
        """
        return None

    def estimates(self, run: Run) -> Estimates | None:
        """The corrected labels with their confidence, at the end of a run. None for a method that estimates none."""
        return None
