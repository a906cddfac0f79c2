"""Loss, prediction and confidence for sample selection, from one pass over the logits, written by index."""

import triton
import triton.language as tl
from torch import Tensor

from .row import constants, load_logits


@triton.jit(do_not_specialize=["num_rows", "num_samples"])
def select_rows(
    logits_BC,
    labels_B,
    index_B,
    loss_N,
    prediction_N,
    confidence_N,
    num_rows,
    num_samples,
    C: tl.constexpr,
    CE: tl.constexpr,
    MAE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """ROWS rows per program, in stretches of BLOCK columns. Without labels the prediction is used as the label.

    If BLOCK does not cover the row, each lane keeps, for its columns so far, the highest logit, its first column, the
    sum of powers relative to it, and the sum of the logits' distances from it. The lanes are combined once, after the
    loop. Distances are summed instead of logits, because sum_k log p_k = sum_k (z_k - max) - C log(total power) would
    otherwise cancel if all logits are large.

    A row of NaN gives NaN and the prediction -1. A label out of range gives a NaN loss, and an index out of range
    writes nothing.
    """
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    lane = tl.arange(0, BLOCK)[None, :]
    in_batch = row < num_rows

    if C <= BLOCK:
        logits = load_logits(logits_BC, row, 0, lane, in_batch, C, tl.float32)
        highest = tl.max(logits, axis=1, keep_dims=True)
        total_power = tl.sum(tl.exp(logits - highest), axis=1, keep_dims=True)
        distance = tl.sum(tl.where(lane < C, logits - highest, 0.0), axis=1, keep_dims=True)
        prediction = tl.min(tl.where(logits == highest, lane, C), axis=1, keep_dims=True)
    else:
        lane_highest = tl.full([ROWS, BLOCK], -3.4028234e38, tl.float32)
        lane_column = tl.full([ROWS, BLOCK], C, tl.int32)
        lane_power = tl.zeros([ROWS, BLOCK], tl.float32)
        lane_distance = tl.zeros([ROWS, BLOCK], tl.float32)
        for start in range(0, C, BLOCK):
            column = start + lane
            logits = load_logits(logits_BC, row, start, lane, in_batch, C, tl.float32)
            higher = tl.maximum(lane_highest, logits)
            rise = tl.where(start > 0, lane_highest - higher, 0.0)
            lane_power = lane_power * tl.exp(rise) + tl.exp(logits - higher)
            lane_distance += (start // BLOCK) * rise + tl.where(column < C, logits - higher, 0.0)
            lane_column = tl.where(logits > lane_highest, column, lane_column)
            lane_highest = higher
        highest = tl.max(lane_highest, axis=1, keep_dims=True)
        total_power = tl.sum(lane_power * tl.exp(lane_highest - highest), axis=1, keep_dims=True)
        lane_count = ((C + BLOCK - 1 - lane) // BLOCK).to(tl.float32)
        distance = tl.sum(lane_distance + lane_count * (lane_highest - highest), axis=1, keep_dims=True)
        prediction = tl.min(tl.where(lane_highest == highest, lane_column, C), axis=1, keep_dims=True)
    log_total = tl.log(total_power)
    confidence = 1.0 / total_power

    label_log_prob = -log_total
    if labels_B is not None:
        label = tl.load(labels_B + row, mask=in_batch, other=0)
        known = in_batch & (label >= 0) & (label < C)
        label_log_prob += tl.where(
            known, load_logits(logits_BC, row, 0, label, known, C, tl.float32) - highest, float("nan")
        )
    loss = -label_log_prob
    if not CE:
        loss = label_log_prob / (distance - C * log_total) + MAE * (1.0 - tl.exp(label_log_prob))

    sample = tl.load(index_B + row, mask=in_batch, other=-1)
    held = (sample >= 0) & (sample < num_samples)
    tl.store(loss_N + sample, loss, mask=held)
    tl.store(prediction_N + sample, tl.where(confidence == confidence, prediction, -1), mask=held)
    tl.store(confidence_N + sample, confidence, mask=held)


def launch(
    logits: Tensor,
    labels: Tensor | None,
    index: Tensor,
    loss: Tensor,
    prediction: Tensor,
    confidence: Tensor,
    ce: bool,
    mae: float,
    geometry: tuple[int, int, int] | None = None,
) -> None:
    """Record a batch on the current device.

    Args:
        logits: [B, C] of float32, float16 or bfloat16.
        labels: [B] int64, each in [0, C); None for the predictions.
        index: [B] int64, distinct, each in [0, N).
        loss: [N] float32, written in place, like the next two.
        prediction: [N] int32.
        confidence: [N] float32.
        ce: True for cross-entropy, False for NCE + mae * (1 - p_y).
        mae: the weight of 1 - p_y.
        geometry: rows per program, columns per stretch and warps, in place of `row.geometry(C)`.
    """
    num_rows, num_classes = logits.shape
    given = constants(num_classes, geometry, hold=False)
    del given["SPAN"]
    if num_rows:
        select_rows[(triton.cdiv(num_rows, given["ROWS"]),)](
            logits.contiguous(),
            None if labels is None else labels.contiguous(),
            index.contiguous(),
            loss,
            prediction,
            confidence,
            num_rows,
            len(loss),
            C=num_classes,
            CE=ce,
            MAE=mae,
            **given,
        )
