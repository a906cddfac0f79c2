"""What all losses share: the base classes of the families' modules."""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, Unpack

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DataError, FastnoiseError
from ..lazy import named
from ..ops.tables import FixedDtype, Placement, local_rows
from .forms import REDUCTIONS, Form, LossOptions, check_soft, check_weight, is_soft, numbers, one_of, run, within
from .naming import names_its_class, renamed
from .tables import TARGET_DTYPES, Place, Storage, check_memory, fit_state, page_locked, shard_rows, storage_now

ON_DEVICE = 1 << 24
"""Numbers of a table on the host that are on a device at once where all of it is read: 64 MiB in float32."""
RECIPES = "fastnoise.recipes.of_losses:loss_options"
"""The function behind `FusedLoss.recipe`. The recipes stand above the losses, so it is looked up when it is called."""


def _whole(name: str, value: Any) -> int:
    """A size as an int; ConfigError if it is none."""
    try:
        return operator.index(value)
    except TypeError:
        raise ConfigError(f"{name} is {value!r}: give a whole number") from None


class FusedLoss(nn.Module):
    """A loss whose op gives one value per sample.

    Args that all losses share:
        reduction: "mean", "sum", or "none" for the loss [B] of each sample.
        ignore_index: a label, in 0..C-1 or not. Samples with this label have loss and gradient 0, and their targets do
            not change. The mean is over the other samples, and 0 if there are none. By default no label is special.
        class_weight: [C] floating point, a factor for each class, or None. The loss of a sample is multiplied by the
            factor of its label, as if `weight` were class_weight[labels]; with soft labels by sum_k labels_k
            class_weight_k. It moves with the module and is not in the `state_dict`.

    Called as `loss(logits, labels, index=None, *, weight=None)`: logits [B, C] float32, float16 or bfloat16; labels [B]
    int64 in 0..C-1, or soft labels (below); index is not used; weight [B], of any floating dtype, multiplies each
    sample's loss. The mean divides by the number of samples, whatever their weights (F.cross_entropy divides by the sum
    of the class weights instead). Returns float32, [] or [B], differentiable once in logits and weight.

    Soft labels are [B, C] of a floating dtype, without a gradient. What they mean is said by each class: most losses
    are then sum_k labels_k L(k), with L(k) the loss of the hard label k. They need not sum to 1, and take no
    ignore_index. They are computed in plain PyTorch, in float32, but for CrossEntropyLoss and ELRLoss, which stay
    fused. JSLoss and GJSLoss are plain PyTorch for all labels. SELCLoss and NALLoss take them for a sample's first
    target. ELRPlusLoss, which has pairs of labels, SOPLoss and losses that `fastnoise.losses.rule` made take none.

    Tensors of another form raise DataError. A label out of range raises DataError on the CPU; on a CUDA device it makes
    that sample's loss and gradient NaN, and nothing waits for the device. Options out of range raise ConfigError, and
    unknown ones TypeError. All messages begin with the name of the class.
    """

    class_weight: Tensor | None
    looks: Tensor | None = None
    """Where calls in training mode note what they see of the labels (`ops.looks`), in the rows `index`. No buffer:
    it belongs to who gives it."""
    notes: ClassVar[bool] = True
    """Whether calls with hard labels and an index note looks."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            setattr(cls, "__init__", names_its_class(vars(cls)["__init__"]))  # noqa: B010 (mypy refuses a method)

    def __init__(
        self,
        *,
        reduction: str = "mean",
        ignore_index: int | None = None,
        class_weight: Tensor | None = None,
    ):
        super().__init__()
        self.shown: dict[str, Any] = {}
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.ignore_index = ignore_index
        if class_weight is not None:
            class_weight = torch.as_tensor(class_weight, dtype=torch.float32)
            if class_weight.dim() != 1 or not bool(((class_weight >= 0) & (class_weight < math.inf)).all()):
                raise ConfigError(
                    f"class_weight is {numbers(class_weight)}: it must be [C], a factor per class, finite and not "
                    "negative"
                )
        self.register_buffer("class_weight", class_weight, persistent=False)

    @classmethod
    def recipe(cls, dataset: str, noise: str | None = None, *, variant: str | None = None, **options: Any) -> Self:
        """The loss with the published options of its method on a data set, as `fastnoise train` takes them.

            loss = ELRLoss.recipe("cifar10", num_samples=len(dataset))
            loss = SCELoss.recipe("cifar100", "asymmetric:0.4", reduction="none")

        The numbers, and where each is from, are in `fastnoise.recipes` (for ELR, `help(fastnoise.recipes.elr)`). For
        data sets without published results they are those that `fastnoise train` takes, which these docstrings name.

        Args:
            dataset: its name, such as "cifar10". It also sets `num_classes` of losses with targets.
            noise: a noise spec such as "symmetric:0.4", if the options depend on it; by default the recipe's own.
            variant: "paper" or "code", for methods that have both.
            options: other arguments of the class. Losses with targets need num_samples, ForwardLoss its transition. One
                that the recipe has too replaces it.

        Raises:
            ConfigError: no recipe is known for the data set or the loss, with those that there are; or `noise` or
                `variant` is unknown.
        """
        found = named(RECIPES)([base.__name__ for base in cls.__mro__], dataset, noise, variant)
        if issubclass(cls, TargetLoss):
            found = {"num_classes": found.pop("num_classes"), **found}
        else:
            found.pop("num_classes")
        return cls(**(found | options))

    def run(
        self,
        form: Form,
        *tensors: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        by_class: bool = True,
        index: Tensor | None = None,
        **keywords: Any,
    ) -> Tensor:
        """Call the form's op, or its PyTorch function for soft labels. Errors name this class.

        Without `by_class` the classes' factors are left out: the caller's `weight_of` has them. `index`: of an op that
        takes none, to note looks.
        """
        keywords = {"ignore_index": self.ignore_index, "reduction": self.reduction, **keywords}
        if self.looks is not None and self.training and (index is not None or "index" in form.op.tensors):
            keywords |= {"looks": self.looks, "look_index": index}
        try:
            weight = self.weight_of(tensors[0], labels, weight) if by_class else weight
            return run(form, *tensors, labels=labels, weight=weight, **keywords)
        except FastnoiseError as error:
            renamed(error, type(self), form.op.name)
            raise

    def weight_of(self, logits: Any, labels: Tensor, weight: Tensor | None) -> Tensor | None:
        """The factor [B] of each sample: `weight` times that of its class. None if there is neither."""
        if self.class_weight is None:
            return weight
        factors = self.class_weight
        if isinstance(logits, Tensor) and logits.dim() == 2 and logits.shape[1] != len(factors):
            raise DataError(
                f"{type(self).__name__}: class_weight has {len(factors)} factors, the logits {logits.shape[1]} classes"
            )
        if not isinstance(labels, Tensor) or (
            labels.shape[1:] != factors.shape if is_soft(labels) else labels.dtype != torch.int64 or labels.dim() != 1
        ):
            return weight  # the op refuses such labels
        if isinstance(logits, Tensor) and labels.shape[:1] != logits.shape[:1]:
            return weight  # these too
        found = labels.float().mul(factors).sum(1) if is_soft(labels) else factors[labels.clamp(0, len(factors) - 1)]
        if weight is None:
            return found
        check_weight(type(self).__name__, weight, found.shape)
        return found * weight

    def extra_repr(self) -> str:
        weight = None if self.class_weight is None else numbers(self.class_weight)
        options = {"reduction": repr(self.reduction), "ignore_index": self.ignore_index, "class_weight": weight}
        shown = {
            name: f"float32 {list(v.shape)}" if isinstance(v, Tensor) else repr(v) for name, v in self.shown.items()
        }
        return ", ".join(f"{name}={value}" for name, value in (shown | options).items())


class LabelLoss(FusedLoss):
    """A loss of logits and labels alone, with constant options.

    Args:
        form: the op and its options.
        shown: the module's own options by name, for its `repr`.
        options: see FusedLoss.
    """

    def __init__(self, form: Form, shown: Mapping[str, Any], /, **options: Unpack[LossOptions]):
        super().__init__(**options)
        self.form, self.shown = form, dict(shown)

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor | None = None, *, weight: Tensor | None = None
    ) -> Tensor:
        return self.run(self.form, logits, labels, labels=labels, weight=weight, index=index)


class TargetLoss(FixedDtype, FusedLoss):
    """A loss with a soft target for each training sample. Each visit of a sample updates its target in place.

    `targets`, [num_samples, num_classes], is a buffer: it is saved in `state_dict` and moves with the module, but keeps
    its dtype when the module is cast. A row of zeros was never updated (SOPLoss begins otherwise). `knobs`, float32
    [3], holds update flag, momentum and strength on the device. They can be written in place during training; a
    captured graph stays valid.

    Keyword arguments that every loss with targets takes:
        target_dtype: float32 by default. bfloat16 and float16 halve the table; its values then lie in [0, 1]. The
            arithmetic stays in float32, and the updated row is rounded stochastically, because a moving average stalls
            under rounding to nearest. The random bits are a hash of (seed, sample, `visits`, column), the same on every
            device. `visits`, int32 [num_samples], counts the visits of each row and is saved, so that a resumed run
            continues with the same bits.
        target_place: "device" by default. "host" is for tables that a GPU has no room for: `targets` and `visits` stay
            in host memory wherever the module goes. If it goes to a CUDA device, this memory is page-locked, and the
            kernels read and write the rows of a batch in it, over the bus. There is no further launch, copy or wait, in
            a captured graph either, and the bits are the same. The host must wait for the device before it reads the
            table, as `state_dict` does.
        shard: (rank, world), for training in several processes. The table then holds the samples with
            index % world == rank, in row index // world. Give this process only those samples, for example by a sampler
            over range(rank, num_samples, world); any other sample counts as an index out of range. The updates equal
            those of one whole table, rounding included. The state of a shard says which shard it is.
            `fastnoise.losses.merge_shards` merges the states of all shards, and a shard that loads a whole table takes
            its own rows. Keep the loss out of DistributedDataParallel, which would overwrite the buffers of every shard
            with those of rank 0.
        seed: of the rounding, in 0..2^31 - 1.
    Where they are left out, a surrounding `fastnoise.losses.tables.storing(...)` decides.
    `fastnoise.losses.table_bytes` says how much memory a table takes. A table that does not fit on the current default
    device (`with torch.device("cuda"): ...`) raises ConfigError.

    The indices of a batch must be distinct. On a CUDA device the copies of a duplicate race: the loss of a copy may fit
    no order of the updates, it is undefined which update stays in the table, and nothing is raised, because a check
    would make every step wait. With `fastnoise.losses.debug` every call checks and raises DataError, on every device.

    Each call in training mode updates the targets. After `eval()`, or with update=False, no call does. Activation
    checkpointing calls a loss again during the backward pass. Such a call reads the targets that the first call has
    written and updates nothing, so that loss and gradient are the same (in half precision, up to the rounding of the
    targets; SOPLoss is no loss for it). Calls before training, such as the warm-up of a CUDA graph, count as visits
    unless `set_update(False)` was called. Evaluate with CrossEntropyLoss, since an evaluation set has no rows here.

    If a logit of a sample is NaN or +inf (in NALLoss also its attention), for example after an overflow in half
    precision, its targets and `visits` stay as they are. Its loss and gradient are not finite, so that a GradScaler
    skips the step. A logit of -inf masks its class and updates as usual.
    """

    targets: Tensor
    visits: Tensor | None
    knobs: Tensor
    layout: Tensor | None
    rates: ClassVar[tuple[str, ...]] = ("strength", "momentum")
    """The options that the knobs hold."""

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        *,
        strength: float,
        momentum: float,
        reduction: str = "mean",
        ignore_index: int | None = None,
        class_weight: Tensor | None = None,
        **storage: Unpack[Storage],
    ):
        super().__init__(reduction=reduction, ignore_index=ignore_index, class_weight=class_weight)
        num_samples, num_classes = _whole("num_samples", num_samples), _whole("num_classes", num_classes)
        if num_samples < 1:
            raise ConfigError(f"num_samples is {num_samples}: give the size of the training set, at least 1")
        if num_classes < 2:
            raise ConfigError(f"num_classes is {num_classes}: a softmax loss needs at least 2")
        if not 0 <= momentum < 1:
            raise ConfigError(f"momentum is {momentum}: it must lie in [0, 1)")
        if not 0 <= strength < float("inf"):
            raise ConfigError(f"strength is {strength}: it must be finite and not negative")
        kept: Storage = {**storage_now(), **storage}
        self.register_table(num_samples, num_classes, **kept)
        self.register_buffer("knobs", torch.tensor([1.0, momentum, strength], dtype=torch.float32), persistent=False)

    def register_table(
        self,
        num_samples: int,
        num_classes: int,
        target_dtype: torch.dtype = torch.float32,
        target_place: Place = "device",
        shard: tuple[int, int] = (0, 1),
        seed: int = 0,
    ) -> None:
        """Make the buffers of the table; ConfigError for what `TargetLoss` does not allow."""
        if target_dtype not in TARGET_DTYPES:
            raise ConfigError(f"target_dtype is {target_dtype}: it must be torch.float32, bfloat16 or float16")
        rank, world = shard
        if not 0 <= rank < world <= num_samples:
            raise ConfigError(
                f"shard is {shard}: give (rank, world) with 0 <= rank < world, and at most {num_samples} shards"
            )
        if not 0 <= seed < 2**31:
            raise ConfigError(f"seed is {seed}: it must lie in 0..2^31 - 1")
        self.on_host = one_of("target_place", target_place, ("device", "host")) == "host"
        device = torch.device("cpu") if self.on_host else torch.get_default_device()
        check_memory(num_samples, num_classes, target_dtype, shard, device)
        self.num_samples, self.shard, self.seed = num_samples, (rank, world), seed
        rows = shard_rows(num_samples, shard)
        self.register_buffer("targets", torch.zeros(rows, num_classes, dtype=target_dtype, device=device))
        half = target_dtype != torch.float32
        self.is_whole = world == 1 and not half
        self.register_buffer("visits", torch.zeros(rows, dtype=torch.int32, device=device) if half else None)
        self.register_buffer("layout", torch.tensor([rank, world, num_samples]) if world > 1 else None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move everything, but not a table that stays on the host."""
        if not self.on_host:
            return super()._apply(fn, recurse)
        kept = [table for table in (self.targets, self.visits) if table is not None]
        super()._apply(lambda tensor: tensor if any(tensor is table for table in kept) else fn(tensor), recurse)
        self._lock_pages()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:  # of a copy, whose memory is not locked
        super().__setstate__(state)
        self._lock_pages()

    def _lock_pages(self) -> None:
        if self.on_host and self.knobs.is_cuda and not self.targets.is_pinned():
            self.targets = page_locked(self.targets)
            self.visits = None if self.visits is None else page_locked(self.visits)

    def require_room(self, device: torch.device) -> None:
        """ConfigError if the table goes with the module to a device that has too little memory for it."""
        if not self.on_host and self.targets.device != device:
            check_memory(self.num_samples, self.targets.shape[1], self.targets.dtype, self.shard, device)

    def _wait(self) -> None:
        """Wait for the kernels that write to a table on the host, before the host reads it or writes to it."""
        if self.on_host and self.knobs.is_cuda:
            torch.cuda.synchronize(self.knobs.device)

    @property
    def placement(self) -> Placement:
        """How the table is stored, as the ops take it."""
        return Placement(self.visits, *self.shard, self.seed)

    def set_update(self, update: bool) -> None:
        """Say whether later calls update the targets. Written on the device, without waiting for it."""
        self.knobs[0].fill_(float(update))

    def set_strength(self, strength: float) -> None:
        """Set the strength for later calls, as for a ramp. Written on the device, without waiting for it."""
        self.knobs[2].fill_(within(f"{type(self).__name__}: strength", strength, 0))

    def run_table(
        self, form: Form, *tensors: Tensor, labels: Tensor, weight: Tensor | None, update: bool = True, **keywords: Any
    ) -> Tensor:
        """`run` for an op whose tensors end in targets and knobs. In evaluation mode it updates nothing."""
        return self.run(
            form,
            *tensors,
            self.targets,
            self.knobs,
            labels=labels,
            weight=weight,
            update=update and self.training,
            placement=None if self.is_whole else self.placement,
            on_host=self.on_host,
            **keywords,
        )

    def run_first(
        self, form: Form, logits: Tensor, *tensors: Tensor, labels: Tensor, index: Tensor, **keywords: Any
    ) -> Tensor:
        """`run_table` for a loss whose first target is the label; a soft label then is the first target itself.

        The soft labels of samples without a target are in the table while the op runs. A row that it leaves as it is
        (no update, or a logit of NaN) is zero again afterwards, for a target that was never updated.
        """
        if not is_soft(labels):
            return self.run_table(form, logits, *tensors, labels=labels, **keywords)
        check_soft(type(self).__name__, logits, labels)
        if self.on_host and self.knobs.is_cuda:
            raise ConfigError(
                f"{type(self).__name__}: soft labels need the table on the device (target_place='device')"
            )
        hard = labels.argmax(1)
        given = [hard if tensor is labels else tensor for tensor in tensors]
        place = self.places(index, len(labels))
        if place is None:  # the op refuses such an index
            return self.run_table(form, logits, *given, labels=labels, **keywords)
        rows, within_table = place
        with torch.no_grad():
            unvisited = within_table & ~self.targets.index_select(0, rows).any(1)
            first = torch.where(unvisited[:, None], labels, 0).to(self.targets.dtype)
            self.targets.index_add_(0, rows, first)
        try:
            return self.run_table(form, logits, *given, labels=labels, **keywords)
        finally:
            with torch.no_grad():
                unchanged = (self.targets.index_select(0, rows) == first).all(1, keepdim=True)
                self.targets.index_add_(0, rows, torch.where(unchanged, -first, 0))

    def places(self, index: Any, size: int) -> tuple[Tensor, Tensor] | None:
        """The rows of the table in which samples lie, int64 [B], and which of them do; None if `index` is no index."""
        if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.shape != (size,):
            return None
        rows = local_rows(index, *self.shard)
        inside = (rows >= 0) & (rows < len(self.targets))
        return rows.clamp(0, len(self.targets) - 1), inside

    def hard_targets(self, labels: Tensor) -> Tensor:
        """The class with the largest target of each sample, or the given label if the target was never updated.

        Takes the labels [N] int64 of the whole training set and returns int64 [N]. A shard returns only its own samples
        `rank`, `rank + world`, ... in this order.
        """
        self._wait()
        rank, world = self.shard
        own = labels[rank::world]
        if self.targets.device == own.device:
            return self.hard_rows(self.targets, own)
        rows = max(1, ON_DEVICE // self.targets.shape[1])
        found = []
        for part, given in zip(self.targets.split(rows), own.split(rows), strict=True):
            found.append(self.hard_rows(part.to(own.device), given))
        return torch.cat(found)

    def hard_rows(self, targets: Tensor, labels: Tensor) -> Tensor:
        """What `hard_targets` says, int64 [n], of some rows of the table [n, C] and their labels [n]."""
        return torch.where(targets.any(1), targets.argmax(1), labels)

    def _save_to_state_dict(self, *arguments: Any) -> None:
        self._wait()
        super()._save_to_state_dict(*arguments)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        self._wait()
        fit_state(state_dict, prefix, [*self.shard, self.num_samples], self.visits is not None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """All options; momentum and strength as the knobs have them now."""
        knobs = [math.nan] * 3 if self.knobs.is_meta else [float(f"{value:.6g}") for value in self.knobs.tolist()]
        table = {"num_samples": self.num_samples, "num_classes": self.targets.shape[1]}
        now = {"strength": knobs[2], "momentum": knobs[1]}
        rates = {name: now[name] for name in self.rates}
        place = {
            "target_dtype": self.targets.dtype,
            "target_place": repr("host" if self.on_host else "device"),
            "shard": self.shard,
            "seed": self.seed,
        }
        parts = [f"{name}={value}" for name, value in (table | rates).items()]
        return ", ".join([*parts, super().extra_repr(), *(f"{name}={value}" for name, value in place.items())])
