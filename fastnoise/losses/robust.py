"""Robust losses, in which one wrong label adds little: generalised, symmetric, normalised, active and passive, and
divergences of label and predictions.

Constants and clamps are those of the authors' code. tests/test_parity.py shows the differences:

    SCE        None in variant "code". Variant "paper" has A = -4 and no clamp.
    GCE        The present p_y decides what is truncated; the authors prune by the p_y of an earlier model. Ma et al.
               also clamp p_y to at least 1e-7, which changes the loss by less than 2e-5 at q = 0.7.
    focal, NFL None in variant "code", which holds the factors (1 - p)^gamma fixed. Variant "paper" differentiates them.
    JS, GJS    None.
    NCE + MAE  Ma et al. clamp nothing in MAE and use the reduced form, as APLLoss does by default; MAELoss defaults to
               L1.
"""

import math
from functools import partial
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from ..errors import ConfigError, DataError, FastnoiseError
from ..ops.checks import LOGIT_DTYPES, check_range, refuse
from ..ops.registry import FusedOp
from . import reference
from .base import FusedLoss, LabelLoss
from .forms import (
    REDUCTIONS,
    Common,
    Form,
    LossOptions,
    check_soft,
    check_weight,
    is_soft,
    one_of,
    reduced,
    run,
    within,
)
from .naming import renamed

__all__ = [
    "APLLoss",
    "FocalLoss",
    "GCELoss",
    "GJSLoss",
    "JSLoss",
    "MAELoss",
    "NCELoss",
    "NFLLoss",
    "SCELoss",
    "apl",
    "focal",
    "gce",
    "gjs",
    "js",
    "mae",
    "nce",
    "nfl",
    "sce",
]

GCE = FusedOp("gce", "logits labels", "float q, float k")
APL = FusedOp("apl", "logits labels", "float active, float gamma, float passive, float floor, float slope_gamma")
APL_NORMALISED = FusedOp(
    "apl_normalised", "logits labels", "float active, float gamma, float passive, float slope_gamma"
)

NO_FLOOR = -1e30
ACTIVE = ("ce", "focal", "nce", "nfl")
PASSIVE = ("mae", "rce")


def gce_form(q: float, k: float) -> Form:
    if not 0 < q <= 1:
        raise ConfigError(f"q is {q}: it must lie in (0, 1]; towards 0 the loss becomes cross-entropy")
    return Form(GCE, (float(q), within("k", k, 0, 1)), partial(reference.gce, q=q, k=k))


def gce(logits: Tensor, labels: Tensor, *, q: float = 0.7, k: float = 0.0, **common: Unpack[Common]) -> Tensor:
    """GCELoss of logits [B, C] and labels, int64 [B] or soft [B, C]: float32, [] or [B] (see `functional`)."""
    return run(gce_form(q, k), logits, labels, labels=labels, **common)


