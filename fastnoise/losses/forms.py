"""How losses are called: forms, checks of options, reductions, and soft labels. Functions and modules share it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor

from ..errors import ConfigError, DataError, nearest
from ..ops.checks import LOGIT_DTYPES, refuse
from ..ops.linear import LinearLogits, run_linear
from ..ops.registry import FusedOp
from ..ops.tables import Placement
from .tables import Storage

REDUCTIONS = ("mean", "sum", "none")


class Form(NamedTuple):
    """What defines a loss: an op and its options. Modules make it once, functions at every call."""

    op: FusedOp
    options: tuple[Any, ...] = ()
    soft: Callable[..., Tensor] | None = None
    """The loss [B] for soft labels in plain PyTorch: a function of the op's tensors, with logits and labels float32
    [B, C]. None if the op takes soft labels itself, or the loss takes none."""


def is_soft(labels: Any) -> bool:
    """Whether labels are soft: a tensor of a floating dtype, [B, C]."""
    return isinstance(labels, Tensor) and labels.is_floating_point()


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


class LossOptions(TypedDict, total=False):
    """Keyword arguments of every loss's class (see `FusedLoss`)."""

    reduction: str
    ignore_index: int | None
    class_weight: Tensor | None


class TableOptions(LossOptions, Storage, total=False):
    """Keyword arguments of the class of every loss with targets (see `TargetLoss`)."""


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
        loss = loss * weight
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if ignore_index is None:
        return loss.mean()
    return loss.sum() / (labels != ignore_index).sum().clamp(min=1)


def check_weight(name: str, weight: Any, shape: torch.Size) -> None:
    """DataError unless `weight` is a floating-point tensor of `shape`, [B]."""
    form = f"floating point {list(shape)}, one per sample"
    if not isinstance(weight, Tensor):
        raise DataError(f"{name}: weight is {type(weight).__name__}; expected {form}")
    if weight.shape != shape or not weight.is_floating_point():
        refuse(name, "weight", weight, form)


def run(
    form: Form,
    *tensors: Tensor | LinearLogits,
    labels: Tensor,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    **settings: Any,
) -> Tensor:
    """Call an op, with `update` and `placement` if it has a table; for soft labels, the form's PyTorch function.

    The op reduces its losses itself. Exceptions are weighted losses, and a mean whose samples must first be counted.
    """
    op, options, soft = form
    if reduction not in REDUCTIONS:
        one_of("reduction", reduction, REDUCTIONS)
    logits, *rest = tensors
    if weight is not None and isinstance(logits, Tensor) and logits.dim() == 2:
        check_weight(op.name, weight, logits.shape[:1])  # before the op updates targets
    if ignore_index is not None and is_soft(labels):
        raise DataError(f"{op.name}: soft labels take no ignore_index; give the samples to ignore the weight 0")
    if soft is not None and is_soft(labels):
        given = check_soft(op.name, logits, labels)
        with torch.autocast(given.device.type, enabled=False):
            loss = soft(given.float(), labels.float(), *rest[1:])
        return reduced(loss, labels, weight, reduction=reduction)
    if isinstance(logits, LinearLogits):
        if weight is not None:
            raise ConfigError(
                "fused_linear has no weights of samples: drop weight and class_weight, or give the loss the logits"
            )
        settings |= {"ignore_index": ignore_index, "reduction": reduction}
        return run_linear(op, logits, *rest, *options, labels=labels, **settings)
    if weight is None and (ignore_index is None or reduction != "mean"):
        loss = op(*tensors, *options, ignore_index=ignore_index, reduction=reduction, **settings)
        return loss
    loss = op(*tensors, *options, ignore_index=ignore_index, **settings)
    return reduced(loss, labels, weight, ignore_index, reduction)


def check_soft(name: str, logits: Any, labels: Tensor) -> Tensor:
    """The logits. DataError or ConfigError unless soft labels fit them."""
    if isinstance(logits, LinearLogits):
        raise ConfigError(f"{name}: soft labels need whole logits; give the loss these, not fused_linear")
    form = "float32, float16 or bfloat16 [B, C] with at least two classes"
    if not isinstance(logits, Tensor):
        raise DataError(f"{name}: logits is {type(logits).__name__}; expected {form}")
    if logits.dim() != 2 or logits.shape[1] < 2 or logits.dtype not in LOGIT_DTYPES:
        refuse(name, "logits", logits, form)
    if labels.shape != logits.shape or labels.dtype not in LOGIT_DTYPES:
        num_rows, num_classes = logits.shape
        form = f"int64 [{num_rows}], or soft labels, float32, float16 or bfloat16 [{num_rows}, {num_classes}]"
        refuse(name, "labels", labels, form)
    if labels.device != logits.device:
        raise DataError(f"{name}: labels on {labels.device}, logits on {logits.device}; put both on one")
    if labels.requires_grad:
        raise DataError(f"{name}: labels requires a gradient, which this loss has none for; detach it")
    return logits


def numbers(values: Tensor) -> str:
    """The numbers of a tensor, or its form if they are many."""
    if values.dim() > 1 or values.numel() > 8 or values.is_meta:
        return f"float32 {list(values.shape)}"
    return str([round(value, 6) for value in values.tolist()])
