"""The losses as functions, beside the modules of the same names: `gce(logits, labels, q=0.7)` as `GCELoss(q=0.7)`.

The module's docstring gives the formula, its source and the options. All functions take

    logits: [B, C] float32, float16 or bfloat16, C at least 2.
    labels: [B] int64 in 0..C-1; `cross_entropy` also takes soft labels [B, C].
    weight: [B] of any floating dtype, a factor for each sample's loss. Gradient flows to it.
    ignore_index: a label, in 0..C-1 or not; samples that carry it have loss and gradient 0 and leave their targets
        alone.
    reduction: "mean" divides the sum by the number of samples that are not ignored, whatever their weights (and is 0
        where all are); "sum"; "none" for the loss of each sample.

and return float32. They are differentiable once. Those with targets also take

    index: [B] int64, positions in the training set, distinct within the batch.
    targets: [N, C] float32, the table, updated in place; or in half precision or as a shard, as `placement` says
        (`fastnoise.ops.tables.Placement`).
    knobs: [3] float32 on the same device: update flag, momentum, strength.
    update: False leaves the table alone, whatever the flag: for evaluation. A module's evaluation mode does the same.

A sample with a logit of NaN or +inf (in `nal` also with such an attention) leaves its row of the table and its visits
alone; its loss and gradient show the NaN. A logit of -inf masks its class and updates as usual.

Tensors of another form raise DataError, unknown options ConfigError. A label or index out of range raises DataError on
the CPU; on a CUDA device it makes that sample's loss and gradient NaN.
"""

import math
from typing import Any, TypedDict, Unpack

from torch import Tensor

from .. import ops
from ..errors import ConfigError, DataError, nearest
from ..ops.registry import FusedOp
from ..ops.tables import Placement

REDUCTIONS = ("mean", "sum", "none")
NO_FLOOR = -1e30
Form = tuple[FusedOp, tuple[Any, ...]]
"""An op and its options."""


class Common(TypedDict, total=False):
    """Keyword arguments of every loss."""

    weight: Tensor | None
    ignore_index: int | None
    reduction: str


class Stored(Common, total=False):
    """Keyword arguments of every loss with targets."""

    update: bool
    placement: Placement | None


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
    *tensors: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    **settings: Any,
) -> Tensor:
    """Call an op, with `update` and `placement` if it has a table.

    It reduces its losses itself unless they are weighted, or the samples that a mean is over must be counted.
    """
    op, options = form
    if reduction not in REDUCTIONS:
        one_of("reduction", reduction, REDUCTIONS)
    if weight is None and (ignore_index is None or reduction != "mean"):
        loss: Tensor = op(*tensors, *options, ignore_index=ignore_index, reduction=reduction, **settings)
        return loss
    loss = op(*tensors, *options, ignore_index=ignore_index, **settings)
    return reduced(loss, labels, weight, ignore_index, reduction)


# --- Which op a loss is, with which options. Modules ask this once, functions at every call.


def cross_entropy_form(label_smoothing: float) -> Form:
    smoothing = within("label_smoothing", label_smoothing, 0, 1)
    return (ops.label_smoothing, (smoothing,)) if smoothing else (ops.ce, ())


def swce_form(weighting: str) -> Form:
    return ops.swce, (one_of("weight", weighting, ("detached", "literal")) == "literal",)


def gce_form(q: float, k: float) -> Form:
    if not 0 < q <= 1:
        raise ConfigError(f"q is {q}: it must lie in (0, 1]; towards 0 the loss becomes cross-entropy")
    return ops.gce, (float(q), within("k", k, 0, 1))


def sce_form(alpha: float, beta: float, variant: str) -> Form:
    code = one_of("variant", variant, ("code", "paper")) == "code"
    log_zero, floor = (math.log(1e-4), math.log(1e-7)) if code else (-4.0, NO_FLOOR)
    return ops.apl, (within("alpha", alpha, 0), 0.0, -log_zero * within("beta", beta, 0), floor)


