"""`fastnoise::select`: loss, prediction and confidence of a batch, written into the tables of one stage by index."""

from importlib import import_module

import torch
from torch import Tensor

from ..errors import DataError
from .checks import LOGIT_DTYPES, check_distinct, check_index, check_range, debug, refuse
from .registry import load_kernels


def select_cuda(
    logits: Tensor,
    labels: Tensor | None,
    index: Tensor,
    loss: Tensor,
    prediction: Tensor,
    confidence: Tensor,
    stage: int,
    ce: bool,
    mae: float,
) -> None:
    load_kernels()
    if debug.on:
        check_ranges(logits, labels, index, loss)
    with torch.cuda.device(logits.device):
        import_module("fastnoise.kernels.select").launch(
            logits, labels, index, loss[stage], prediction[stage], confidence[stage], ce, mae
        )


def select_cpu(
    logits: Tensor,
    labels: Tensor | None,
    index: Tensor,
    loss: Tensor,
    prediction: Tensor,
    confidence: Tensor,
    stage: int,
    ce: bool,
    mae: float,
) -> None:
    check_ranges(logits, labels, index, loss)
    log_probs = torch.log_softmax(logits, 1, dtype=torch.float32)
    predicted = logits.argmax(1)
    log_confidence = log_probs.gather(1, predicted[:, None])[:, 0]
    label_log_probs = log_confidence if labels is None else log_probs.gather(1, labels[:, None])[:, 0]
    losses = -label_log_probs
    if not ce:
        losses = label_log_probs / log_probs.sum(1) + mae * (1 - label_log_probs.exp())
    loss[stage].index_copy_(0, index, losses)
    prediction[stage].index_copy_(0, index, predicted.masked_fill(log_confidence.isnan(), -1).int())
    confidence[stage].index_copy_(0, index, log_confidence.exp())


OP = torch.library.custom_op(
    "fastnoise::select",
    select_cuda,
    mutates_args={"loss", "prediction", "confidence"},
    device_types="cuda",
    schema="(Tensor logits, Tensor? labels, Tensor index, Tensor(a!) loss, Tensor(b!) prediction, "
    "Tensor(c!) confidence, SymInt stage, bool ce, float mae) -> ()",
)
OP.register_kernel("cpu", select_cpu)
OP.register_fake(lambda *inputs: None)


def check_ranges(logits: Tensor, labels: Tensor | None, index: Tensor, loss: Tensor) -> None:
    """DataError for a label or index that is out of range, and for an index that occurs twice."""
    if labels is not None:
        check_range("select", "label", labels, logits.shape[1], "number of classes")
    check_index("select", index, loss.shape[1])
    if debug.on:
        check_distinct("select", index)


def select(
    logits: Tensor,
    labels: Tensor | None,
    index: Tensor,
    loss: Tensor,
    prediction: Tensor,
    confidence: Tensor,
    stage: int,
    *,
    ce: bool,
    mae: float,
) -> None:
    """Write row `stage` of the tables at `index`, in place and without gradient.

    If activation checkpointing repeats the call, it writes the same values again.

    Args:
        logits: [B, C] float32, float16 or bfloat16.
        labels: [B] int64 in 0..C-1; None for the predictions.
        index: [B] int64 in 0..N-1, distinct.
        loss: [S, N] float32: -log p_y if `ce`, else log p_y / sum_k log p_k + mae * (1 - p_y).
        prediction: [S, N] int32: the first class of the highest logit.
        confidence: [S, N] float32: its probability.
        stage: in 0..S-1.
        ce, mae: which loss.

    Raises:
        DataError: a tensor of the wrong form, and on the CPU a label or index out of range. On a CUDA device such a
            label writes NaN to `loss`, and such an index writes nothing.
    """
    tables = {"loss": loss, "prediction": prediction, "confidence": confidence}
    given = {"logits": logits, "labels": labels, "index": index, **tables}
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor) and (name, tensor) != ("labels", None):
            raise DataError(f"select: {name} is {type(tensor).__name__}; expected a tensor")
    if logits.dim() != 2 or logits.shape[1] < 2 or logits.dtype not in LOGIT_DTYPES:
        refuse("select", "logits", logits, "float32, float16 or bfloat16 [B, C] with at least two classes")
    batch = len(logits)
    for name, tensor in (("labels", labels), ("index", index)):
        if tensor is not None and (tensor.shape != (batch,) or tensor.dtype != torch.int64):
            refuse("select", name, tensor, f"int64 [{batch}], one per row of logits")
    for name, tensor in tables.items():
        dtype = torch.int32 if name == "prediction" else torch.float32
        if tensor.dim() != 2 or tensor.shape != loss.shape or tensor.dtype != dtype or not tensor.is_contiguous():
            refuse("select", name, tensor, f"contiguous {str(dtype).removeprefix('torch.')} [S, N]")
    for name, tensor in given.items():
        if tensor is not None and tensor.device != logits.device:
            raise DataError(f"select: {name} on {tensor.device}, logits on {logits.device}; put both on one")
    if not 0 <= stage < loss.shape[0]:
        raise DataError(f"select: stage {stage} is outside 0..{loss.shape[0] - 1}, for {loss.shape[0]} stages")
    torch.ops.fastnoise.select.default(logits.detach(), labels, index, loss, prediction, confidence, stage, ce, mae)
