"""What each forward pass shows of the samples' given labels: a table that every fused loss notes in beside its work.

A row of the table is a training sample. Its columns, all float32:

    LABEL       the given label, which the margin is of; -1 for none
    RIGHT       1 if the last look had the label as the most probable class, else 0
    LOOKS       forward passes
    FORGOTTEN   times that the label was the most probable class at one look and not at the next
    MARGINS     looks whose margin is in the sum below
    MARGIN      sum of z_y - max_{c != y} z_c, the logit of the label above the highest other one
    CONFIDENCE  sum of the label's probability

The last column is free: a row is 32 bytes, which a GPU moves at once. A row of logits with NaN or +inf is no look.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .registry import FusedOp

LABEL, RIGHT, LOOKS, FORGOTTEN, MARGINS, MARGIN, CONFIDENCE = range(7)

LOOK = FusedOp("look", "logits", loss=False, listed=False, find_rule=lambda rules: rules.Rule())
"""Only notes; its rule on a GPU has no parts."""


def new_looks(labels: Tensor) -> Tensor:
    """The table, float32 [N, 8], of samples with the labels int64 [N] that nobody has looked at."""
    table = torch.zeros(len(labels), 8, device=labels.device)
    table[:, LABEL] = labels
    return table


def note_looks(logits: Tensor, index: Tensor, looks: Tensor) -> None:
    """Note one look at the samples `index`, int64 [B], whose logits are [B, C]: for what is no fused loss.

    The samples of a batch are distinct; one whose position lies outside of the table is not noted.
    """
    LOOK(logits.detach(), looks=looks, look_index=index)


class Scores(NamedTuple):
    """What the looks at each training sample say of its given label, float32 [N] each; NaN of one without looks."""

    aum: Tensor
    """The mean margin, the area under the margin ranking of Pleiss et al. 2020. Low or negative: probably wrong."""
    confidence: Tensor
    """The mean probability of the given label."""
    forgetting: Tensor
    """Forgetting events (Toneva et al. 2019); infinite of a sample that was never right."""
    looks: Tensor
    """How often the sample was looked at, 0 or more."""


def scores_of(looks: Tensor) -> Scores:
    """The scores that a table of looks holds."""
    right, count, forgotten, margins, margin, confidence = looks[:, RIGHT : CONFIDENCE + 1].unbind(1)
    never = (right == 0) & (forgotten == 0)
    forgotten = torch.where(never, torch.inf, forgotten)
    return Scores(margin / margins, confidence / count, torch.where(count > 0, forgotten, torch.nan), count.clone())
