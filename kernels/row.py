"""The skeleton of every fused loss: one kernel from logits to loss, logit gradient and updated targets.

What the loss computes comes as a rule (`rules.py`): Triton functions passed as constexpr. The kernel makes four passes
over its rows (softmax, the sum that the target update needs, the loss's sums, the stores) in stretches of BLOCK
columns, and leaves out those that the rule has no use for. Where BLOCK covers the row, each pass is a loop of one trip:
the compiler unrolls it and merges the equal loads, so that the row is read once and stays in registers, with several
rows per program where C is small. Longer rows are read again from the cache. All arithmetic is fp32, whatever the
logits' dtype, but fp64 on up to four classes: a gradient lies in C - 1 dimensions, and the fewer these are, the more
rows come so near to its zero, where terms cancel, that fp32 keeps no digits of it. NAL's largest error of 10,000 random
rows, relative to the row's norm, was in fp32 6.5e-5 at C = 2, 3.5e-5 at C = 3 (with RNAL), 7.5e-6 at C = 4 and 2.4e-6
at C = 10; ELR+'s, weighted, was 1.2e-5 at C = 2 within 40 rows. In fp64, which costs little on so short rows, they are
1.6e-7 and 2.0e-6.

Nothing is subtracted from 1: the sum of powers leaves out the largest, which is 1, so that 1 - p of the most probable
class m is as exact as any other probability. The gradient p_j sum_k g_k - g_j (`rules.py`) is for m the sum of
p_m sum_{k != m} g_k and -(1 - p_m) g_m, which keeps its precision where p_m nears 1 and both are small.

C is constexpr, and with it the row strides of the contiguous matrices: as a run-time integer it would be specialised
only on multiples of 16, and rows of 100 or 1000 would load 2 or 4 bytes at a time. Nothing is autotuned, because
tuning runs a kernel many times and each run would update the targets.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .counters import counter
from .rounding import round_stochastically, row_key
from .rules import Rule, log1p

MAX_BLOCK = 2048
"""The longest row, padded to a power of two, that is held in registers, and the columns per stretch of a longer one.
Rows of 4096 spill in NAL's rule on sm_100 with a table in fp16, with 8 and with 16 warps, and on sm_90 with 32; in
stretches of 4096 ELR's loops spill."""


@triton.jit
def load_logits(logits_BC, row, column, mask, C: tl.constexpr, MATH: tl.constexpr):
    """Logits of at least -1e30: as good as -inf, for padding and masked classes, and spares inf - inf."""
    logits = tl.load(logits_BC + row * C + column, mask=mask & (column < C), other=0.0).to(MATH)
    return tl.where((column < C) & ~(logits < -1e30), logits, -1e30)


@triton.jit
def load_target(targets_NC, target_row, pair_row, share, column, valid, C: tl.constexpr, MATH: tl.constexpr):
    """Stored targets of some columns; of a pair of rows, their mixture."""
    target = 0.0
    if targets_NC is not None:
        mask = valid & (column < C)
        target = tl.load(targets_NC + target_row * C + column, mask=mask, other=0.0).to(MATH)
        if pair_row is not None:
            other = tl.load(targets_NC + pair_row * C + column, mask=mask, other=0.0).to(MATH)
            target = share * target + (1.0 - share) * other
    return target


@triton.jit
def load_softmax(logits_BC, row, column, in_batch, highest, top, rest_power, C: tl.constexpr, MATH: tl.constexpr):
    """Of some columns: probabilities, their logarithms, one minus them, and which is the top class.

    log p = (z - max) - log sum: the first difference is exact where it is small, unlike z - (max + log sum).
    """
    shifted = load_logits(logits_BC, row, column, in_batch, C, MATH) - highest
    inverse = 1.0 / (1.0 + rest_power)
    probs = tl.exp(shifted) * inverse
    is_top = column == top
    return probs, shifted - log1p(rest_power), tl.where(is_top, rest_power * inverse, 1.0 - probs), is_top


@triton.jit
def label_share(column, label, pair_label, share):
    """The label's one-hot, or that of a pair of labels."""
    shared = tl.where(column == label, share, 0.0)
    if pair_label is not None:
        shared += tl.where(column == pair_label, 1.0 - share, 0.0)
    return shared


