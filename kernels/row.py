"""The skeleton of every fused loss: one kernel from logits to loss, logit gradient and updated targets.

What the loss computes comes as a rule (`rules.py`): Triton functions passed as constexpr. The kernel makes four passes
over its rows (softmax, the sum that the target update needs, the loss's sums, the stores) in stretches of BLOCK
columns. Where BLOCK covers the row, each pass is a loop of one trip: the compiler unrolls it and merges the equal
loads, so that the row is read once and stays in registers, with several rows per program where C is small. Longer rows
are read again from the cache. All arithmetic is fp32, whatever the logits' dtype.

C is constexpr, and with it the row strides of the contiguous matrices: as a run-time integer it would be specialised
only on multiples of 16, and rows of 100 or 1000 would load 2 or 4 bytes at a time. Nothing is autotuned, because
tuning runs a kernel many times and each run would update the targets.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .rules import Rule

MAX_BLOCK = 8192
"""The longest row, padded to a power of two, that is held in registers: twice as many columns spill."""

LOOP_BLOCK = 4096
"""Columns per stretch of a longer row."""


@triton.jit
def load_logits(logits_BC, row, column, mask, C: tl.constexpr):
    """Logits in fp32; a padding column gets a finite number that is as good as -inf, and spares inf - inf."""
    logits = tl.load(logits_BC + row * C + column, mask=mask & (column < C), other=0.0).to(tl.float32)
    return tl.where(column < C, logits, -1e30)


@triton.jit
def load_softmax(
    logits_BC, targets_NC, row, target_row, column, in_batch, valid, highest, total_power, C: tl.constexpr
):
    """Probabilities, their logarithms and the stored targets of some columns.

    log p = (z - max) - log sum: the first difference is exact where it is small, unlike z - (max + log sum).
    """
    logits = load_logits(logits_BC, row, column, in_batch, C)
    target = 0.0
    if targets_NC is not None:
        target = tl.load(targets_NC + target_row * C + column, mask=valid & (column < C), other=0.0)
    shifted = logits - highest
    return tl.exp(shifted) * (1.0 / total_power), shifted - tl.log(total_power), target


@triton.jit(do_not_specialize=["num_rows", "num_samples"])
def fused_rows(
    logits_BC,
    labels_B,
    index_B,
    attention_B,
    targets_NC,
    knobs_3,
    loss_B,
    dlogits_BC,
    dattention_B,
    num_rows,
    num_samples,
    C: tl.constexpr,
    PREPARE: tl.constexpr,
    UPDATE: tl.constexpr,
    SUMS: tl.constexpr,
    NUM_SUMS: tl.constexpr,
    FINISH: tl.constexpr,
    SLOPE: tl.constexpr,
    VARIANT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """ROWS rows per program. A tensor that the rule has no use for is None.

    A label or index out of range makes that row invalid: nothing is read or written through it, and its loss and
    gradient become NaN, which reports it without a device sync.
    """
    nan = float("nan")
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    lane = tl.arange(0, BLOCK)[None, :]
    in_batch = row < num_rows
    label = tl.load(labels_B + row, mask=in_batch, other=-1)
    valid = in_batch & (label >= 0) & (label < C)
    target_row = row
    momentum = 1.0
    strength = 0.0
    attention = 0.0
    if targets_NC is not None:
        target_row = tl.load(index_B + row, mask=in_batch, other=-1)
        valid = valid & (target_row >= 0) & (target_row < num_samples)
        updating = tl.where(valid, tl.load(knobs_3), 0.0) != 0
        momentum = tl.where(updating, tl.load(knobs_3 + 1), 1.0)
    if knobs_3 is not None:
        strength = tl.load(knobs_3 + 2)
    if attention_B is not None:
        attention = tl.load(attention_B + row, mask=in_batch, other=0.0).to(tl.float32)
    label_logit = load_logits(logits_BC, row, label, valid, C)

    if C <= BLOCK:
        logits = load_logits(logits_BC, row, lane, in_batch, C)
        highest = tl.max(logits, axis=1, keep_dims=True)
        total_power = tl.sum(tl.exp(logits - highest), axis=1, keep_dims=True)
    else:
        # Each lane keeps a running maximum and the sum of powers relative to it; the lanes meet once, after the loop.
        # The first maximum is finite, so that the difference of two of them is never inf - inf.
        lane_highest = tl.full([ROWS, BLOCK], -3.4028234e38, tl.float32)
        lane_power = tl.zeros([ROWS, BLOCK], tl.float32)
        for start in range(0, C, BLOCK):
            logits = load_logits(logits_BC, row, start + lane, in_batch, C)
            higher = tl.maximum(lane_highest, logits)
            lane_power = lane_power * tl.exp(lane_highest - higher) + tl.exp(logits - higher)
            lane_highest = higher
        highest = tl.max(lane_highest, axis=1, keep_dims=True)
        total_power = tl.sum(lane_power * tl.exp(lane_highest - highest), axis=1, keep_dims=True)

    total = 0.0
    if targets_NC is not None:
        lane_total = tl.zeros([ROWS, BLOCK], tl.float32)
        for start in range(0, C, BLOCK):
            column = start + lane
            probs, log_probs, target = load_softmax(
                logits_BC, targets_NC, row, target_row, column, in_batch, valid, highest, total_power, C
            )
            lane_total += tl.where(column < C, PREPARE(probs, target), 0.0)
        total = tl.sum(lane_total, axis=1, keep_dims=True)

    sum0 = 0.0
    sum1 = 0.0
    sum2 = 0.0
    if NUM_SUMS > 0:
        lane0 = tl.zeros([ROWS, BLOCK], tl.float32)
        lane1 = tl.zeros([ROWS, BLOCK], tl.float32)
        lane2 = tl.zeros([ROWS, BLOCK], tl.float32)
        for start in range(0, C, BLOCK):
            column = start + lane
            probs, log_probs, target = load_softmax(
                logits_BC, targets_NC, row, target_row, column, in_batch, valid, highest, total_power, C
            )
            if targets_NC is not None:
                target = UPDATE(target, probs, total, column == label, momentum, VARIANT)
            term0, term1, term2 = SUMS(probs, log_probs, target, attention, VARIANT)
            lane0 += tl.where(column < C, term0, 0.0)
            lane1 += tl.where(column < C, term1, 0.0)
            lane2 += tl.where(column < C, term2, 0.0)
        sum0 = tl.sum(lane0, axis=1, keep_dims=True)
        if NUM_SUMS > 1:
            sum1 = tl.sum(lane1, axis=1, keep_dims=True)
        if NUM_SUMS > 2:
            sum2 = tl.sum(lane2, axis=1, keep_dims=True)

    label_log_prob = label_logit - highest - tl.log(total_power)
    loss, dattention, scale, total_slope = FINISH(label_log_prob, sum0, sum1, sum2, attention, strength, VARIANT)

    # Targets are stored last and recomputed until then: no thread reads what another of its row has written.
    for start in range(0, C, BLOCK):
        column = start + lane
        probs, log_probs, target = load_softmax(
            logits_BC, targets_NC, row, target_row, column, in_batch, valid, highest, total_power, C
        )
        is_label = column == label
        if targets_NC is not None:
            target = UPDATE(target, probs, total, is_label, momentum, VARIANT)
            tl.store(targets_NC + target_row * C + column, target, mask=updating & (column < C))
        dlogits = SLOPE(probs, log_probs, target, is_label, attention, scale, VARIANT) - probs * total_slope
        tl.store(dlogits_BC + row * C + column, tl.where(valid, dlogits, nan), mask=in_batch & (column < C))
    tl.store(loss_B + row, tl.where(valid, loss, nan), mask=in_batch)
    if dattention_B is not None:
        tl.store(dattention_B + row, tl.where(valid, dattention, nan), mask=in_batch)


def geometry(num_classes: int, max_block: int = MAX_BLOCK) -> tuple[int, int, int]:
    """Rows per program, columns per stretch and warps for rows of C columns: some 8 elements per thread.

    Small rows share a program (64 rows of up to 16 columns, 8 of up to 128); beyond 1024 columns warps are added.
    """
    block = max(16, triton.next_power_of_2(num_classes))
    if block > max_block:
        block = min(LOOP_BLOCK, max_block)
    return max(1, 1024 // block), block, min(16, max(4, block // 256))


def launch(
    rule: Rule,
    logits: Tensor,
    labels: Tensor,
    index: Tensor | None = None,
    attention: Tensor | None = None,
    targets: Tensor | None = None,
    knobs: Tensor | None = None,
    variant: bool = False,
    max_block: int = MAX_BLOCK,
) -> tuple[Tensor, ...]:
    """Run one rule over a batch on the current device; `targets` is updated in place.

    Args:
        rule: the loss.
        logits: [B, C] of float32, float16 or bfloat16.
        labels: [B] int64, each in [0, C).
        index: [B] int64, distinct rows of `targets`.
        attention: [B], NAL's logit before the sigmoid.
        targets: [N, C] float32, contiguous.
        knobs: [3] float32: update flag, momentum, strength.
        variant: the rule's VARIANT.
        max_block: the longest padded row held in registers.

    Returns:
        loss [B] float32, d loss / d logits [B, C] in the logits' dtype, and with `attention` d loss / d attention [B].
    """
    logits, labels = logits.contiguous(), labels.contiguous()
    num_rows, num_classes = logits.shape
    loss = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    dlogits = torch.empty_like(logits)
    dattention = None if attention is None else torch.empty_like(attention.contiguous())
    rows, block, num_warps = geometry(num_classes, max_block)
    if num_rows:
        fused_rows[(triton.cdiv(num_rows, rows),)](
            logits,
            labels,
            None if index is None else index.contiguous(),
            None if attention is None else attention.contiguous(),
            targets,
            knobs,
            loss,
            dlogits,
            dattention,
            num_rows,
            0 if targets is None else targets.shape[0],
            C=num_classes,
            PREPARE=rule.prepare,
            UPDATE=rule.update,
            SUMS=rule.sums,
            NUM_SUMS=rule.num_sums,
            FINISH=rule.finish,
            SLOPE=rule.slope,
            VARIANT=variant,
            ROWS=rows,
            BLOCK=block,
            num_warps=num_warps,
            enable_fp_fusion=True,
        )
    return (loss, dlogits) if dattention is None else (loss, dlogits, dattention)
