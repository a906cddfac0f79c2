"""The skeleton of every fused loss: one kernel from logits to loss, logit gradient and updated targets.

A rule (`rules`) says what the loss computes: Triton functions passed as constexpr. The kernel makes up to four passes
over its rows (softmax, the sum that the target update needs, the loss's sums, the stores) in stretches of BLOCK
columns. It leaves out passes that the rule does not need. If BLOCK covers the row, each pass is a loop of one trip: the
compiler unrolls it and merges equal loads, so that the row is read once and stays in registers. Longer rows are read
again from the cache. The built-in rules read them at most three times, because they join two passes if their sums allow
it.

A long row can also be held (`HELD_COLUMNS`): its stretches are unrolled up to SPAN columns, and the logits and targets
of all of them stay in the registers of one program. Then each byte of logits, targets and gradient moves once. Triton
can't spread a row over a cluster instead. Version 3.6 refuses every sum over a row that several blocks share, and 3.8
refuses those of these kernels, whose rows have two dimensions.

All arithmetic is fp32, whatever the logits' dtype, and fp64 with up to four classes. The reason: a gradient lies in
C - 1 dimensions. The fewer these are, the more rows have a gradient so near 0 that its terms cancel and fp32 keeps no
digit of it. NAL's largest error in 10,000 random rows, relative to the row's norm, was in fp32 6.5e-5 at C = 2, 3.5e-5
at C = 3 (with RNAL), 7.5e-6 at C = 4 and 2.4e-6 at C = 10; that of weighted ELR+ was 1.2e-5 at C = 2 in 40 rows. In
fp64, which costs little on such short rows, they are 1.6e-7 and 2.0e-6.

Nothing is subtracted from 1. The sum of powers leaves out the largest power, which is 1, so that 1 - p of the most
probable class m is as exact as any other probability. The gradient p_j sum_k g_k - g_j (`rules`) of m is the sum of
p_m sum_{k != m} g_k and -(1 - p_m) g_m, which stays precise if p_m nears 1 and both are small. The values of m are
computed once per row and put into its column. For the other classes 1 - p is at least 1/2 and exact anyway. If a rule
has no terms, the gradient is g_y p_j, but -g_y (1 - p_y) for the label's class y.

A rule has either `update`, whose target the loss reads, or `step`: its loss reads the target that was stored, and the
last pass stores what follows from the loss's sums.

A row of `looks` notes what each forward pass shows of a sample's given label: how far its logit lies above that of the
most probable other class (the margin), its probability, and whether it is forgotten. What this needs of the row is in
registers anyway. The label is the one that the row of `looks` holds, whatever the loss is told.

A mean or sum over the batch needs no launch of its own: the program that finishes last adds up the sums of all
programs. If a logit of a row, or its attention logit, is NaN or +inf, its targets and their visits do not change, and
its loss and gradient become NaN. A logit of -inf is a masked class.

C is constexpr, and so are the row strides of the contiguous matrices. A run-time integer would be specialised only for
multiples of 16, and rows of 100 or 1000 would load 2 or 4 bytes at a time. Nothing is autotuned, because tuning runs a
kernel many times, and each run would update the targets.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .counters import counter
from .rounding import round_stochastically, row_key
from .rules import Rule, exp, log1p, reciprocal

MAX_BLOCK = 2048
"""The longest row, padded to a power of two, that stays in registers; also the columns per stretch of a longer row.
Rows of 4096 spill in NAL's rule: on sm_100 with a table in fp16 and 8 or 16 warps, and on sm_90 with 32 warps."""


HELD_COLUMNS = 22528
"""The longest row that can be held, 88 columns for each of 256 threads. With a row of targets they take 176 of the 255
registers that a thread has, and one program fills a multiprocessor. Without targets two programs fit."""

AUTO_HELD = False
"""Whether rows that can be held are held by default, but for rules with `kept`. No GPU has timed them yet (step
`held_rows` of the fourth programme of benchmarks.gpu)."""


