"""The fused losses on the CPU: csrc/core/losses_body.hpp, called on PyTorch's tensors.

All arithmetic is in C++, one pass per row; what is done here is to hand over addresses. Logits of half precision are
taken to float32 first, and so is a table that is a shard or of half precision, by `fastnoise.ops.tables`.
"""

from typing import Any

import torch
from torch import Tensor

from .. import _C

NUMBERS = {name: number for number, name in enumerate(_C.LOSS_RULES)}
WITHOUT_KNOBS = 0.0, 1.0, 0.0

MANY = 1 << 16
"""Logits in a batch below which a second thread costs more than it brings."""


def integers(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def floats(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float().contiguous()


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def run(
    rule: str, given: dict[str, Any], options: tuple[float, ...], ignore_index: int | None, update: bool, loss: bool
) -> tuple[Tensor, ...]:
    """Run one rule over a batch.

    An index that occurs twice finds the targets as they were before the batch, and of its updates the last one stays.

    Args:
        rule: its name.
        given: the op's tensors by name, of the forms that `FusedOp.check` demands, with a whole table of float32.
        options: the rule's.
        ignore_index: a label whose rows have loss and gradient 0 and leave their targets alone.
        update: False leaves the targets alone whatever the update flag.
        loss: whether the rule has one.

    Returns:
        loss [B] float32, d loss / d logits [B, C] in the logits' dtype and with attention d loss / d attention [B] in
        its own; nothing where the rule has no loss.

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
    visiting, momentum, strength = given["knobs"].tolist() if "knobs" in given else WITHOUT_KNOBS
    losses = gradient = dattention = None
    if loss:
        losses = torch.empty(num_rows, dtype=torch.float32, device="cpu")
        gradient = torch.empty((num_rows, num_classes), dtype=torch.float32, device="cpu")
        dattention = None if attention is None else torch.empty_like(attention)
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
        update and visiting != 0,
        momentum,
        strength,
        options,
        ignore_index,
        address(losses),
        address(gradient),
        address(dattention),
        torch.get_num_threads() if logits.numel() >= MANY else 1,
    )
    if not within:
        raise IndexError(f"{rule}: a label or index is out of range")
    if losses is None or gradient is None:
        return ()
    if dattention is None:
        return losses, gradient.to(logits.dtype)
    return losses, gradient.to(logits.dtype), dattention.to(given["attention"].dtype)
