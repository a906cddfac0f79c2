"""What all losses share: forms, checks of options, reductions, and the base classes of the families' modules."""

import math
from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DataError, nearest
from ..ops.linear import LinearLogits, run_linear
from ..ops.registry import FusedOp
from ..ops.tables import FixedDtype, Placement
from .tables import TARGET_DTYPES, Place, Storage, check_memory, fit_state, page_locked, shard_rows, storage_now

REDUCTIONS = ("mean", "sum", "none")
ON_DEVICE = 1 << 24
"""Numbers of a table on the host that are on a device at once where all of it is read: 64 MiB in float32."""
Form = tuple[FusedOp, tuple[Any, ...]]
"""What defines a loss: an op and its options. Modules make it once, functions at every call."""


class Common(TypedDict, total=False):
    """Keyword arguments of every loss."""

    weight: Tensor | None
    ignore_index: int | None
    reduction: str


class Stored(Common, total=False):
    """Keyword arguments of every loss with targets."""

    update: bool
    placement: Placement | None
    on_host: bool


class TableOptions(Storage, total=False):
    """Keyword arguments that every loss with targets takes."""

    reduction: str
    ignore_index: int | None


def one_of(name: str, value: str, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise ConfigError(f"unknown {name} {value!r}: {nearest(str(value), list(valid))}")
    return value


def within(name: str, value: float, low: float, high: float = math.inf) -> float:
    if not low <= value <= high or math.isinf(value):
        bounds = f"finite and at least {low:g}" if math.isinf(high) else f"in [{low:g}, {high:g}]"
        raise ConfigError(f"{name} is {value}: it must be {bounds}")
    return float(value)


def reduced(
    loss: Tensor, labels: Tensor, weight: Tensor | None = None, ignore_index: int | None = None, reduction: str = "mean"
) -> Tensor:
    """The losses [B] weighted and reduced, without waiting for the device."""
    if weight is not None:
        if weight.shape != loss.shape or not weight.is_floating_point():
            form = f"{str(weight.dtype).removeprefix('torch.')} {list(weight.shape)}"
            raise DataError(f"weight is {form}; expected floating point {list(loss.shape)}, one per sample")
        loss = loss * weight
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if ignore_index is None:
        return loss.mean()
    return loss.sum() / (labels != ignore_index).sum().clamp(min=1)


def run(
    form: Form,
    *tensors: Tensor | LinearLogits,
    labels: Tensor,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    **settings: Any,
) -> Tensor:
    """Call an op, with `update` and `placement` if it has a table.

    The op reduces its losses itself. Exceptions are weighted losses, and a mean whose samples must first be counted.
    """
    op, options = form
    if reduction not in REDUCTIONS:
        one_of("reduction", reduction, REDUCTIONS)
    logits, *rest = tensors
    if isinstance(logits, LinearLogits):
        if weight is not None:
            raise ConfigError("fused_linear has no weights of samples: drop weight, or give the loss the logits")
        settings |= {"ignore_index": ignore_index, "reduction": reduction}
        return run_linear(op, logits, *rest, *options, labels=labels, **settings)
    if weight is None and (ignore_index is None or reduction != "mean"):
        loss: Tensor = op(*tensors, *options, ignore_index=ignore_index, reduction=reduction, **settings)
        return loss
    loss = op(*tensors, *options, ignore_index=ignore_index, **settings)
    return reduced(loss, labels, weight, ignore_index, reduction)


class FusedLoss(nn.Module):
    """A loss whose op gives one value per sample.

    Args that all losses share:
        reduction: "mean", "sum", or "none" for the loss [B] of each sample.
        ignore_index: a label, in 0..C-1 or not. Samples with this label have loss and gradient 0, and their targets do
            not change. The mean is over the other samples, and 0 if there are none. By default no label is special.

    Called as `loss(logits, labels, index=None, *, weight=None)`: logits [B, C] float32, float16 or bfloat16; labels [B]
    int64 in 0..C-1; index is not used; weight [B], of any floating dtype, multiplies each sample's loss. The mean
    divides by the number of samples, whatever their weights. Returns float32, differentiable once in logits and weight.
    Tensors of another form raise DataError. A label out of range raises DataError on the CPU; on a CUDA device it makes
    that sample's loss and gradient NaN, and nothing waits for the device. Options out of range raise ConfigError.
    """

    def __init__(self, reduction: str = "mean", ignore_index: int | None = None):
        super().__init__()
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.ignore_index = ignore_index

    def run(self, form: Form, *tensors: Tensor, labels: Tensor, **keywords: Any) -> Tensor:
        keywords |= {"ignore_index": self.ignore_index, "reduction": self.reduction}
        return run(form, *tensors, labels=labels, **keywords)


class LabelLoss(FusedLoss):
    """A loss of logits and labels alone, with constant options."""

    def __init__(self, form: Form, reduction: str, ignore_index: int | None, /, **shown: Any):
        super().__init__(reduction, ignore_index)
        self.form, self.shown = form, shown

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor | None = None, *, weight: Tensor | None = None
    ) -> Tensor:
        return self.run(self.form, logits, labels, labels=labels, weight=weight)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.shown.items())


