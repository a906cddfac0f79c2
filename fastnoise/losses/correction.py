"""Losses that correct the label: with the network's own prediction, or with the probabilities of wrong labels."""

from functools import partial
from typing import Unpack

import torch
from torch import Tensor

from ..errors import ConfigError
from ..ops.registry import FusedOp
from ..ops.tables import FixedDtype
from . import reference
from .base import FusedLoss, LabelLoss
from .forms import Common, Form, LossOptions, one_of, run, within

__all__ = ["BootstrapLoss", "ForwardLoss", "bootstrap", "forward"]

BOOTSTRAP_SOFT = FusedOp("bootstrap_soft", "logits labels", "float own, bool clipped, bool literal")
BOOTSTRAP_HARD = FusedOp("bootstrap_hard", "logits labels", "float own, bool clipped")
FORWARD = FusedOp("forward", "logits labels columns")
FORWARD_CLIPPED = FusedOp("forward_clipped", "logits labels columns")
VARIANTS = ("paper", "code")


def bootstrap_form(kind: str, beta: float | None, target: str, variant: str) -> Form:
    soft = one_of("kind", kind, ("soft", "hard")) == "soft"
    own = within("beta", (0.95 if soft else 0.8) if beta is None else beta, 0, 1)
    literal = one_of("target", target, ("literal", "detached")) == "literal"
    clipped = one_of("variant", variant, VARIANTS) == "code"
    in_torch = partial(reference.bootstrap, kind=kind, beta=own, target=target, variant=variant)
    if soft:
        return Form(BOOTSTRAP_SOFT, (own, clipped, literal), in_torch)
    return Form(BOOTSTRAP_HARD, (own, clipped), in_torch)


def bootstrap(
    logits: Tensor,
    labels: Tensor,
    *,
    kind: str = "soft",
    beta: float | None = None,
    target: str = "literal",
    variant: str = "paper",
    **common: Unpack[Common],
) -> Tensor:
    """BootstrapLoss of logits [B, C] and labels, int64 [B] or soft [B, C]: float32, [] or [B] (see `functional`)."""
    return run(bootstrap_form(kind, beta, target, variant), logits, labels, labels=labels, **common)


class BootstrapLoss(LabelLoss):
    """Bootstrapping (Reed et al. 2015): cross-entropy on beta * y + (1 - beta) * q, a mixture of label and prediction.

    Soft: q = p. Hard: q is the one-hot of the most probable class, or of the first such class in a tie.

    Args:
        kind: "soft" or "hard".
        beta: the label's share, in [0, 1]; by default 0.95 soft and 0.8 hard.
        target: for the soft kind. "literal" also differentiates q = p, which adds the gradient of an entropy
            regulariser. "detached" treats q as constant; the gradient is then beta * (p - y).
        variant: "paper", or "code" for the Keras code that the field's tables come from (Patrini et al. 2017, Wang et
            al. 2019). It clips p to [1e-7, 1 - 1e-7], in the logarithm and in q; a clipped class has no gradient.
        options: reduction, ignore_index and class_weight, see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(
        self,
        *,
        kind: str = "soft",
        beta: float | None = None,
        target: str = "literal",
        variant: str = "paper",
        **options: Unpack[LossOptions],
    ):
        form = bootstrap_form(kind, beta, target, variant)
        shown = {"kind": kind, "beta": form.options[0], "target": target, "variant": variant}
        super().__init__(form, shown, **options)


def forward_form(variant: str) -> Form:
    op = FORWARD_CLIPPED if one_of("variant", variant, VARIANTS) == "code" else FORWARD
    return Form(op, (), partial(of_soft_labels, variant=variant))


def of_soft_labels(values: Tensor, labels: Tensor, columns: Tensor, *, variant: str) -> Tensor:
    """The loss [B] of logits `values` [B, C] for soft labels [B, C], with the op's transposed matrix [C, C]."""
    return reference.forward(values, labels, columns.T, variant=variant)


def forward(
    logits: Tensor, labels: Tensor, transition: Tensor, *, variant: str = "paper", **common: Unpack[Common]
) -> Tensor:
    """ForwardLoss as a function. `transition` [C, C] float32 is not checked, and is transposed at every call."""
    return run(forward_form(variant), logits, labels, transition.T.contiguous(), labels=labels, **common)


class ForwardLoss(FixedDtype, FusedLoss):
    """Forward correction (Patrini et al. 2017, Theorem 2): -log (T^T p)_y, the likelihood of the noisy label.

    Args:
        transition: [C, C], row-stochastic, T[true, noisy] = P(noisy label | true label). Kept as the buffer `columns`,
            float32 and transposed.
        variant: "paper", or "code" for the authors' Keras code. It clips p to [1e-7, 1 - 1e-7]; a clipped class has no
            gradient.
        options: reduction, ignore_index and class_weight, see FusedLoss.

    Called as every loss without targets (see FusedLoss). Raises ConfigError if transition is not square, has fewer than
    two classes or a negative entry, if a row does not sum to 1 within 1e-4, or if a column is all 0: the loss of that
    label would be infinite.
    """

    columns: Tensor

    def __init__(
        self,
        transition: Tensor,
        *,
        variant: str = "paper",
        **options: Unpack[LossOptions],
    ):
        super().__init__(**options)
        self.form = forward_form(variant)
        transition = torch.as_tensor(transition, dtype=torch.float32)
        if transition.dim() != 2 or transition.shape[0] != transition.shape[1] or len(transition) < 2:
            raise ConfigError(f"transition is {list(transition.shape)}: it must be [C, C] with at least two classes")
        sums = transition.sum(1)
        worst = int((sums - 1).abs().argmax())
        if not bool((transition >= 0).all()) or not abs(float(sums[worst]) - 1) <= 1e-4:
            raise ConfigError(
                f"transition is not row-stochastic: row {worst} sums to {float(sums[worst]):g}; T[true, noisy] must "
                "not be negative, and each row must sum to 1"
            )
        if not bool(transition.any(0).all()):
            label = int(transition.any(0).logical_not().nonzero()[0])
            raise ConfigError(f"transition lets no class turn into {label}: the loss of that label would be infinite")
        self.register_buffer("columns", transition.T.contiguous())
        self.shown = {"transition": self.columns, "variant": variant}

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor | None = None, *, weight: Tensor | None = None
    ) -> Tensor:
        return self.run(self.form, logits, labels, self.columns, labels=labels, weight=weight, index=index)
