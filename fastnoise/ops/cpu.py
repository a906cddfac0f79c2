"""The fused losses on the CPU: csrc/core/losses/rules.hpp, called on PyTorch's tensors.

All arithmetic is in C++, one pass per row; the code here hands over addresses. Logits in half precision are converted
to float32 first. For a table in half precision or a shard, `fastnoise.ops.tables` makes a float32 table of the batch.
"""

from typing import Any

import torch
from torch import Tensor

from .. import _C

NUMBERS = {name: number for number, name in enumerate(_C.LOSS_RULES)}
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}

MANY = 1 << 16
"""Number of logits in a batch below which a second thread costs more than it saves."""


PLACES = {
    "attention": 0,
    "labels": 1,
    "index": 2,
    "pair_labels": 3,
    "pair_index": 4,
    "share": 5,
    "targets": 6,
    "knobs": 7,
    "soft_labels": 8,
    "columns": 8,
    "looks": 9,
    "look_index": 10,
}
"""The place of each of an op's tensors among the addresses that C++ takes. The address of a missing tensor is 0."""

ACCEPTED = torch.float32, torch.int64
"""The dtypes that C++ takes. All others are floating and are converted to float32."""


def gradient_dtype(logits: Tensor, attention: Tensor | None) -> torch.dtype:
    return logits.dtype if attention is None else torch.promote_types(logits.dtype, attention.dtype)


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

    If an index occurs twice, both rows read the targets from before the batch, and the last update stays. If a logit or
    the attention of a row is NaN or +inf, its targets do not change.

    Args:
        rule: its name.
        given: the op's tensors by name, in the forms that `FusedOp.check` requires, with a whole table in float32.
        options: the rule's.
        ignore_index: a label whose rows have loss and gradient 0, and whose targets do not change.
        update: False: the targets do not change, whatever the update flag.
        loss: whether the rule has one.
        reduction: "none", "mean" or "sum"; the mean divides by B, and is NaN if that is 0.
        gradient_scale: a factor of every gradient, applied before it is rounded to its dtype.

    Returns:
        loss float32, [B] or reduced [], and the gradient: d loss / d logits [B, C] in the logits' dtype; with attention
        [B * C + B], d loss / d logits row by row and then d loss / d attention, in the dtype that both promote to. An
        empty tuple if the rule has no loss.

    Raises:
        IndexError: a label or index is out of range. Nothing has been written then.
    """
    logits = given["logits"]
    num_rows, num_classes = logits.shape
    values = logits.float()
    stride, step = values.stride()
    if step != 1:
        values, stride = values.contiguous(), num_classes
    addresses, kept = [0] * 11, []
    for name, place in PLACES.items():
        tensor = given.get(name)
        if tensor is None:
            continue
        if name == "share":
            tensor = tensor.expand(num_rows)
        if not (tensor.is_contiguous() and tensor.dtype in ACCEPTED):
            tensor = (tensor if tensor.dtype in ACCEPTED else tensor.float()).contiguous()
            kept.append(tensor)  # until C++ has read it
        addresses[place] = tensor.data_ptr()
    outputs = 0, 0, 0
    if loss:  # new_empty: the defaults of dtype and device don't matter
        losses = values.new_empty(num_rows if reduction == "none" else ())
        if "attention" in given:
            gradient = values.new_empty(num_rows * num_classes + num_rows)
            start = gradient.data_ptr()
            outputs = losses.data_ptr(), start, start + 4 * num_rows * num_classes
        else:
            gradient = values.new_empty((num_rows, num_classes))
            outputs = losses.data_ptr(), gradient.data_ptr(), 0
    within = _C.fused_loss(
        NUMBERS[rule],
        num_rows,
        num_classes,
        stride,
        values.data_ptr(),
        addresses[0],
        addresses[1],
        addresses[2],
        addresses[3],
        addresses[4],
        addresses[5],
        addresses[6],
        addresses[7],
        addresses[8],
        given["targets"].shape[0] if addresses[6] else 0,
        update,
        options,
        ignore_index,
        outputs[0],
        outputs[1],
        outputs[2],
        REDUCTIONS[reduction],
        gradient_scale,
        addresses[9],
        addresses[10],
        given["looks"].shape[0] if addresses[9] else 0,
        torch.get_num_threads() if num_rows * num_classes >= MANY else 1,
    )
    if not within:
        raise IndexError(f"{rule}: a label or index is out of range")
    if not loss:
        return ()
    return losses, gradient if values is logits else gradient.to(gradient_dtype(logits, given.get("attention")))
