"""Sparse over-parameterization: the noise of each label has parameters of its own, which training separates.

Constants and clamps are those of the authors' code. tests/test_parity.py shows the differences:

    SOP  The authors' steps of u and v divide by the batch, here always by 128, which is theirs. So only the last batch
         of an epoch differs, and the number of processes or a fused head change nothing.
"""

from typing import Unpack

import torch
from torch import Tensor

from ..errors import ConfigError, DataError
from ..ops.linear import LinearLogits
from ..ops.registry import FusedOp
from .base import TargetLoss
from .forms import Form, Stored, TableOptions, is_soft, run, within
from .reference import SOP_BATCH, sop_shares, sop_sides

__all__ = ["SOPLoss", "sop"]

SOP = FusedOp("sop", "logits labels index targets! knobs", "float rate_u, float rate_v")
START = 1e-8
"""Standard deviation of u and v before training."""
DRAWN = 1 << 20
"""Numbers of the start that are drawn at a time."""


def sop_form(rate_u: float, rate_v: float) -> Form:
    return Form(SOP, (within("rate_u", rate_u, 0) / SOP_BATCH, within("rate_v", rate_v, 0) / SOP_BATCH))


def sop(
    logits: Tensor,
    labels: Tensor,
    index: Tensor,
    targets: Tensor,
    knobs: Tensor,
    *,
    rate_u: float,
    rate_v: float,
    **stored: Unpack[Stored],
) -> Tensor:
    """SOPLoss of logits [B, C], labels int64 [B]: float32, [] or [B]. It steps u and v in targets [N, C], float32.

    The table must not begin as zeros, which stay zeros. Of the knobs only the update flag counts.
    """
    return run(sop_form(rate_u, rate_v), logits, labels, index, targets, knobs, labels=labels, **stored)