@triton.jit
def load_logits(logits_BC, row, start, lane, mask, C: tl.constexpr, MATH: tl.constexpr):
    """Logits, raised to at least -1e30, which acts like -inf for padding and masked classes but avoids inf - inf. NaN
    stays NaN.

    Columns are given as the start of a stretch and the lanes in it, so that the last addition becomes part of the
    load's address.
    """
    inside = mask & (lane < C - start)
    logits = tl.load(logits_BC + (row * C + start) + lane, mask=inside, other=float("-inf")).to(MATH)
    return tl.maximum(logits, -1e30, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def load_target(targets_NC, held, target_row, pair_row, share, start, lane, valid, C: tl.constexpr, MATH: tl.constexpr):
    """Stored targets of some columns, or the mixture of the targets of a pair of rows. `held`: as in `load_softmax`."""
    target = 0.0
    if held is not None:
        target = held[1]
    elif targets_NC is not None:
        mask = valid & (lane < C - start)
        target = tl.load(targets_NC + (target_row * C + start) + lane, mask=mask, other=0.0).to(MATH)
        if pair_row is not None:
            other = tl.load(targets_NC + (pair_row * C + start) + lane, mask=mask, other=0.0).to(MATH)
            target = share * target + (1.0 - share) * other
    return target


@triton.jit
def load_softmax(logits_BC, held, row, start, lane, in_batch, softmax, C: tl.constexpr, MATH: tl.constexpr):
    """Powers of some columns relative to the highest, probabilities and their logarithms. `held` has the logits and the
    targets of these columns, or None.

    log p = (z - max) - log sum. The first difference is exact if it is small, unlike z - (max + log sum).
    """
    highest, inverse, log_total = softmax
    logits = load_logits(logits_BC, row, start, lane, in_batch, C, MATH) if held is None else held[0]
    shifted = logits - highest
    powers = exp(shifted)
    return powers, powers * inverse, shifted - log_total


@triton.jit
def renewed(softmax, top, knobs_3, INVERSE: tl.constexpr, HIGHEST: tl.constexpr):
    """The same numbers, which the compiler takes for others, because it does not know that a volatile load yields what
    the first one did.

    A pass over a held row then forms its values from what is held. If the compiler merged them with those of the pass
    before, it would keep several numbers and masks per column in registers, and spill.

    Args:
        INVERSE: probabilities are formed again.
        HIGHEST: powers too are formed again, from logits; otherwise they are what is held.
    """
    highest, inverse, log_total = softmax
    if knobs_3 is not None:
        zero = tl.load(knobs_3, volatile=True) - tl.load(knobs_3)
        top += zero.to(tl.int32)
        if INVERSE:
            inverse += zero
        if HIGHEST:
            highest += zero
    return (highest, inverse, log_total), top


@triton.jit
def at_labels(start, lane, label, pair_label, first, second):
    """`first` in the column of the label plus `second` in the column of the pair's label, else 0."""
    shared = tl.where(lane == label - start, first, 0.0)
    if pair_label is not None:
        shared += tl.where(lane == pair_label - start, second, 0.0)
    return shared


@triton.jit
def of_classes(
    probs,
    log_probs,
    complement,
    is_top,
    target,
    shared,
    row_values,
    anchor,
    UPDATE: tl.constexpr,
    KEPT: tl.constexpr,
    TERMS: tl.constexpr,
    OPTIONS: tl.constexpr,
):
    """For some classes: the updated target, the part that it keeps of the earlier target, and the rule's three terms.

    `anchor`, for rules with KEPT, has the probability and the target of the top class, and its kept part divided by its
    probability. It is None for the top class itself.
    """
    total, momentum, attention = row_values
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
        elif anchor is None:
            term0, term1, slope = TERMS(probs, log_probs, target, 0.0, probs, target, attention, OPTIONS)
        else:
            top_probs, top_target, top_ratio = anchor
            excess = kept - top_ratio * probs
            term0, term1, slope = TERMS(probs, log_probs, target, excess, top_probs, top_target, attention, OPTIONS)
    return target, kept, term0, term1, slope


@triton.jit
def add2(a0, a1, b0, b1):
    return a0 + b0, a1 + b1


@triton.jit
def add3(a0, a1, a2, b0, b1, b2):
    return a0 + b0, a1 + b1, a2 + b2


@triton.jit
def fold(partial, partials_P, arrivals, loss, loss_scale, LANES: tl.constexpr):
    """Write loss_scale times the sum of all programs' partial sums. The program that finishes last does it; no program
    waits for another.

    It always adds the partial sums in the order of the programs, so that equal batches give equal bits. One thread of
    each program stores the partial sum and then raises the counter; programs that count later see the stored sum. The
    last program sets the counter back to 0 for the next launch. Partial sums are read in fours, and zeros fill up the
    last four.
    """
    num_programs = tl.num_programs(0)
    tl.store(partials_P + tl.program_id(0), partial)
    if tl.program_id(0) == num_programs - 1:
        for number in tl.static_range(3):
            tl.store(partials_P + num_programs + number, 0.0)
    if tl.atomic_add(arrivals, 1, sem="acq_rel") == num_programs - 1:
        filled = (num_programs + 3) // 4 * 4
        lane = tl.arange(0, LANES)
        sums = tl.zeros([LANES], tl.float32)
        start = 0
        while start < num_programs:  # no range, for which Triton 3.6's interpreter asks NumPy 2.5 for an int in vain
            # Past the first-level cache, which other multiprocessors' stores don't reach.
            for stretch in tl.static_range(4):
                program = start + stretch * LANES + lane
                sums += tl.load(partials_P + program, mask=program < filled, other=0.0, cache_modifier=".cg")
            start += 4 * LANES
        tl.store(loss, tl.sum(sums, axis=0) * loss_scale)
        tl.store(arrivals, 0)


@triton.jit(do_not_specialize=["num_rows", "num_samples", "num_looks", "loss_scale", "gradient_scale"])
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
    looks_N8,
    look_index_B,
    loss,
    gradient,
    partials_P,
    arrivals,
    num_rows,
    num_samples,
    num_looks,
    loss_scale,
    gradient_scale,
    C: tl.constexpr,
    PREPARE: tl.constexpr,
    PREPARE_MAX: tl.constexpr,
    PREPARE_FIRST: tl.constexpr,
    LINEAR: tl.constexpr,
    UNITE: tl.constexpr,
    UPDATE: tl.constexpr,
    STEP: tl.constexpr,
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
    SPAN: tl.constexpr,
    LANES: tl.constexpr,
):
    """ROWS rows per program. Tensors that the rule does not need are None.

    `loss` is [B], or with `partials_P` the sum over all rows times loss_scale. `gradient` is [B, C]; with an attention
    logit the attention's gradient [B] follows. All of it is multiplied by gradient_scale before it is rounded.

    A label or index out of range makes that row invalid: nothing is read or written through it, and its loss and
    gradient become NaN, which reports it without a device sync. A row whose label is IGNORE has loss and gradient 0.
    """
    MATH: tl.constexpr = tl.float64 if C <= 4 else tl.float32
    HELD: tl.constexpr = C > BLOCK and C <= SPAN
    WRITES: tl.constexpr = UPDATE is not None or STEP is not None
    # What there is one of per row is loaded as [ROWS] (_R): as [ROWS, 1] a thread loads it once per column it holds.
    row_R = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row = row_R[:, None]
    lane = tl.arange(0, BLOCK)[None, :]
    in_batch_R = row_R < num_rows
    in_batch = in_batch_R[:, None]
    valid_R = in_batch_R
    ignored = None
    label = -1  # in no column
    if labels_B is not None:
        label_R = tl.load(labels_B + row_R, mask=in_batch_R, other=-1)
        valid_R = valid_R & (label_R >= 0) & (label_R < C)
        if IGNORE is not None:
            ignored = (label_R == IGNORE)[:, None]
            valid_R = valid_R & (label_R != IGNORE)
        label_R = label_R.to(tl.int32)
        label = label_R[:, None]
    target_row_R = row_R
    if index_B is not None:
        sample_R = tl.load(index_B + row_R, mask=in_batch_R, other=-1)
        target_row_R = sample_R
        valid_R = valid_R & (sample_R >= 0)
        if WORLD > 1:
            target_row_R = sample_R // WORLD
            valid_R = valid_R & (sample_R % WORLD == RANK)
        valid_R = valid_R & (target_row_R < num_samples)
        if visits_N is not None:
            visit_R = tl.load(visits_N + target_row_R, mask=valid_R, other=0)
            key = row_key(sample_R, visit_R, SEED)[:, None]
    visiting_R = valid_R
    pair_label = None
    pair_row = None
    pair_row_R = None
    share_R = 1.0
    share = 1.0
    if pair_labels_B is not None:
        pair_label_R = tl.load(pair_labels_B + row_R, mask=in_batch_R, other=-1)
        pair_row_R = tl.load(pair_index_B + row_R, mask=in_batch_R, other=-1)
        valid_R = valid_R & (pair_label_R >= 0) & (pair_label_R < C) & (pair_row_R >= 0)
        if WORLD > 1:
            valid_R = valid_R & (pair_row_R % WORLD == RANK)
            pair_row_R = pair_row_R // WORLD
        valid_R = valid_R & (pair_row_R < num_samples)
        pair_label_R = pair_label_R.to(tl.int32)
        pair_label = pair_label_R[:, None]
        pair_row = pair_row_R[:, None]
        share_R = tl.load(share_B + row_R, mask=in_batch_R, other=1.0).to(MATH)
        share = share_R[:, None]
    valid = valid_R[:, None]
    target_row = target_row_R[:, None]
    attention = 0.0
    if attention_B is not None:
        attention = tl.load(attention_B + row_R, mask=in_batch_R, other=0.0).to(MATH)[:, None]
    if STEP is not None:
        own_R = load_target(targets_NC, None, target_row_R, None, 1.0, 0, label_R, valid_R, C, MATH)
        attention = own_R[:, None]
    strength = 0.0
    if knobs_3 is not None:
        strength = tl.load(knobs_3 + 2).to(MATH)
    momentum = 1.0
    if WRITES:
        visiting = tl.where(visiting_R, tl.load(knobs_3), 0.0)[:, None] != 0
        if not STORE:
            visiting = valid & (row < 0)
        updating = visiting
        if GATE is not None:
            updating = visiting & GATE(attention, OPTIONS)
        if UPDATE is not None:
            momentum = tl.where(updating, tl.load(knobs_3 + 1).to(MATH), 1.0)

    given = -1  # the label in `looks`
    rival = 0.0  # the highest logit of the other classes
    if looks_N8 is not None:
        look_R = tl.load(look_index_B + row_R, mask=in_batch_R, other=-1)
        looked_R = in_batch_R & (look_R >= 0) & (look_R < num_looks)
        given_R = tl.load(looks_N8 + look_R * 8, mask=looked_R, other=-1.0).to(tl.int32)
        was_right_R = tl.load(looks_N8 + look_R * 8 + 1, mask=looked_R, other=0.0)
        looked_R = looked_R & (given_R >= 0) & (given_R < C)
        given = given_R[:, None]

    lane_total = tl.full([ROWS, BLOCK], -3.4028234e38 if PREPARE_MAX else 0.0, MATH)
    held = ()  # the logits and the targets of each stretch, if the row is held
    if C <= BLOCK:
        logits = load_logits(logits_BC, row, 0, lane, in_batch, C, MATH)
        highest = tl.max(logits, axis=1, keep_dims=True)
        top_R = tl.min(tl.where(logits == highest, lane, C), axis=1)
        top = top_R[:, None]
        rest_power = tl.sum(tl.where(lane == top, 0.0, exp(logits - highest)), axis=1, keep_dims=True)
        if looks_N8 is not None:
            rival = tl.max(tl.where(lane == given, -3.4028234e38, logits), axis=1, keep_dims=True)
    elif C <= SPAN:
        lane_highest = tl.full([ROWS, BLOCK], -3.4028234e38, MATH)
        lane_top = tl.full([ROWS, BLOCK], C, tl.int32)
        lane_rival = tl.full([ROWS, BLOCK], -3.4028234e38, MATH)
        lane_power = tl.zeros([ROWS, BLOCK], MATH)
        for part in tl.static_range(0, SPAN, BLOCK):
            logits = load_logits(logits_BC, row, part, lane, in_batch, C, MATH)
            target = load_target(targets_NC, None, target_row, pair_row, share, part, lane, valid, C, MATH)
            held = held + ((logits, target),)  # type: ignore[assignment]  # noqa: RUF005  Triton knows no star
            lane_highest = tl.maximum(lane_highest, logits)
            if looks_N8 is not None:
                lane_rival = tl.maximum(lane_rival, tl.where(lane == given - part, -3.4028234e38, logits))
        highest = tl.max(lane_highest, axis=1, keep_dims=True)
        for part in tl.static_range(0, SPAN, BLOCK):
            lane_top = tl.minimum(lane_top, tl.where(held[part // BLOCK][0] == highest, part + lane, C))
        top_R = tl.min(lane_top, axis=1)
        top = top_R[:, None]
        for part in tl.static_range(0, SPAN, BLOCK):
            lane_power += tl.where(lane == top - part, 0.0, exp(held[part // BLOCK][0] - highest))
        rest_power = tl.sum(lane_power, axis=1, keep_dims=True)
        if looks_N8 is not None:
            rival = tl.max(lane_rival, axis=1, keep_dims=True)
    else:
        # Each lane keeps its maximum, where that is, and the sum of its other powers relative to it; the lanes meet
        # once, after the loop. The first maximum is finite, so that the difference of two is never inf - inf.
        lane_highest = tl.full([ROWS, BLOCK], -3.4028234e38, MATH)
        lane_power = tl.zeros([ROWS, BLOCK], MATH)
        lane_top = tl.zeros([ROWS, BLOCK], tl.int32)
        lane_rival = tl.full([ROWS, BLOCK], -3.4028234e38, MATH)
        for start in range(0, C, BLOCK):
            column = start + lane
            logits = load_logits(logits_BC, row, start, lane, in_batch, C, MATH)
            if looks_N8 is not None:
                lane_rival = tl.maximum(lane_rival, tl.where(column == given, -3.4028234e38, logits))
            higher = logits > lane_highest
            change = exp(-tl.abs(logits - lane_highest))
            lane_power = tl.where(higher, (lane_power + 1.0) * change, lane_power + change)
            lane_top = tl.where(higher, column, lane_top)
            lane_highest = tl.where(higher, logits, lane_highest)
            if PREPARE_FIRST:
                target = load_target(targets_NC, None, target_row, pair_row, share, start, lane, valid, C, MATH)
                element = PREPARE(0.0, logits, target, OPTIONS)
                if PREPARE_MAX:
                    lane_total = tl.maximum(lane_total, tl.where(lane < C - start, element, -3.4028234e38))
                else:
                    lane_total += tl.where(lane < C - start, element, 0.0)
        highest = tl.max(lane_highest, axis=1, keep_dims=True)
        top_R = tl.min(tl.where(lane_highest == highest, lane_top, C), axis=1)
        top = top_R[:, None]
        others = lane_power + tl.where(lane_top == top, 0.0, 1.0)
        rest_power = tl.sum(others * exp(lane_highest - highest), axis=1, keep_dims=True)
        if looks_N8 is not None:
            rival = tl.max(lane_rival, axis=1, keep_dims=True)

    # A NaN among the logits is in the sum of powers, +inf is their maximum.
    finite = highest + rest_power < float("inf")
    known = finite
    if attention_B is not None:
        finite = finite & (attention < float("inf"))
    inverse = reciprocal(1.0 + rest_power)
    top_complement = rest_power * inverse
    log_total = log1p(rest_power)
    softmax = highest, inverse, log_total
    if looks_N8 is not None:
        given_logit = load_logits(logits_BC, row_R, 0, given_R, looked_R, C, MATH)[:, None]
        margin = (given_logit - rival).to(tl.float32)
        given_prob = tl.where(given == top, inverse, exp(given_logit - highest) * inverse).to(tl.float32)
    total = 0.0
    united: tl.constexpr = LINEAR is not None and C > BLOCK
    if PREPARE is not None:
        if C <= SPAN or not PREPARE_FIRST:
            lane_a = tl.zeros([ROWS, BLOCK], MATH)
            lane_b = tl.zeros([ROWS, BLOCK], MATH)
            lane_c = tl.zeros([ROWS, BLOCK], MATH)
            lane_d = tl.zeros([ROWS, BLOCK], MATH)
            if HELD:
                softmax, top = renewed(softmax, top, knobs_3, False, False)
            for stretch in range(0, C, SPAN):
                for part in tl.static_range(0, SPAN, BLOCK):
                    start = stretch + part
                    of_part = held[part // BLOCK] if HELD else None
                    _powers, probs, log_probs = load_softmax(
                        logits_BC, of_part, row, start, lane, in_batch, softmax, C, MATH
                    )
                    target = load_target(targets_NC, of_part, target_row, pair_row, share, start, lane, valid, C, MATH)
                    element = PREPARE(probs, log_probs, target, OPTIONS)
                    element = tl.where(lane < C - start, element, -3.4028234e38 if PREPARE_MAX else 0.0)
                    if C <= BLOCK:
                        lane_total = element
                    elif PREPARE_MAX:
                        lane_total = tl.maximum(lane_total, element)
                    else:
                        lane_total += element
                    if united:
                        a, b, c, d = LINEAR(probs, target, OPTIONS)
                        counted = (lane < C - start) & (lane != top - start)
                        lane_a += tl.where(counted, a, 0.0).to(MATH)
                        lane_b += tl.where(counted, b, 0.0).to(MATH)
                        lane_c += tl.where(counted, c, 0.0).to(MATH)
                        lane_d += tl.where(counted, d, 0.0).to(MATH)
        if PREPARE_MAX:
            total = tl.max(lane_total, axis=1, keep_dims=True)
            if PREPARE_FIRST and C > SPAN:  # of logits until now
                total = total - highest - log_total
        else:
            total = tl.sum(lane_total, axis=1, keep_dims=True)

    row_values = total, momentum, attention
    anchor = None
    own_share = share
    if FINISH is not None:
        label_log_prob = 0.0
        label_complement = 1.0
        label_top = 0.0  # the top class's share of the label, and what the other classes have of it
        label_rest = 1.0
        if labels_B is not None:
            label_logit = load_logits(logits_BC, row_R, 0, label_R, valid_R, C, MATH)[:, None]
            label_log_prob = label_logit - highest - log_total
            label_complement = tl.where(label == top, top_complement, 1.0 - exp(label_log_prob))
            label_top = tl.where(label == top, 1.0, 0.0)
            label_rest = 1.0 - label_top
        if pair_labels_B is not None:
            if BLEND is not None:
                own = load_target(targets_NC, None, target_row_R, pair_row_R, share_R, 0, label_R, valid_R, C, MATH)
                other = load_target(
                    targets_NC, None, target_row_R, pair_row_R, share_R, 0, pair_label_R, valid_R, C, MATH
                )
                own_share = BLEND(share, own[:, None], other[:, None], OPTIONS)
            pair_logit = load_logits(logits_BC, row_R, 0, pair_label_R, valid_R, C, MATH)[:, None]
            pair_log_prob = pair_logit - highest - log_total
            pair_complement = tl.where(pair_label == top, top_complement, 1.0 - exp(pair_log_prob))
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
            # The top class's terms are formed once per row: what the loops yield for its column is left out.
            top_target = 0.0
            if targets_NC is not None:
                top_target = load_target(
                    targets_NC, None, target_row_R, pair_row_R, share_R, 0, top_R, valid_R, C, MATH
                )
                top_target = top_target[:, None]
            top_target, top_kept, top0, top1, slope_top = of_classes(
                inverse,
                -log_total,
                top_complement,
                tl.full([ROWS, 1], True, tl.int1),
                top_target,
                at_labels(0, top, label, pair_label, own_share, 1.0 - own_share),
                row_values,
                anchor,
                UPDATE,
                KEPT,
                TERMS,
                OPTIONS,
            )
            anchor = inverse, top_target, top_kept * (1.0 + rest_power)
            if STEP is not None:
                total = slope_top
                slope_top = 0.0
                row_values = total, momentum, attention
            if united:
                sums_a, sums_b = tl.reduce((lane_a, lane_b), 1, add2, keep_dims=True)
                sums_c, sums_d = tl.reduce((lane_c, lane_d), 1, add2, keep_dims=True)
                sum0, sum1, slope_rest = UNITE(sums_a, sums_b, sums_c, sums_d, total, momentum, OPTIONS)
            else:
                lane0 = tl.zeros([ROWS, BLOCK], MATH)
                lane1 = tl.zeros([ROWS, BLOCK], MATH)
                lane_slope = tl.zeros([ROWS, BLOCK], MATH)
                if HELD and PREPARE is not None:
                    softmax, top = renewed(softmax, top, knobs_3, True, KEPT is not None)
                for stretch in range(0, C, SPAN):
                    for part in tl.static_range(0, SPAN, BLOCK):
                        start = stretch + part
                        of_part = held[part // BLOCK] if HELD else None
                        _powers, probs, log_probs = load_softmax(
                            logits_BC, of_part, row, start, lane, in_batch, softmax, C, MATH
                        )
                        target = load_target(
                            targets_NC, of_part, target_row, pair_row, share, start, lane, valid, C, MATH
                        )
                        _target, _kept, term0, term1, slope = of_classes(
                            probs,
                            log_probs,
                            1.0 - probs,
                            tl.full([ROWS, BLOCK], False, tl.int1),
                            target,
                            at_labels(start, lane, label, pair_label, own_share, 1.0 - own_share),
                            row_values,
                            anchor,
                            UPDATE,
                            KEPT,
                            TERMS,
                            OPTIONS,
                        )
                        counted = (lane < C - start) & (lane != top - start)
                        slope = tl.where(counted, slope, 0.0).to(MATH)
                        lane_slope = slope if C <= BLOCK else lane_slope + slope
                        if NUM_SUMS > 0:
                            term0 = tl.where(counted, term0, 0.0).to(MATH)
                            lane0 = term0 if C <= BLOCK else lane0 + term0
                        if NUM_SUMS > 1:
                            term1 = tl.where(counted, term1, 0.0).to(MATH)
                            lane1 = term1 if C <= BLOCK else lane1 + term1
                if NUM_SUMS == 0:
                    slope_rest = tl.sum(lane_slope, axis=1, keep_dims=True)
                elif NUM_SUMS == 1:
                    sum0, slope_rest = tl.reduce((lane0, lane_slope), 1, add2, keep_dims=True)
                else:
                    sum0, sum1, slope_rest = tl.reduce((lane0, lane1, lane_slope), 1, add3, keep_dims=True)
            sum0 += top0
            sum1 += top1

        row_loss, dattention, label_scale, row_scale = FINISH(
            label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS
        )
        scale = tl.where(valid & finite, gradient_scale, float("nan"))
        if TERMS is not None or pair_labels_B is not None:
            fall_top = label_scale * label_top + row_scale * slope_top
            fall_rest = label_scale * label_rest + row_scale * slope_rest
            fall_all = fall_top + fall_rest
            top_gradient = inverse * fall_rest - top_complement * fall_top
            first_fall = label_scale * own_share
            second_fall = label_scale - first_fall
        else:
            power_gradient = inverse * label_scale * scale
            label_gradient = -1.0 * label_complement * label_scale * scale

    if HELD:
        softmax, top = renewed(softmax, top, knobs_3, True, KEPT is not None)
    # All stores come last: a load is not merged with an equal one across a store, and targets that are recomputed until
    # they are stored are not read by one thread after another has written them.
    for stretch in range(0, C, SPAN):
        for part in tl.static_range(0, SPAN, BLOCK):
            start = stretch + part
            of_part = held[part // BLOCK] if HELD else None
            powers, probs, log_probs = load_softmax(logits_BC, of_part, row, start, lane, in_batch, softmax, C, MATH)
            target = load_target(targets_NC, of_part, target_row, pair_row, share, start, lane, valid, C, MATH)
            shared = at_labels(start, lane, label, pair_label, own_share, 1.0 - own_share)
            target, _kept, _term0, _term1, slope = of_classes(
                probs,
                log_probs,
                1.0 - probs,
                tl.full([ROWS, BLOCK], False, tl.int1),
                target,
                shared,
                row_values,
                anchor,
                UPDATE,
                KEPT,
                TERMS,
                OPTIONS,
            )
            if STEP is not None:
                target = STEP(target, probs, shared, lane == top - start, sum0, sum1, OPTIONS)
            if WRITES:
                stored = target
                if visits_N is not None:
                    stored = round_stochastically(target.to(tl.float32), key, start + lane, targets_NC.dtype.element_ty)
                tl.store(
                    targets_NC + (target_row * C + start) + lane, stored, mask=updating & finite & (lane < C - start)
                )
            if FINISH is not None:
                if TERMS is not None or pair_labels_B is not None:
                    label_fall = at_labels(start, lane, label, pair_label, first_fall, second_fall)
                    dlogits = probs * fall_all - (label_fall + row_scale * slope)
                    dlogits = tl.where(lane == top - start, top_gradient, dlogits) * scale
                else:
                    dlogits = tl.where(lane == label - start, label_gradient, powers * power_gradient)
                if IGNORE is not None:
                    dlogits = tl.where(ignored, 0.0, dlogits)
                # The interpreter makes no bfloat16 of float64.
                tl.store(
                    gradient + (row * C + start) + lane, dlogits.to(tl.float32), mask=in_batch & (lane < C - start)
                )
    if WRITES and visits_N is not None:
        visited = tl.where(visiting & finite, 1, 0)
        tl.store(visits_N + target_row_R, visit_R + 1, mask=tl.sum(visited, axis=1) > 0)
    if looks_N8 is not None:
        noting = looked_R[:, None] & known
        if IGNORE is not None:
            noting = noting & (ignored == 0)
        right = tl.where(margin > 0, 1.0, 0.0)
        forgotten = tl.where(was_right_R[:, None] > right, 1.0, 0.0)
        part = tl.arange(0, 8)[None, :]
        cell = looks_N8 + look_R[:, None] * 8 + part
        noted = tl.load(cell, mask=noting, other=0.0)
        added = tl.where((part == 2) | (part == 4), 1.0, tl.where(part == 3, forgotten, 0.0))
        added += tl.where(part == 5, margin, tl.where(part == 6, given_prob, 0.0))
        tl.store(cell, tl.where(part == 1, right, noted + added), mask=noting & (part > 0))
    if FINISH is not None:
        row_loss = tl.where(valid & finite, row_loss, float("nan"))
        if IGNORE is not None:
            row_loss = tl.where(ignored, 0.0, row_loss)
        if attention_B is not None:
            dattention *= scale
            if IGNORE is not None:
                dattention = tl.where(ignored, 0.0, dattention)
            dattention_R = tl.sum(dattention, axis=1).to(tl.float32)
            tl.store(gradient + num_rows.to(tl.int64) * C + row_R, dattention_R, mask=in_batch_R)
        row_loss_R = tl.sum(row_loss, axis=1).to(tl.float32)
        if partials_P is None:
            tl.store(loss + row_R, row_loss_R, mask=in_batch_R)
        else:
            partial = tl.sum(tl.where(in_batch_R, row_loss_R, 0.0), axis=0)
            fold(partial, partials_P, arrivals, loss, loss_scale, LANES)


def geometry(num_classes: int) -> tuple[int, int, int]:
    """Rows per program, columns per stretch and warps for rows of C columns.

    Up to 512 columns a program is one warp, which needs no barrier. It has so many rows that each thread gets some
    columns: many small programs spread over all multiprocessors. Rows of up to 4 columns have blocks of 4, which is 2
    elements per thread; 8 elements would spill in fp64. Rows of up to 1024 columns get two warps, and so on.
    """
    block = 4 if num_classes <= 4 else min(MAX_BLOCK, max(16, triton.next_power_of_2(num_classes)))
    rows = {4: 16, 16: 4, 32: 4, 64: 2}.get(block, 1)
    return rows, block, 8 if num_classes > MAX_BLOCK else max(1, block // 512)


def is_held(num_classes: int, hold: bool | None, rule: Rule | None) -> bool:
    """Whether a row is held: as `hold` says, or if that is None, as AUTO_HELD says. ValueError for rows that are too
    long."""
    if hold is None:
        hold = AUTO_HELD and rule is not None and rule.kept is None and num_classes <= HELD_COLUMNS
    if hold and num_classes > HELD_COLUMNS:
        raise ValueError(f"a row of {num_classes} columns can't be held: at most {HELD_COLUMNS} fit into registers")
    return hold and num_classes > MAX_BLOCK


def constants(
    num_classes: int, chosen: tuple[int, int, int] | None = None, rule: Rule | None = None, hold: bool | None = None
) -> dict[str, int | bool]:
    """The kernel's constants and the compiler's options for a geometry, by default that of `geometry`.

    In long rows threads get half as many columns if a rule needs many values per column: a rule with `kept` (RNAL
    spills on sm_100) or `step` (SOP does), and in loops a rule with pairs (ELR+ spills).

    If targets are updated, rows of more than 4096 columns are processed in stretches of 4096 by 16 warps. One program
    then fills a multiprocessor, and the passes after the first find their data still in the L2 cache. On an H100, 8192
    rows of 21,841 columns in bfloat16 take ELR 1.56 ms in this way, and 1.80 ms in stretches of 2048 by 8 warps. NAL
    would spill in this way on sm_100, and rules without a table gain nothing (SWCE takes 0.66 ms, and 0.46 ms in
    stretches of 2048).

    `hold` is as in `launch`. A held row has stretches of 1024 columns: in longer ones ELR and SWCE spill on sm_100.
    NAL's rule needs more than the 255 registers there are, and spills 8 to 16 bytes per thread on sm_90.

    The number of registers is bounded by those that there are; otherwise ptxas may choose a lower bound and spill, to
    fit one more program. For rows that are looped over the bound is 128, which spills nothing and lets two programs
    fit. So it is for rows that are held without targets.
    """
    held = is_held(num_classes, hold, rule) if chosen is None else bool(hold)
    rows, block, num_warps = chosen or geometry(num_classes)
    if chosen is None and rule is not None and held:
        block //= 2
    elif chosen is None and rule is not None:
        writes = rule.update is not None or rule.step is not None
        if num_classes > 2 * MAX_BLOCK and writes and rule.kept is None:
            block, num_warps = 2 * MAX_BLOCK, 16
        elif block < num_classes and (rule.kept is not None or rule.blend is not None):
            block //= 2
        elif (rule.kept is not None or rule.step is not None) and num_warps > 1:
            num_warps *= 2
    registers = min(184 if num_warps > 1 else 255, 65536 // (32 * num_warps))
    if held and rule is not None and rule.terms is not None:
        registers = min(255, 65536 // (32 * num_warps))
    elif block < num_classes:
        registers = min(128, registers)
    return {
        "ROWS": rows,
        "BLOCK": block,
        "SPAN": triton.cdiv(num_classes, block) * block if held else block,
        "num_warps": num_warps,
        "maxnreg": registers,
        "enable_fp_fusion": True,
    }


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
    looks: Tensor | None = None,
    look_index: Tensor | None = None,
    options: tuple[float, ...] = (),
    ignore_index: int | None = None,
    update: bool = True,
    reduction: str = "none",
    gradient_scale: float = 1.0,
    geometry: tuple[int, int, int] | None = None,
    hold: bool | None = None,
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
        pair_labels, pair_index: [B] int64, the other label and the other row of targets of each mixup pair.
        share: [B] or [], the share of the first label in the pair.
        targets: [N, C], contiguous; float32, or with `visits` float16 or bfloat16.
        soft_labels: [B, C], used in place of targets.
        columns: [C, C], used in place of targets: each row of the batch reads the row of its label.
        knobs: [3] float32: update flag, momentum, strength.
        looks: [N, 8] float32, contiguous: what was seen of each training sample's label (`ops.looks`), noted in place.
        look_index: [B] int64, distinct rows of `looks`; a row out of range notes nothing.
        options: the rule's OPTIONS.
        ignore_index: a label whose rows have loss and gradient 0, and whose targets do not change.
        update: False: no target changes, whatever the update flag.
        reduction: "none", or "mean" or "sum" over the batch, formed by the same launch.
        gradient_scale: a factor of every entry of the gradient, applied in fp32 before it is rounded.
        geometry: rows per program, columns per stretch and warps, powers of two, in place of `geometry(C)`.
        hold: whether a row of more than MAX_BLOCK and at most HELD_COLUMNS columns is held, and with `geometry` a row
            of more columns than a stretch. None: as AUTO_HELD says.
        visits: [N] int32, the number of updates of each row of a half-precision table, raised in place.
        rank, world: `targets` holds the samples with index % world == rank, in row index // world.
        seed: of the stochastic rounding.

    Returns:
        The loss, float32: [B], or [] for a mean or sum; the mean of no rows is NaN. And its gradient in one tensor:
        d loss / d logits [B, C] in the logits' dtype; with `attention` [B * C + B], d loss / d logits row by row and
        then d loss / d attention, in the dtype that both promote to. An empty tuple if the rule has no loss.
    """
    logits = logits.contiguous()
    num_rows, num_classes = logits.shape
    if soft_labels is not None:
        targets = soft_labels.contiguous()
    if columns is not None:
        targets, index = columns.contiguous(), labels
    given = constants(num_classes, geometry, rule, hold)
    num_programs = triton.cdiv(num_rows, given["ROWS"])
    loss = gradient = partials = arrivals = None
    if rule.finish is not None:
        if attention is None:
            gradient = logits.new_empty(num_rows, num_classes)  # of no rows too with the strides that the fake promises
        else:
            dtype = torch.promote_types(logits.dtype, attention.dtype)
            gradient = torch.empty(num_rows * num_classes + num_rows, dtype=dtype, device=logits.device)
        shape = (num_rows,) if reduction == "none" else ()
        loss = torch.empty(shape, dtype=torch.float32, device=logits.device)
        if reduction != "none" and num_rows:
            partials = torch.empty(num_programs + 3, dtype=torch.float32, device=logits.device)
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
            *(None if x is None else x.contiguous() for x in (looks, look_index)),
            loss,
            gradient,
            partials,
            arrivals,
            num_rows,
            0 if targets is None else targets.shape[0],
            0 if looks is None else looks.shape[0],
            1.0 / num_rows if reduction == "mean" else 1.0,
            float(gradient_scale),
            C=num_classes,
            PREPARE=rule.prepare,
            PREPARE_MAX=rule.prepare_max,
            PREPARE_FIRST=rule.prepare_first,
            LINEAR=rule.linear,
            UNITE=rule.unite,
            UPDATE=rule.update,
            STEP=rule.step,
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
            LANES=128 * given["num_warps"],
            **given,
        )
    return () if loss is None or gradient is None else (loss, gradient)