class GCELoss(LabelLoss):
    """Generalised cross-entropy, the L_q loss (Zhang & Sabuncu 2018, Sec. 3.2): (1 - p_y^q) / q.

    It becomes cross-entropy as q nears 0, and is 1 - p_y at q = 1. The truncated form (Sec. 3.3) is the constant
    (1 - k^q) / q, without gradient, if p_y is at most k. Here the p_y of the present batch decides. The authors prune
    with k = 0.5 by the model of an earlier epoch; the method `gce` selects samples in this way.

    Args:
        q: in (0, 1].
        k: in [0, 1]; 0 truncates nothing.
        options: reduction, ignore_index and class_weight, see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(self, *, q: float = 0.7, k: float = 0.0, **options: Unpack[LossOptions]):
        super().__init__(gce_form(q, k), {"q": q, "k": k}, **options)


def sce_form(alpha: float, beta: float, variant: str) -> Form:
    code = one_of("variant", variant, ("code", "paper")) == "code"
    log_zero, floor = (math.log(1e-4), math.log(1e-7)) if code else (-4.0, NO_FLOOR)
    weights = within("alpha", alpha, 0), 0.0, -log_zero * within("beta", beta, 0), floor, 0.0
    return Form(APL, weights, partial(reference.sce, alpha=alpha, beta=beta, variant=variant))


def sce(
    logits: Tensor, labels: Tensor, *, alpha: float, beta: float, variant: str = "code", **common: Unpack[Common]
) -> Tensor:
    """SCELoss of logits [B, C] and labels, int64 [B] or soft [B, C]: float32, [] or [B] (see `functional`)."""
    return run(sce_form(alpha, beta, variant), logits, labels, labels=labels, **common)


class SCELoss(LabelLoss):
    """Symmetric cross-entropy (Wang et al. 2019): alpha * CE + beta * RCE, RCE = -sum_k p_k log y_k = -A (1 - p_y).

    A stands for log 0. In variant "code" A = log 1e-4 = -9.21, because the authors' code clamps the one-hot to at least
    1e-4. It also clamps p_y in CE to at least 1e-7; a smaller p_y gets no gradient from CE. Variant "paper" has the
    paper's A = -4 and no clamp: its reverse term is 2.3 times smaller for the same beta.

    Args:
        alpha, beta: the weights of CE and RCE, not negative. The authors use 0.1 and 1 on CIFAR-10, 6 and 0.1 on
            CIFAR-100.
        variant: "code" or "paper".
        options: reduction, ignore_index and class_weight, see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(
        self,
        *,
        alpha: float,
        beta: float,
        variant: str = "code",
        **options: Unpack[LossOptions],
    ):
        form = sce_form(alpha, beta, variant)
        super().__init__(form, {"alpha": alpha, "beta": beta, "variant": variant}, **options)


def mae_form(form: str) -> Form:
    return Form(APL, (0.0, 0.0, mae_factor(form), NO_FLOOR, 0.0), partial(reference.mae, form=form))


def mae_factor(form: str) -> float:
    return 2.0 if one_of("MAE form", form, ("l1", "reduced")) == "l1" else 1.0


def mae(logits: Tensor, labels: Tensor, *, form: str = "l1", **common: Unpack[Common]) -> Tensor:
    """MAELoss of logits [B, C] and labels, int64 [B] or soft [B, C]: float32, [] or [B] (see `functional`)."""
    return run(mae_form(form), logits, labels, labels=labels, **common)


class MAELoss(LabelLoss):
    """Mean absolute error between probabilities and the one-hot label (Ghosh et al. 2017).

    Args:
        form: "l1", sum_k |p_k - y_k| = 2 (1 - p_y), or "reduced", 1 - p_y, as in Ma et al.'s code.
        options: reduction, ignore_index and class_weight, see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(self, *, form: str = "l1", **options: Unpack[LossOptions]):
        super().__init__(mae_form(form), {"form": form}, **options)


def nce_form() -> Form:
    return Form(APL_NORMALISED, (1.0, 0.0, 0.0, 0.0), reference.nce)


def nce(logits: Tensor, labels: Tensor, **common: Unpack[Common]) -> Tensor:
    """NCELoss of logits [B, C] and labels, int64 [B] or soft [B, C]: float32, [] or [B] (see `functional`)."""
    return run(nce_form(), logits, labels, labels=labels, **common)


class NCELoss(LabelLoss):
    """Normalised cross-entropy (Ma et al. 2020): log p_y / sum_k log p_k, in (0, 1).

    Args:
        options: reduction, ignore_index and class_weight, see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(self, **options: Unpack[LossOptions]):
        super().__init__(nce_form(), {}, **options)


def slope_gamma(gamma: float, variant: str) -> float:
    """The exponent's share in the gradient: `gamma`, or 0 if the factors (1 - p)^gamma are held fixed."""
    return gamma if one_of("variant", variant, ("paper", "code")) == "paper" else 0.0


def focal_form(gamma: float, variant: str) -> Form:
    exponent = within("gamma", gamma, 0)
    weights = 1.0, exponent, 0.0, NO_FLOOR, slope_gamma(exponent, variant)
    return Form(APL, weights, partial(reference.focal, gamma=gamma, variant=variant))


def focal(
    logits: Tensor, labels: Tensor, *, gamma: float = 0.5, variant: str = "paper", **common: Unpack[Common]
) -> Tensor:
    """FocalLoss of logits [B, C] and labels, int64 [B] or soft [B, C]: float32, [] or [B] (see `functional`)."""
    return run(focal_form(gamma, variant), logits, labels, labels=labels, **common)