def mae_form(form: str) -> Form:
    return ops.apl, (0.0, 0.0, mae_factor(form), NO_FLOOR)


def mae_factor(form: str) -> float:
    return 2.0 if one_of("MAE form", form, ("l1", "reduced")) == "l1" else 1.0


ACTIVE = ("ce", "focal", "nce", "nfl")
PASSIVE = ("mae", "rce")


def apl_form(active: str, passive: str, alpha: float, beta: float, gamma: float, mae: str, log_zero: float) -> Form:
    one_of("active loss", active, ACTIVE)
    if not -math.inf < log_zero < 0:
        raise ConfigError(f"log_zero is {log_zero}: the logarithm that stands for log 0 must be negative and finite")
    factor = mae_factor(mae) if one_of("passive loss", passive, PASSIVE) == "mae" else -log_zero
    exponent = within("gamma", gamma, 0) if active in ("focal", "nfl") else 0.0
    options = within("alpha", alpha, 0), exponent, factor * within("beta", beta, 0)
    return (ops.apl_normalised, options) if active in ("nce", "nfl") else (ops.apl, (*options, NO_FLOOR))


def bootstrap_form(kind: str, beta: float | None, target: str) -> Form:
    soft = one_of("kind", kind, ("soft", "hard")) == "soft"
    own = within("beta", (0.95 if soft else 0.8) if beta is None else beta, 0, 1)
    literal = one_of("target", target, ("literal", "detached")) == "literal"
    return (ops.bootstrap_soft, (own, literal)) if soft else (ops.bootstrap_hard, (own,))


def nal_form(variant: str, reverse: float, gate: float) -> Form:
    code = one_of("variant", variant, ("paper", "code")) == "code"
    return ops.nal, (code, within("reverse", reverse, 0), within("gate", gate, 0, 1))


def elr_plus_form(target: str) -> Form:
    return ops.elr_plus, (one_of("target", target, ("labels", "weighted")) == "weighted",)


# --- The losses


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, **common: Unpack[Common]) -> Tensor:
    """CrossEntropyLoss. Soft labels [B, C] of a floating dtype are taken too."""
    return cross_entropy_of(cross_entropy_form(label_smoothing), logits, labels, **common)


def cross_entropy_of(form: Form, logits: Tensor, labels: Tensor, **common: Unpack[Common]) -> Tensor:
    if labels.is_floating_point():
        if form[0] is not ops.ce or common.get("ignore_index") is not None:
            raise DataError(
                "cross_entropy: soft labels go with neither label_smoothing nor ignore_index; give a weight"
            )
        form = ops.soft_ce, ()
    return run(form, logits, labels, labels=labels, **common)


def swce(logits: Tensor, labels: Tensor, *, weighting: str = "detached", **common: Unpack[Common]) -> Tensor:
    """SWCELoss; `weighting` is the module's `weight`, which here is that of each sample."""
    return run(swce_form(weighting), logits, labels, labels=labels, **common)


def gce(logits: Tensor, labels: Tensor, *, q: float = 0.7, k: float = 0.0, **common: Unpack[Common]) -> Tensor:
    """GCELoss."""
    return run(gce_form(q, k), logits, labels, labels=labels, **common)


def sce(
    logits: Tensor, labels: Tensor, *, alpha: float, beta: float, variant: str = "code", **common: Unpack[Common]
) -> Tensor:
    """SCELoss."""
    return run(sce_form(alpha, beta, variant), logits, labels, labels=labels, **common)


def mae(logits: Tensor, labels: Tensor, *, form: str = "l1", **common: Unpack[Common]) -> Tensor:
    """MAELoss."""
    return run(mae_form(form), logits, labels, labels=labels, **common)


def nce(logits: Tensor, labels: Tensor, **common: Unpack[Common]) -> Tensor:
    """NCELoss."""
    return run((ops.apl_normalised, (1.0, 0.0, 0.0)), logits, labels, labels=labels, **common)