class SOPLoss(TargetLoss):
    """Sparse over-parameterization (Liu et al. 2022, "Robust Training under Label Noise by Over-parameterization").

    A sample has a number u for its given label y and a number v_k for each other class, of which the noise of the label
    is made: U = u^2 in the place of y, V = v^2 in the others, each at most 1 (arXiv:2202.14026, Eq. 4 and 5). With H
    the one-hot of the most probable class, which gets no gradient, the loss is

        -log P_y + |H + U - V - y|^2,    P = normalised(max(p + U - V, 1e-4)), at least 1e-4

    (Eq. 6 and 7, as in the authors' code). No gradient flows through V in the first term. Each visit then moves u and v
    by a step of gradient descent on the loss, with rates of their own and without momentum or decay. The rates are
    those of the authors for a mean over 128 samples: a sample's step is the rate times the gradient of its own loss,
    divided by 128, whatever batch, reduction, `weight` and `class_weight` are.

    `targets` holds u in the column of the given label and v in the others. It begins with normal numbers of standard
    deviation 1e-8, since zeros would never move. A sample's label must stay the same throughout. Activation
    checkpointing would compute the loss again with u and v already moved: keep this loss outside.

    With `balance` the loss has SOP+'s term for balanced classes too,

        balance * -(1/C) sum_c log(mean of P_c over the batch)

    (Eq. 9), whose gradient reaches u as well. It is plain PyTorch beside the launch, and needs whole logits and a table
    on their device. A batch with a logit of NaN or +inf then has no finite loss for any sample.

    Args:
        num_samples: N, size of the training set.
        num_classes: C, at least 2.
        rate_u, rate_v: the learning rates of u and v.
        balance: weight of the term for balanced classes.
        options: reduction and ignore_index, see FusedLoss; target_place, shard and seed, see TargetLoss. The seed is
            that of the start. `target_dtype` must be float32.

    Called as ELRLoss. Soft labels raise DataError.
    """

    rates = ()

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        *,
        rate_u: float,
        rate_v: float,
        balance: float = 0.0,
        **options: Unpack[TableOptions],
    ):
        super().__init__(num_samples, num_classes, strength=0.0, momentum=0.0, **options)
        if self.visits is not None:
            raise ConfigError(
                f"target_dtype is {self.targets.dtype}: it must be torch.float32, since u and v begin near 1e-8 and "
                "may be negative"
            )
        self.form, self.balance = sop_form(rate_u, rate_v), within("balance", balance, 0)
        self.shown = {"rate_u": rate_u, "rate_v": rate_v, "balance": balance}
        self.start(self.seed)

    def start(self, seed: int) -> None:
        """Draw u and v anew. Each shard has its rows of the same numbers."""
        random, (rank, world), classes = torch.Generator("cpu").manual_seed(seed), self.shard, self.targets.shape[1]
        if self.targets.is_meta:
            return
        self._wait()
        step, written = max(1, DRAWN // classes), 0
        for first in range(0, self.num_samples, step):
            size = (min(step, self.num_samples - first), classes)
            drawn = torch.empty(size, device="cpu").normal_(0, START, generator=random)
            own = drawn[(rank - first) % world :: world]
            self.targets[written : written + len(own)].copy_(own)
            written += len(own)

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor, *, weight: Tensor | None = None, update: bool = True
    ) -> Tensor:
        if is_soft(labels):
            raise DataError(
                f"{type(self).__name__}: soft labels have no place here: u belongs to one hard label, int64 [B]"
            )
        place = self._placed(logits, labels, index) if self.balance else None
        before = None if place is None else self.targets.index_select(0, place[0])
        loss = self.run_table(self.form, logits, labels, index, labels=labels, weight=weight, update=update)
        if place is None or before is None:  # also where the op has refused what has no place
            return loss
        with torch.autocast(logits.device.type, enabled=False):
            return loss + self._balanced(logits.float(), labels, before, place, update)

    def _placed(self, logits: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor] | None:
        """`places`; ConfigError for what the term for balanced classes does not take."""
        if isinstance(logits, LinearLogits):
            raise ConfigError(f"{type(self).__name__}: balance needs whole logits: give it these, not fused_linear")
        if self.on_host and self.knobs.is_cuda:
            raise ConfigError(f"{type(self).__name__}: balance needs the table on the device (target_place='device')")
        return self.places(index, len(labels)) if isinstance(labels, Tensor) and labels.dim() else None

    def _balanced(
        self, logits: Tensor, labels: Tensor, before: Tensor, place: tuple[Tensor, Tensor], update: bool
    ) -> Tensor:
        """The term for balanced classes, for each sample or reduced as the loss. It steps u, which the op has stepped.

        Args:
            logits: float32 [B, C].
            labels: int64 [B].
            before: [B, C], the batch's rows of the table as they were before the op.
            place: of the samples, as `places` has it.
            update: whether u is stepped.
        """
        rows, counted = place
        given = labels.clamp(0, logits.shape[1] - 1)
        if self.ignore_index is not None:
            counted = counted & (labels != self.ignore_index)
        number = counted.sum().clamp(min=1)
        sides = sop_sides(logits, given, before)
        shares = torch.where(counted[:, None], sop_shares(sides), 0.0)
        mean = (shares.sum(0) / number).clamp(1e-4, 1)
        term = self.balance * -mean.log().mean()
        recomputed = not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
        if update and self.training and not recomputed:
            with torch.no_grad():
                falls = torch.where(shares > 1e-4, 1 / mean, 0.0)  # of the logarithms; none through a clamped P
                fall = falls.gather(1, given[:, None]) - (falls * shares).sum(1, keepdim=True)
                u, side = before.gather(1, given[:, None]), sides.gather(1, given[:, None])
                free = (u.square() <= 1) & (side >= 1e-4) & counted[:, None]
                slope = -self.balance / logits.shape[1] * 2 * u * fall / sides.clamp(min=1e-4).sum(1, keepdim=True)
                step = torch.where(free & slope.isfinite(), self.form.options[0] * self.knobs[0] * slope, 0.0)
                self.targets.index_put_((rows, given), -step.squeeze(1), accumulate=True)
        if self.reduction == "mean":
            return term
        return term * number if self.reduction == "sum" else torch.where(counted, term, 0.0)

    def cleaned(self, targets: Tensor, labels: Tensor) -> Tensor:
        """y - U + V, the labels without their noise, float32 [n, C], of some rows of the table [n, C] and their labels
        int64 [n]."""
        squares = targets.float().square().clamp(max=1)
        return squares.scatter(1, labels[:, None], 1 - squares.gather(1, labels[:, None]))

    def hard_rows(self, targets: Tensor, labels: Tensor) -> Tensor:
        return self.cleaned(targets, labels).argmax(1)