class FocalLoss(LabelLoss):
    """Focal loss (Lin et al. 2017, Sec. 3.2): -(1 - p_y)^gamma log p_y.

    Args:
        gamma: not negative; 0 is cross-entropy, 0.5 is what Ma et al. use.
        variant: "paper" differentiates the whole loss. "code" holds the factor (1 - p_y)^gamma fixed, as Ma et al.'s
            code does: the loss is the same, the gradient in the logits is (1 - p_y)^gamma (p - y).
        options: reduction, ignore_index and class_weight, see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(
        self,
        *,
        gamma: float = 0.5,
        variant: str = "paper",
        **options: Unpack[LossOptions],
    ):
        super().__init__(focal_form(gamma, variant), {"gamma": gamma, "variant": variant}, **options)


def nfl_form(gamma: float, variant: str) -> Form:
    exponent = within("gamma", gamma, 0)
    weights = 1.0, exponent, 0.0, slope_gamma(exponent, variant)
    return Form(APL_NORMALISED, weights, partial(reference.nfl, gamma=gamma, variant=variant))


def nfl(
    logits: Tensor, labels: Tensor, *, gamma: float = 0.5, variant: str = "paper", **common: Unpack[Common]
) -> Tensor:
    """NFLLoss of logits [B, C] and labels, int64 [B] or soft [B, C]: float32, [] or [B] (see `functional`)."""
    return run(nfl_form(gamma, variant), logits, labels, labels=labels, **common)


class NFLLoss(LabelLoss):
    """Normalised focal loss (Ma et al. 2020): the focal loss of the label over the sum of those of all classes.

    Args:
        gamma: not negative; 0 is NCELoss.
        variant: "paper" differentiates the whole loss. "code" holds all factors (1 - p_k)^gamma fixed, as the authors'
            code does, in the normaliser too. The loss is the same.
        options: reduction, ignore_index and class_weight, see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(
        self,
        *,
        gamma: float = 0.5,
        variant: str = "paper",
        **options: Unpack[LossOptions],
    ):
        super().__init__(nfl_form(gamma, variant), {"gamma": gamma, "variant": variant}, **options)


def apl_form(
    active: str, passive: str, alpha: float, beta: float, gamma: float, mae: str, log_zero: float, variant: str
) -> Form:
    one_of("active loss", active, ACTIVE)
    if not -math.inf < log_zero < 0:
        raise ConfigError(f"log_zero is {log_zero}: the logarithm that stands for log 0 must be negative and finite")
    factor = mae_factor(mae) if one_of("passive loss", passive, PASSIVE) == "mae" else -log_zero
    exponent = within("gamma", gamma, 0) if active in ("focal", "nfl") else 0.0
    weights = within("alpha", alpha, 0), exponent, factor * within("beta", beta, 0)
    slope = slope_gamma(exponent, variant)
    names: dict[str, Any] = {"active": active, "passive": passive, "mae": mae, "variant": variant}
    soft = partial(reference.apl, **names, alpha=alpha, beta=beta, gamma=gamma, log_zero=log_zero)
    if active in ("nce", "nfl"):
        return Form(APL_NORMALISED, (*weights, slope), soft)
    return Form(APL, (*weights, NO_FLOOR, slope), soft)


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
    variant: str = "paper",
    **common: Unpack[Common],
) -> Tensor:
    """APLLoss of logits [B, C] and labels, int64 [B] or soft [B, C]: float32, [] or [B] (see `functional`)."""
    form = apl_form(active, passive, alpha, beta, gamma, mae, log_zero, variant)
    return run(form, logits, labels, labels=labels, **common)


