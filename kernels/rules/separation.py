"""Rule of sparse over-parameterization, which separates the noise of a label from what the network predicts."""

import triton
import triton.language as tl

from .base import Rule, log1p

# --- sop (Liu et al. 2022, as in the authors' code): a sample has u for its label y and v_k for every other class. Here
#     they share a row of the table: w_y = u, w_k = v_k, since the authors' v_y has no part in anything. With
#     W = min(w^2, 1), r_y = p_y + W_y, r_k = p_k - W_k, q = max(r, 1e-4), Z = sum_k q_k, P_y = q_y / Z, and m the most
#     probable class, whose one-hot gets no gradient:
#         L = -log max(P_y, 1e-4) + ([m = y] + W_y - 1)^2 + sum_{k != y} ([m = k] - W_k)^2.
#     The first term is log(1 + R / q_y) with R = sum_{k != y} q_k; no gradient reaches W_k from it. With a_k whether
#     r_k >= 1e-4, so that q_k has a gradient, and unless P_y is clamped:
#         dL/dp_k = a_k (1 / Z - y_k / q_y), so g_k = p_k a_k (y_k / q_y - 1 / Z).
#     A multiple of p may be added to g. With (1 - s) p / Z it is p_k (1 - s - a_k) / Z for k != y, and for y it is
#     p_y / q_y if s = 0, p_y R / (q_y Z) if s = 1 (with a_y = 0: p_y (1 - s) / Z). So that what the top class is in the
#     sum of g doesn't cancel, s = 1 if m is the label or clamped, else 0.
#     The step is that of gradient descent on L:
#         dL/du = 4 u (W_y - 1 + [m = y]) - 2 u a_y R / (q_y Z),    dL/dv_k = 4 v_k (W_k - [m = k]),
#     and 0 where w^2 > 1.   OPTIONS: the rates of u and of v

SOP_FLOOR = tl.constexpr(1e-4)
SOP_MOST = tl.constexpr(9.210340371976182)  # -log SOP_FLOOR


@triton.jit
def sop_label(prob, own, rest):
    """r, q and Z of the label, and whether P_y is clamped. `rest`: R."""
    raw = prob + tl.minimum(own * own, 1.0)
    bounded = tl.maximum(raw, SOP_FLOOR)
    everything = bounded + rest
    return raw, bounded, everything, bounded < everything * SOP_FLOOR


@triton.jit
def sop_terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS: tl.constexpr):
    noise = tl.minimum(target * target, 1.0)
    top = tl.where(is_top, 1.0, 0.0)
    raw = probs + tl.where(label > 0, noise, -noise)
    distance = tl.where(label > 0, (top - 1.0) + noise, top - noise)
    rest = tl.where(label > 0, 0.0, tl.maximum(raw, SOP_FLOOR))
    clamped = tl.where(raw < SOP_FLOOR, 1.0, 0.0)
    slope = tl.where(label > 0, 0.0, probs * (clamped - total))
    return rest, distance * distance, tl.where(is_top, tl.where(label > 0, 1.0, clamped), slope)


@triton.jit
def sop_finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr):
    prob = tl.exp(label_log_prob)
    raw, bounded, everything, clamped = sop_label(prob, attention, sum0)
    loss = tl.where(clamped, SOP_MOST, log1p(sum0 / bounded)) + sum1
    fall = tl.where(total > 0, prob * (sum0 / everything), prob) / bounded
    fall = tl.where(raw < SOP_FLOOR, (1.0 - total) * prob / everything, fall)
    return loss, 0.0, tl.where(clamped, 0.0, fall), tl.where(clamped, 0.0, 1.0 / everything)


@triton.jit
def sop_step(target, probs, label, is_top, sum0, sum1, OPTIONS: tl.constexpr):
    square = target * target
    top = tl.where(is_top, 1.0, 0.0)
    raw, bounded, everything, clamped = sop_label(probs, target, sum0)
    pull = tl.where(clamped | (raw < SOP_FLOOR), 0.0, 2.0 * sum0 / (bounded * everything))
    of_label = OPTIONS[0] * (4.0 * ((square - 1.0) + top) - pull)
    of_class = OPTIONS[1] * (4.0 * (square - top))
    slope = tl.where(label > 0, of_label, of_class)
    return target - tl.where(square <= 1.0, slope, 0.0) * target


SOP = Rule(finish=sop_finish, terms=sop_terms, num_sums=2, step=sop_step)