def focal(logits: Tensor, labels: Tensor, *, gamma: float = 0.5, **common: Unpack[Common]) -> Tensor:
    """FocalLoss."""
    form = ops.apl, (1.0, within("gamma", gamma, 0), 0.0, NO_FLOOR)
    return run(form, logits, labels, labels=labels, **common)


def nfl(logits: Tensor, labels: Tensor, *, gamma: float = 0.5, **common: Unpack[Common]) -> Tensor:
    """NFLLoss."""
    form = ops.apl_normalised, (1.0, within("gamma", gamma, 0), 0.0)
    return run(form, logits, labels, labels=labels, **common)


def apl(
    logits: Tensor,
    labels: Tensor,
    *,
    active: str = "nce",
    passive: str = "mae",
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 0.5,
    mae: str = "reduced",
    log_zero: float = math.log(1e-4),
    **common: Unpack[Common],
) -> Tensor:
    """APLLoss."""
    form = apl_form(active, passive, alpha, beta, gamma, mae, log_zero)
    return run(form, logits, labels, labels=labels, **common)


def bootstrap(
    logits: Tensor,
    labels: Tensor,
    *,
    kind: str = "soft",
    beta: float | None = None,
    target: str = "literal",
    **common: Unpack[Common],
) -> Tensor:
    """BootstrapLoss."""
    return run(bootstrap_form(kind, beta, target), logits, labels, labels=labels, **common)


def forward(logits: Tensor, labels: Tensor, transition: Tensor, **common: Unpack[Common]) -> Tensor:
    """ForwardLoss; `transition` [C, C] float32 is not looked into here, and transposed at every call."""
    return run((ops.forward, ()), logits, labels, transition.T.contiguous(), labels=labels, **common)


def elr(
    logits: Tensor, labels: Tensor, index: Tensor, targets: Tensor, knobs: Tensor, **stored: Unpack[Stored]
) -> Tensor:
    """ELRLoss."""
    return run((ops.elr, ()), logits, labels, index, targets, knobs, labels=labels, **stored)


def elr_plus(
    logits: Tensor,
    labels: Tensor,
    pair_labels: Tensor,
    index: Tensor,
    pair_index: Tensor,
    share: Tensor,
    targets: Tensor,
    knobs: Tensor,
    *,
    target: str = "labels",
    **stored: Unpack[Stored],
) -> Tensor:
    """ELRPlusLoss: its tensors, and the table, which is only read."""
    tensors = logits, labels, pair_labels, index, pair_index, share, targets, knobs
    return run(elr_plus_form(target), *tensors, labels=labels, **stored)


def update_targets(
    logits: Tensor, index: Tensor, targets: Tensor, knobs: Tensor, *, placement: Placement | None = None
) -> None:
    """targets[index] <- momentum * targets[index] + (1 - momentum) * softmax(logits), as ELRPlusLoss.update_targets.

    Rows with a logit of NaN or +inf leave their targets alone.
    """
    ops.ema(logits.detach(), index, targets, knobs, placement=placement)


def selc(
    logits: Tensor, labels: Tensor, index: Tensor, targets: Tensor, knobs: Tensor, **stored: Unpack[Stored]
) -> Tensor:
    """SELCLoss."""
    return run((ops.selc, ()), logits, labels, index, targets, knobs, labels=labels, **stored)


def nal(
    logits: Tensor,
    attention: Tensor,
    labels: Tensor,
    index: Tensor,
    targets: Tensor,
    knobs: Tensor,
    *,
    variant: str = "paper",
    reverse: float = 0.0,
    gate: float = 0.0,
    **stored: Unpack[Stored],
) -> Tensor:
    """NALLoss; attention [B] float32, float16 or bfloat16 is the head's logit h, which gets a gradient too."""
    form = nal_form(variant, reverse, gate)
    return run(form, logits, attention, labels, index, targets, knobs, labels=labels, **stored)