class TargetLoss(FixedDtype, FusedLoss):
    """A loss with a soft target for each training sample. Each visit of a sample updates its target in place.

    `targets`, [num_samples, num_classes], is a buffer: it is saved in `state_dict` and moves with the module, but keeps
    its dtype when the module is cast. A row of zeros was never updated. `knobs`, float32 [3], holds update flag,
    momentum and strength on the device. They can be written in place during training; a captured graph stays valid.

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
    targets). Calls before training, such as the warm-up of a CUDA graph, count as visits unless `set_update(False)` was
    called. Evaluate with CrossEntropyLoss, since an evaluation set has no rows here.

    If a logit of a sample is NaN or +inf (in NALLoss also its attention), for example after an overflow in half
    precision, its targets and `visits` stay as they are. Its loss and gradient are not finite, so that a GradScaler
    skips the step. A logit of -inf masks its class and updates as usual.
    """

    targets: Tensor
    visits: Tensor | None
    knobs: Tensor
    layout: Tensor | None

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        *,
        strength: float,
        momentum: float,
        reduction: str = "mean",
        ignore_index: int | None = None,
        **storage: Unpack[Storage],
    ):
        super().__init__(reduction, ignore_index)
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
        self.knobs[2].fill_(within("strength", strength, 0))

    def run_table(
        self, form: Form, *tensors: Tensor, labels: Tensor, weight: Tensor | None, update: bool = True
    ) -> Tensor:
        """Call an op with tensors that end in targets and knobs. In evaluation mode it updates nothing."""
        return run(
            form,
            *tensors,
            self.targets,
            self.knobs,
            labels=labels,
            weight=weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            update=update and self.training,
            placement=None if self.is_whole else self.placement,
            on_host=self.on_host,
        )

    def hard_targets(self, labels: Tensor) -> Tensor:
        """The class with the largest target of each sample, or the given label if the target was never updated.

        Takes the labels [N] int64 of the whole training set and returns int64 [N]. A shard returns only its own samples
        `rank`, `rank + world`, ... in this order.
        """
        rank, world = self.shard
        own = labels[rank::world]
        if self.targets.device == own.device:
            return torch.where(self.targets.any(1), self.targets.argmax(1), own)
        rows = max(1, ON_DEVICE // self.targets.shape[1])
        found = []
        for part, given in zip(self.targets.split(rows), own.split(rows), strict=True):
            targets = part.to(own.device)
            found.append(torch.where(targets.any(1), targets.argmax(1), given))
        return torch.cat(found)

    def _save_to_state_dict(self, *arguments: Any) -> None:
        self._wait()
        super()._save_to_state_dict(*arguments)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        self._wait()
        fit_state(state_dict, prefix, [*self.shard, self.num_samples], self.visits is not None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        sizes = f"num_samples={self.num_samples}, num_classes={self.targets.shape[1]}, reduction={self.reduction!r}"
        dtype = "" if self.visits is None else f", target_dtype={self.targets.dtype}"
        place = ", target_place='host'" if self.on_host else ""
        shard = "" if self.layout is None else f", shard={self.shard}"
        return f"{sizes}{dtype}{place}{shard}"