@triton.jit
def of_columns(
    logits_BC,
    targets_NC,
    rows,
    softmax,
    pair_row,
    pair_label,
    part,
    anchor,
    column,
    UPDATE: tl.constexpr,
    KEPT: tl.constexpr,
    TERMS: tl.constexpr,
    OPTIONS: tl.constexpr,
    C: tl.constexpr,
    MATH: tl.constexpr,
):
    """Of some columns: probabilities, one minus them, which is the top class, the labels' shares, the updated target,
    what that has kept of the earlier one, and the rule's three terms.

    `part` is the first label's share; `anchor`, for rules with KEPT, the top class's probability, target and kept part,
    and None where these are asked for. Values per row come as tuples, which in Triton cannot hold None.
    """
    row, in_batch, valid, target_row, share, label, total, momentum, attention = rows
    highest, top, rest_power = softmax
    probs, log_probs, complement, is_top = load_softmax(
        logits_BC, row, column, in_batch, highest, top, rest_power, C, MATH
    )
    target = load_target(targets_NC, target_row, pair_row, share, column, valid, C, MATH)
    shared = label_share(column, label, pair_label, part)
    kept = 0.0
    if KEPT is not None:
        kept = KEPT(target, probs, total, shared, momentum, OPTIONS)
    if UPDATE is not None:
        target = UPDATE(target, probs, total, shared, momentum, OPTIONS)
    term0 = 0.0
    term1 = 0.0
    slope = 0.0
    if TERMS is not None:
        if KEPT is None:
            term0, term1, slope = TERMS(probs, log_probs, complement, target, shared, is_top, total, attention, OPTIONS)
        elif anchor is not None:
            top_probs, top_target, top_kept = anchor
            excess = tl.where(is_top, 0.0, kept - (top_kept / top_probs) * probs)
            term0, term1, slope = TERMS(probs, log_probs, target, excess, top_probs, top_target, attention, OPTIONS)
    return probs, complement, is_top, shared, target, kept, term0, term1, slope


@triton.jit
def fold(partial, partials_P, arrivals, loss, loss_scale, LANES: tl.constexpr):
    """Write loss_scale times the sum of all programs' partial sums: done by the program that comes last, and nobody
    waits for it.

    It adds the partial sums in the order of the programs, whichever came last, so that equal batches yield equal bits.
    One thread stores the partial sum and counts it: what it releases is visible to whoever counts later. The counter is
    0 before each launch, since the last program leaves it so.
    """
    num_programs = tl.num_programs(0)
    tl.store(partials_P + tl.program_id(0), partial)
    if tl.atomic_add(arrivals, 1, sem="acq_rel") == num_programs - 1:
        sums = tl.zeros([LANES], tl.float32)
        for start in range(0, num_programs, LANES):
            program = start + tl.arange(0, LANES)
            # Past the first-level cache, which other multiprocessors' stores don't reach.
            sums += tl.load(partials_P + program, mask=program < num_programs, other=0.0, cache_modifier=".cg")
        tl.store(loss, tl.sum(sums, axis=0) * loss_scale)
        tl.store(arrivals, 0)