class APLLoss(LabelLoss):
    """Active passive loss (Ma et al. 2020): alpha * active + beta * passive, in one pass over the logits.

    Args:
        active: "ce", "focal", "nce" or "nfl".
        passive: "mae" or "rce", the reverse cross-entropy -log_zero * (1 - p_y).
        alpha, beta: the weights, not negative. The authors use 1 and 1 on CIFAR-10, on CIFAR-100 10 and 1 with "mae"
            or 10 and 0.1 with "rce", and 1 and 10 on MNIST.
        gamma: of "focal" and "nfl".
        mae: "reduced", 1 - p_y, as in the authors' code, or "l1", 2 (1 - p_y).
        log_zero: the value of log 0 in "rce". The default log 1e-4 follows from the authors' clamp at 1e-4.
        variant: of "focal" and "nfl": "paper" differentiates them whole, "code" holds the factors (1 - p_k)^gamma
            fixed, as the authors' code does.
        options: reduction, ignore_index and class_weight, see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(
        self,
        *,
        active: str = "nce",
        passive: str = "mae",
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 0.5,
        mae: str = "reduced",
        log_zero: float = math.log(1e-4),
        variant: str = "paper",
        **options: Unpack[LossOptions],
    ):
        form = apl_form(active, passive, alpha, beta, gamma, mae, log_zero, variant)
        shown = {"active": active, "passive": passive, "alpha": alpha, "beta": beta, "gamma": gamma, "mae": mae}
        super().__init__(form, shown | {"log_zero": log_zero, "variant": variant}, **options)


# -- divergences: in plain PyTorch, of one or more views -----------------------------------------------------------


def js(logits: Tensor, labels: Tensor, *, pi: float = 0.5, scaled: bool = True, **common: Unpack[Common]) -> Tensor:
    """JSLoss of logits [B, C] and labels, int64 [B] or soft [B, C]: float32, [] or [B] (see `functional`)."""
    return divergence(check_views("js", logits, labels, single=True), labels, pi, scaled, name="js", **common)


def gjs(logits: Tensor, labels: Tensor, *, pi: float = 0.5, scaled: bool = True, **common: Unpack[Common]) -> Tensor:
    """GJSLoss of logits [V B, C] and labels, int64 [B] or soft [B, C]: float32, [] or [B] (see `functional`)."""
    return divergence(check_views("gjs", logits, labels), labels, pi, scaled, **common)


def check_views(name: str, logits: Any, labels: Any, single: bool = False) -> Tensor:
    """The logits of each view, [V, B, C].

    Args:
        name: of the loss, for messages.
        logits: [V B, C] float32, float16 or bfloat16, view after view.
        labels: int64 [B], or soft [B, C].
        single: whether there may be one view alone.

    Raises:
        DataError: for tensors of another form.
    """
    for what, tensor in (("logits", logits), ("labels", labels)):
        if not isinstance(tensor, Tensor):
            raise DataError(f"{name}: {what} is {type(tensor).__name__}; expected a tensor")
    if logits.dim() != 2 or logits.shape[1] < 2 or logits.dtype not in LOGIT_DTYPES:
        refuse(name, "logits", logits, "float32, float16 or bfloat16 [V B, C] with at least two classes, view by view")
    count = labels.shape[0] if labels.dim() else 0
    many = len(logits) != count if single else len(logits) % max(count, 1) or (len(logits) > 0) != (count > 0)
    if many or not (is_soft(labels) or (labels.dim() == 1 and labels.dtype == torch.int64)):
        rows = "one" if single else "one for each sample of a view"
        refuse(name, "labels", labels, f"int64 or soft, {rows}, for logits {list(logits.shape)}")
    if is_soft(labels):
        check_soft(name, logits[:count], labels)
    if labels.device != logits.device:
        raise DataError(f"{name}: labels on {labels.device}, logits on {logits.device}; put both on one")
    return logits.unflatten(0, (max(1, len(logits) // max(1, count)), count))


def divergence(
    views: Tensor,
    labels: Tensor,
    pi: float,
    scaled: bool,
    *,
    name: str = "gjs",
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`reference.gjs` of the views' logits [V, B, C] in float32, weighted and reduced.

    DataError for a label out of range on the CPU. On a CUDA device its sample's loss is NaN, and nothing waits.
    """
    check_pi(pi)
    one_of("reduction", reduction, REDUCTIONS)
    if weight is not None:
        check_weight(name, weight, labels.shape[:1])
    if is_soft(labels):
        if ignore_index is not None:
            raise DataError(f"{name}: soft labels take no ignore_index; give the samples to ignore the weight 0")
        counted, rows, valid = None, labels.float(), None
    else:
        counted = None if ignore_index is None else labels != ignore_index
        given = labels if counted is None else labels.where(counted, 0)
        valid = None if given.is_cpu else (given >= 0) & (given < views.shape[2])
        rows = one_hot(name, given if valid is None else given.where(valid, 0), views.shape[2])
    with torch.autocast(views.device.type, enabled=False):
        logits = views.float() if counted is None else views.float().where(counted[:, None], 0.0)
        loss = reference.gjs(logits.flatten(0, 1), rows, pi=pi, scaled=scaled)
    if valid is not None:
        loss = loss.where(valid, math.nan)
    if counted is not None:
        loss = loss.where(counted, 0.0)
    return reduced(loss, labels, weight, ignore_index, reduction)


