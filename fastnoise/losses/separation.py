"""Sparse over-parameterization: the noise of each label has parameters of its own, which training separates.

Constants and clamps are those of the authors' code. tests/test_parity.py shows the differences:

    SOP  The authors' steps of u and v divide by the batch, here always by 128, which is theirs. So only the last batch
         of an epoch differs, and the number of processes or a fused head change nothing.
"""

from typing import Unpack

import torch
from torch import Tensor

from ..errors import ConfigError, DataError
from ..ops.registry import FusedOp
from .base import TargetLoss
from .forms import Form, Stored, TableOptions, is_soft, run, within
from .reference import SOP_BATCH

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

    Args:
        num_samples: N, size of the training set.
        num_classes: C, at least 2.
        rate_u, rate_v: the learning rates of u and v.
        options: reduction and ignore_index, see FusedLoss; target_place, shard and seed, see TargetLoss. The seed is
            that of the start. `target_dtype` must be float32.

    Called as ELRLoss. Soft labels raise DataError.
    """

    rates = ()

    def __init__(
        self, num_samples: int, num_classes: int, *, rate_u: float, rate_v: float, **options: Unpack[TableOptions]
    ):
        super().__init__(num_samples, num_classes, strength=0.0, momentum=0.0, **options)
        if self.visits is not None:
            raise ConfigError(
                f"target_dtype is {self.targets.dtype}: it must be torch.float32, since u and v begin near 1e-8 and "
                "may be negative"
            )
        self.form, self.shown = sop_form(rate_u, rate_v), {"rate_u": rate_u, "rate_v": rate_v}
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
        return self.run_table(self.form, logits, labels, index, labels=labels, weight=weight, update=update)

    def cleaned(self, targets: Tensor, labels: Tensor) -> Tensor:
        """y - U + V, the labels without their noise, float32 [n, C], of some rows of the table [n, C] and their labels
        int64 [n]."""
        squares = targets.float().square().clamp(max=1)
        return squares.scatter(1, labels[:, None], 1 - squares.gather(1, labels[:, None]))

    def hard_rows(self, targets: Tensor, labels: Tensor) -> Tensor:
        return self.cleaned(targets, labels).argmax(1)