@triton.jit(do_not_specialize=["num_rows", "num_samples", "loss_scale", "gradient_scale"])
def fused_rows(
    logits_BC,
    labels_B,
    index_B,
    attention_B,
    pair_labels_B,
    pair_index_B,
    share_B,
    targets_NC,
    visits_N,
    knobs_3,
    loss,
    gradient,
    partials_P,
    arrivals,
    num_rows,
    num_samples,
    loss_scale,
    gradient_scale,
    C: tl.constexpr,
    PREPARE: tl.constexpr,
    PREPARE_MAX: tl.constexpr,
    UPDATE: tl.constexpr,
    KEPT: tl.constexpr,
    GATE: tl.constexpr,
    BLEND: tl.constexpr,
    TERMS: tl.constexpr,
    NUM_SUMS: tl.constexpr,
    FINISH: tl.constexpr,
    OPTIONS: tl.constexpr,
    IGNORE: tl.constexpr,
    STORE: tl.constexpr,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
    SEED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """ROWS rows per program. A tensor that the rule has no use for is None.

    `loss` is [B], or with `partials_P` the one sum of all rows, times loss_scale. `gradient` is [B, C], followed by [B]
    of the attention's where that is given; all of it is multiplied by gradient_scale before it is rounded.

    A label or index out of range makes that row invalid: nothing is read or written through it, and its loss and
    gradient become NaN, which reports it without a device sync. A row whose label is IGNORE has loss and gradient 0.
    """
    MATH: tl.constexpr = tl.float64 if C <= 4 else tl.float32
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    lane = tl.arange(0, BLOCK)[None, :]
    in_batch = row < num_rows
    valid = in_batch
    fill = float("nan")
    label = row
    if labels_B is not None:
        label = tl.load(labels_B + row, mask=in_batch, other=-1)
        valid = valid & (label >= 0) & (label < C)
        if IGNORE is not None:
            valid = valid & (label != IGNORE)
            fill = tl.where(label == IGNORE, 0.0, fill)
    target_row = row
    momentum = 1.0
    strength = 0.0
    attention = 0.0
    if attention_B is not None:
        attention = tl.load(attention_B + row, mask=in_batch, other=0.0).to(MATH)
    if index_B is not None:
        sample = tl.load(index_B + row, mask=in_batch, other=-1)
        target_row = sample
        valid = valid & (sample >= 0)
        if WORLD > 1:
            target_row = sample // WORLD
            valid = valid & (sample % WORLD == RANK)
        valid = valid & (target_row < num_samples)
        if visits_N is not None:
            visit = tl.load(visits_N + target_row, mask=valid, other=0)
            key = row_key(sample, visit, SEED)
    if knobs_3 is not None:
        strength = tl.load(knobs_3 + 2).to(MATH)
    if UPDATE is not None:
        visiting = tl.where(valid, tl.load(knobs_3), 0.0) != 0
        if not STORE:
            visiting = valid & (row < 0)
        updating = visiting
        if GATE is not None:
            updating = visiting & GATE(attention, OPTIONS)
        momentum = tl.where(updating, tl.load(knobs_3 + 1).to(MATH), 1.0)
    pair_label = None
    pair_row = None
    share = 1.0
    if pair_labels_B is not None:
        pair_label = tl.load(pair_labels_B + row, mask=in_batch, other=-1)
        pair_row = tl.load(pair_index_B + row, mask=in_batch, other=-1)
        valid = valid & (pair_label >= 0) & (pair_label < C) & (pair_row >= 0)
        if WORLD > 1:
            valid = valid & (pair_row % WORLD == RANK)
            pair_row = pair_row // WORLD
        valid = valid & (pair_row < num_samples)
        share = tl.load(share_B + row, mask=in_batch, other=1.0).to(MATH)

    if C <= BLOCK:
        logits = load_logits(logits_BC, row, lane, in_batch, C, MATH)
        highest = tl.max(logits, axis=1, keep_dims=True)
        top = tl.min(tl.where(logits == highest, lane, C), axis=1, keep_dims=True)
        rest_power = tl.sum(tl.where(lane == top, 0.0, tl.exp(logits - highest)), axis=1, keep_dims=True)
    else:
        # Each lane keeps its maximum, where that is, and the sum of its other powers relative to it; the lanes meet
        # once, after the loop. The first maximum is finite, so that the difference of two is never inf - inf.
        lane_highest = tl.full([ROWS, BLOCK], -3.4028234e38, MATH)
        lane_power = tl.zeros([ROWS, BLOCK], MATH)
        lane_top = tl.zeros([ROWS, BLOCK], tl.int32)
        for start in range(0, C, BLOCK):
            logits = load_logits(logits_BC, row, start + lane, in_batch, C, MATH)
            higher = logits > lane_highest
            change = tl.exp(-tl.abs(logits - lane_highest))
            lane_power = tl.where(higher, (lane_power + 1.0) * change, lane_power + change)
            lane_top = tl.where(higher, start + lane, lane_top)
            lane_highest = tl.where(higher, logits, lane_highest)
        highest = tl.max(lane_highest, axis=1, keep_dims=True)
        top = tl.min(tl.where(lane_highest == highest, lane_top, C), axis=1, keep_dims=True)
        others = lane_power + tl.where(lane_top == top, 0.0, 1.0)
        rest_power = tl.sum(others * tl.exp(lane_highest - highest), axis=1, keep_dims=True)

    softmax = highest, top, rest_power
    total = 0.0
    if PREPARE is not None:
        lane_total = tl.full([ROWS, BLOCK], -3.4028234e38 if PREPARE_MAX else 0.0, MATH)
        for start in range(0, C, BLOCK):
            column = start + lane
            probs, log_probs, complement, is_top = load_softmax(
                logits_BC, row, column, in_batch, highest, top, rest_power, C, MATH
            )
            target = load_target(targets_NC, target_row, pair_row, share, column, valid, C, MATH)
            element = PREPARE(probs, log_probs, target, OPTIONS)
            if PREPARE_MAX:
                lane_total = tl.maximum(lane_total, tl.where(column < C, element, -3.4028234e38))
            else:
                lane_total += tl.where(column < C, element, 0.0)
        if PREPARE_MAX:
            total = tl.max(lane_total, axis=1, keep_dims=True)
        else:
            total = tl.sum(lane_total, axis=1, keep_dims=True)

    rows = row, in_batch, valid, target_row, share, label, total, momentum, attention
    anchor = None
    own_share = share
    if FINISH is not None:
        log_total = log1p(rest_power)
        label_log_prob = 0.0
        label_complement = 1.0
        label_top = 0.0  # the top class's share of the label, and what the other classes have of it
        label_rest = 1.0
        if labels_B is not None:
            label_log_prob = load_logits(logits_BC, row, label, valid, C, MATH) - highest - log_total
            rest = rest_power / (1.0 + rest_power)
            label_complement = tl.where(label == top, rest, 1.0 - tl.exp(label_log_prob))
            label_top = tl.where(label == top, 1.0, 0.0)
            label_rest = 1.0 - label_top
        if pair_labels_B is not None:
            if BLEND is not None:
                own = load_target(targets_NC, target_row, pair_row, share, label, valid, C, MATH)
                other = load_target(targets_NC, target_row, pair_row, share, pair_label, valid, C, MATH)
                own_share = BLEND(share, own, other, OPTIONS)
            pair_log_prob = load_logits(logits_BC, row, pair_label, valid, C, MATH) - highest - log_total
            pair_complement = tl.where(pair_label == top, rest, 1.0 - tl.exp(pair_log_prob))
            label_log_prob = own_share * label_log_prob + (1.0 - own_share) * pair_log_prob
            label_complement = own_share * label_complement + (1.0 - own_share) * pair_complement
            pair_top = tl.where(pair_label == top, 1.0 - own_share, 0.0)
            label_top = own_share * label_top + pair_top
            label_rest = own_share * label_rest + (1.0 - own_share - pair_top)

        sum0 = 0.0
        sum1 = 0.0
        slope_top = 0.0
        slope_rest = 0.0
        if TERMS is not None:
            top_probs, _rest, _always, _label, top_target, top_kept, _top0, _top1, slope_top = of_columns(
                logits_BC,
                targets_NC,
                rows,
                softmax,
                pair_row,
                pair_label,
                own_share,
                anchor,
                top,
                UPDATE,
                KEPT,
                TERMS,
                OPTIONS,
                C,
                MATH,
            )
            anchor = top_probs, top_target, top_kept
            lane0 = tl.zeros([ROWS, BLOCK], MATH)
            lane1 = tl.zeros([ROWS, BLOCK], MATH)
            lane_slope = tl.zeros([ROWS, BLOCK], MATH)
            for start in range(0, C, BLOCK):
                column = start + lane
                _probs, _complement, is_top, _shared, _target, _kept, term0, term1, slope = of_columns(
                    logits_BC,
                    targets_NC,
                    rows,
                    softmax,
                    pair_row,
                    pair_label,
                    own_share,
                    anchor,
                    column,
                    UPDATE,
                    KEPT,
                    TERMS,
                    OPTIONS,
                    C,
                    MATH,
                )
                lane0 += tl.where(column < C, term0, 0.0)
                lane1 += tl.where(column < C, term1, 0.0)
                lane_slope += tl.where((column < C) & ~is_top, slope, 0.0)
            if NUM_SUMS > 0:
                sum0 = tl.sum(lane0, axis=1, keep_dims=True)
            if NUM_SUMS > 1:
                sum1 = tl.sum(lane1, axis=1, keep_dims=True)
            slope_rest = tl.sum(lane_slope, axis=1, keep_dims=True)

        row_loss, dattention, label_scale, row_scale = FINISH(
            label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS
        )
        fall_top = label_scale * label_top + row_scale * slope_top
        fall_rest = label_scale * label_rest + row_scale * slope_rest

    # All stores come last: a load is not merged with an equal one across a store, and targets that are recomputed until
    # they are stored are not read by one thread after another has written them.
    for start in range(0, C, BLOCK):
        column = start + lane
        probs, complement, is_top, shared, target, _kept, _term0, _term1, slope = of_columns(
            logits_BC,
            targets_NC,
            rows,
            softmax,
            pair_row,
            pair_label,
            own_share,
            anchor,
            column,
            UPDATE,
            KEPT,
            TERMS,
            OPTIONS,
            C,
            MATH,
        )
        if UPDATE is not None:
            stored = target
            if visits_N is not None:
                stored = round_stochastically(target.to(tl.float32), key, column, targets_NC.dtype.element_ty)
            tl.store(targets_NC + target_row * C + column, stored, mask=updating & (column < C))
        if FINISH is not None:
            fall = label_scale * shared
            if TERMS is not None:
                fall += row_scale * slope
            dlogits = tl.where(is_top, probs * fall_rest - complement * fall, probs * (fall_rest + fall_top) - fall)
            # The interpreter makes no bfloat16 of float64.
            dlogits = tl.where(valid, dlogits * gradient_scale, fill).to(tl.float32)
            tl.store(gradient + row * C + column, dlogits, mask=in_batch & (column < C))
    if UPDATE is not None and visits_N is not None:
        tl.store(visits_N + target_row, visit + 1, mask=visiting)
    if FINISH is not None:
        if attention_B is not None:
            dattention = tl.where(valid, dattention * gradient_scale, fill).to(tl.float32)
            tl.store(gradient + num_rows.to(tl.int64) * C + row, dattention, mask=in_batch)
        row_loss = tl.where(valid, row_loss, fill).to(tl.float32)
        if partials_P is None:
            tl.store(loss + row, row_loss, mask=in_batch)
        else:
            partial = tl.sum(tl.sum(tl.where(in_batch, row_loss, 0.0), axis=1), axis=0)
            fold(partial, partials_P, arrivals, loss, loss_scale, 128)


def geometry(num_classes: int) -> tuple[int, int, int]:
    """Rows per program, columns per stretch and warps for rows of C columns.

    Up to 512 columns a program is one warp, which needs no barrier, with as many rows as give its threads some columns
    each: many small programs are spread over all multiprocessors. Rows of up to 4 columns have blocks of 4, which is 2
    elements per thread: 8 spill in fp64. Longer rows get two warps at up to 1024 columns, and so on.
    """
    block = 4 if num_classes <= 4 else min(MAX_BLOCK, max(16, triton.next_power_of_2(num_classes)))
    rows = {4: 16, 16: 4, 32: 4, 64: 2}.get(block, 1)
    return rows, block, 8 if num_classes > MAX_BLOCK else max(1, block // 512)


def constants(num_classes: int, chosen: tuple[int, int, int] | None = None) -> dict[str, int | bool]:
    """The kernel's constants and the compiler's options for a geometry, by default that of `geometry`.

    Registers are bounded by what there is, since ptxas may otherwise choose a bound and spill, to fit one more program.
    Rows that are looped over are bounded to 128, without spills, so that two programs fit.
    """
    rows, block, num_warps = chosen or geometry(num_classes)
    registers = min(255, 65536 // (32 * num_warps))
    if block < num_classes:
        registers = min(128, registers)
    return {"ROWS": rows, "BLOCK": block, "num_warps": num_warps, "maxnreg": registers, "enable_fp_fusion": True}


def launch(
    rule: Rule,
    logits: Tensor,
    labels: Tensor | None = None,
    index: Tensor | None = None,
    attention: Tensor | None = None,
    pair_labels: Tensor | None = None,
    pair_index: Tensor | None = None,
    share: Tensor | None = None,
    targets: Tensor | None = None,
    soft_labels: Tensor | None = None,
    columns: Tensor | None = None,
    knobs: Tensor | None = None,
    *,
    options: tuple[float, ...] = (),
    ignore_index: int | None = None,
    update: bool = True,
    reduction: str = "none",
    gradient_scale: float = 1.0,
    geometry: tuple[int, int, int] | None = None,
    visits: Tensor | None = None,
    rank: int = 0,
    world: int = 1,
    seed: int = 0,
) -> tuple[Tensor, ...]:
    """Run one rule over a batch on the current device; `targets` is updated in place.

    Args:
        rule: the loss.
        logits: [B, C] of float32, float16 or bfloat16.
        labels: [B] int64, each in [0, C).
        index: [B] int64, distinct rows of `targets`.
        attention: [B], NAL's logit before the sigmoid.
        pair_labels, pair_index: [B] int64, the other label and row of targets of each mixup pair.
        share: [B] or [], of the first label in the pair.
        targets: [N, C], contiguous; float32, or with `visits` float16 or bfloat16.
        soft_labels: in place of targets, a row [C] for each of the batch.
        columns: in place of targets, [C, C], of which each row of the batch reads that of its label.
        knobs: [3] float32: update flag, momentum, strength.
        options: the rule's OPTIONS.
        ignore_index: a label whose row has loss and gradient 0 and leaves its targets alone.
        update: False leaves the targets alone whatever the update flag.
        reduction: "none", or "mean" or "sum" over the batch, formed by the same launch.
        gradient_scale: what every entry of the gradient is multiplied by, in fp32, before it is rounded.
        geometry: rows per program, columns per stretch and warps, powers of two, in place of `geometry(C)`.
        visits: [N] int32, the updates so far of each row of a half-precision table; raised in place.
        rank, world: `targets` holds the samples with index % world == rank, in row index // world.
        seed: of the stochastic rounding.

    Returns:
        The loss, float32: [B], or [] of a mean or sum; of no rows the mean is NaN. And its gradient in one tensor:
        d loss / d logits [B, C] in the logits' dtype; with `attention` [B * C + B], d loss / d logits row by row and
        then d loss / d attention, in the dtype that both promote to. Nothing where the rule has no loss.
    """
    logits = logits.contiguous()
    num_rows, num_classes = logits.shape
    if soft_labels is not None:
        targets = soft_labels.contiguous()
    if columns is not None:
        targets, index = columns.contiguous(), labels
    given = constants(num_classes, geometry)
    num_programs = triton.cdiv(num_rows, given["ROWS"])
    loss = gradient = partials = arrivals = None
    if rule.finish is not None:
        if attention is None:
            gradient = torch.empty_like(logits)
        else:
            dtype = torch.promote_types(logits.dtype, attention.dtype)
            gradient = torch.empty(num_rows * num_classes + num_rows, dtype=dtype, device=logits.device)
        shape = (num_rows,) if reduction == "none" else ()
        loss = torch.empty(shape, dtype=torch.float32, device=logits.device)
        if reduction != "none" and num_rows:
            partials = torch.empty(num_programs, dtype=torch.float32, device=logits.device)
            arrivals = counter(logits.device)
        elif reduction != "none":
            loss.fill_(float("nan") if reduction == "mean" else 0.0)
    if num_rows:
        fused_rows[(num_programs,)](
            logits,
            *(None if x is None else x.contiguous() for x in (labels, index, attention, pair_labels, pair_index)),
            None if share is None else share.expand(num_rows).contiguous(),
            targets,
            visits,
            knobs,
            loss,
            gradient,
            partials,
            arrivals,
            num_rows,
            0 if targets is None else targets.shape[0],
            1.0 / num_rows if reduction == "mean" else 1.0,
            float(gradient_scale),
            C=num_classes,
            PREPARE=rule.prepare,
            PREPARE_MAX=rule.prepare_max,
            UPDATE=rule.update,
            KEPT=rule.kept,
            GATE=rule.gate,
            BLEND=rule.blend,
            TERMS=rule.terms,
            NUM_SUMS=rule.num_sums,
            FINISH=rule.finish,
            OPTIONS=options,
            IGNORE=ignore_index,
            STORE=update,
            RANK=rank,
            WORLD=world,
            SEED=seed,
            **given,
        )
    return () if loss is None or gradient is None else (loss, gradient)