def one_hot(name: str, labels: Tensor, num_classes: int) -> Tensor:
    """float32 [B, C] of labels int64 [B]; DataError for a label out of range on the CPU."""
    rows = torch.zeros(len(labels), num_classes, device=labels.device)
    try:
        return rows.scatter(1, labels[:, None], 1.0)
    except RuntimeError:
        check_range(name, "label", labels, num_classes, "number of classes")
        raise


def check_pi(pi: float) -> float:
    if not 0 < pi < 1:
        raise ConfigError(f"pi is {pi}: it must lie in (0, 1); towards 0 the loss becomes cross-entropy, at 1 MAE")
    return float(pi)


class GJSLoss(FusedLoss):
    """Generalised Jensen-Shannon divergence (Englesson & Azizpour 2021, Eq. 5) of the label and V predictions.

    With q_1 the label's one-hot, q_2, ... the predictions for V views of a sample, pi_1 = pi, the others (1 - pi) / V,
    and m = sum_k pi_k q_k, it is s * sum_k pi_k KL(q_k || m). The scale s = -1 / ((1 - pi) log(1 - pi)) makes it
    cross-entropy as pi nears 0 and a multiple of MAE as pi nears 1. Views that agree are rewarded, whatever the label.
    Gradient flows through m and all views. As in the authors' code logarithms are of at least 1e-7.

    Args:
        pi: the label's weight, in (0, 1).
        scaled: False leaves s out, as the authors do on WebVision.
        options: reduction, ignore_index and class_weight, see FusedLoss.

    Called as `loss(logits, labels, index=None, *, weight=None)` with logits [V B, C], view after view, and all else as
    for every loss without targets (see FusedLoss). With one view it is JSLoss. It is plain PyTorch on every device. A
    soft label takes the place of the one-hot.
    """

    op_name: ClassVar[str] = "gjs"
    notes = False

    def __init__(self, *, pi: float = 0.5, scaled: bool = True, **options: Unpack[LossOptions]):
        super().__init__(**options)
        self.pi, self.scaled = check_pi(pi), scaled
        self.shown = {"pi": self.pi, "scaled": scaled}

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor | None = None, *, weight: Tensor | None = None
    ) -> Tensor:
        try:
            views = check_views(self.op_name, logits, labels, single=self.op_name == "js")
            weight = self.weight_of(views[0], labels, weight)
            common: Common = {"weight": weight, "ignore_index": self.ignore_index, "reduction": self.reduction}
            return divergence(views, labels, self.pi, self.scaled, name=self.op_name, **common)
        except FastnoiseError as error:
            renamed(error, type(self), self.op_name)
            raise


class JSLoss(GJSLoss):
    """Jensen-Shannon divergence (Englesson & Azizpour 2021, Eq. 3) of label and prediction, with weights pi and 1 - pi.

    It is GJSLoss of one view: between cross-entropy, as pi nears 0, and MAE, as pi nears 1.

    Args:
        pi: the label's weight, in (0, 1).
        scaled: False leaves the scale of GJSLoss out.
        options: reduction, ignore_index and class_weight, see FusedLoss.

    Called as every loss without targets (see FusedLoss). It is plain PyTorch on every device.
    """

    op_name = "js"
