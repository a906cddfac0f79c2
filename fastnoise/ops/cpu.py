"""The fused losses on the CPU: csrc/core/losses_body.hpp, called on PyTorch's tensors.

All arithmetic is in C++, one pass per row; what is done here is to hand over addresses. Logits of half precision are
taken to float32 first, and so is a table that is a shard or of half precision, by `fastnoise.ops.tables`.
"""

from typing import Any

import torch
from torch import Tensor

from .. import _C

NUMBERS = {name: number for number, name in enumerate(_C.LOSS_RULES)}
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}

MANY = 1 << 16
"""Logits in a batch below which a second thread costs more than it brings."""


def gradient_dtype(logits: Tensor, attention: Tensor | None) -> torch.dtype:
    return logits.dtype if attention is None else torch.promote_types(logits.dtype, attention.dtype)


def integers(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def floats(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float().contiguous()


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def run(
    rule: str,
    given: dict[str, Any],
    options: tuple[float, ...],
    ignore_index: int | None,
    update: bool,
    loss: bool,
    reduction: str = "none",
    gradient_scale: float = 1.0,
) -> tuple[Tensor, ...]:
    """Run one rule over a batch.

    An index that occurs twice finds the targets as they were before the batch, and of its updates the last one stays. A
    row with a logit of NaN or +inf, or such an attention, leaves its targets alone.

    Args:
        rule: its name.
        given: the op's tensors by name, of the forms that `FusedOp.check` demands, with a whole table of float32.
        options: the rule's.
        ignore_index: a label whose rows have loss and gradient 0 and leave their targets alone.
        update: False leaves the targets alone whatever the update flag.
        loss: whether the rule has one.
        reduction: "none", "mean" or "sum"; the mean divides by B, and is NaN where that is 0.
        gradient_scale: a factor of every gradient, applied before it is rounded to its dtype.

    Returns:
        loss float32, [B] or reduced [], and the gradient: d loss / d logits [B, C] in the logits' dtype; with attention
        [B * C + B], d loss / d logits row by row and d loss / d attention, in the dtype that both promote to. Nothing
        where the rule has no loss.

    Raises:
        IndexError: a label or index is out of range. Nothing was written then.
    """
    logits = given["logits"]
    num_rows, num_classes = logits.shape
    values = logits.float()
    if values.stride(1) != 1:
        values = values.contiguous()
    attention, share, targets = floats(given.get("attention")), given.get("share"), given.get("targets")
    labels, index = integers(given.get("labels")), integers(given.get("index"))
    pair_labels, pair_index = integers(given.get("pair_labels")), integers(given.get("pair_index"))
    share = None if share is None else floats(share.expand(num_rows))
    rows = floats(given.get("soft_labels", given.get("columns")))
    knobs = floats(given.get("knobs"))
    losses = gradient = None
    attention_gradient = 0
    if loss:  # new_empty: the defaults of dtype and device don't matter
        losses = values.new_empty(num_rows if reduction == "none" else ())
        if attention is None:
            gradient = values.new_empty((num_rows, num_classes))
        else:
            gradient = values.new_empty(num_rows * num_classes + num_rows)
            attention_gradient = gradient.data_ptr() + 4 * num_rows * num_classes
    within = _C.fused_loss(
        NUMBERS[rule],
        num_rows,
        num_classes,
        values.stride(0),
        values.data_ptr(),
        address(attention),
        address(labels),
        address(index),
        address(pair_labels),
        address(pair_index),
        address(share),
        address(targets),
        0 if targets is None else targets.shape[0],
        address(rows),
        update,
        address(knobs),
        options,
        ignore_index,
        address(losses),
        address(gradient),
        attention_gradient,
        REDUCTIONS[reduction],
        gradient_scale,
        torch.get_num_threads() if num_rows * num_classes >= MANY else 1,
    )
    if not within:
        raise IndexError(f"{rule}: a label or index is out of range")
    if losses is None or gradient is None:
        return ()
    return losses, gradient.to(gradient_dtype(logits, given.get("attention")))
