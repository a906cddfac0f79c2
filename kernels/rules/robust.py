"""Rules of the losses that bound what one wrong label can add."""

import triton
import triton.language as tl

from .base import Rule, power

# --- gce (Zhang & Sabuncu 2018, Sec. 3.2): L = (1 - p_y^q) / q, so g_y = p_y^q. Truncated (Sec. 3.3): where p_y <= k
#     the loss is the constant (1 - k^q) / q, without gradient; k = 0 truncates nothing.   OPTIONS: q, k


@triton.jit
def gce_finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr):
    q: tl.constexpr = OPTIONS[0]
    k: tl.constexpr = OPTIONS[1]
    log_prob = label_log_prob
    kept = 1.0
    if k > 0:
        prob = tl.exp(label_log_prob)
        kept = tl.where(prob > k, 1.0, 0.0)
        log_prob = tl.where(prob > k, label_log_prob, tl.log(tl.zeros_like(label_log_prob) + k))
    powered = tl.exp(q * log_prob)
    return (1.0 - powered) / q, 0.0, powered * kept, 0.0


GCE = Rule(finish=gce_finish)


# --- apl (Ma et al. 2020, Sec. 3.3): an active loss plus a passive one. All of its parts are
#         active   a * f_y,                 f_k = -(1 - p_k)^c l_k   focal loss; cross-entropy at c = 0
#         normalised (apl_normalised)       a * f_y / sum_k f_k      NFL; NCE at c = 0 (Sec. 3.1)
#         passive  b * (1 - p_y)            MAE: b = 2, or 1 reduced; RCE: b = -A (A = log of a one-hot's clamped 0)
#     With dp_k/dl_k = p_k:  -df_k/dl_k = (1 - p_k)^c - c (1 - p_k)^(c-1) p_k l_k =: f'_k  (>= 0),  and
#         active      g_y = a f'_y + b p_y
#         normalised  g_y = a f'_y (F - f_y) / F^2 + b p_y,   g_j = -a f_y f'_j / F^2 elsewhere,   F = sum_k f_k,
#                     with F - f_y summed over the other classes, since f_y may be nearly all of F
#     In p_k l_k (1 - p_k)^(c-1) for c < 1 the last factor grows without bound as p_k nears 1, but l_k nears -(1 - p_k):
#     the product is formed as (1 - p_k)^c * (l_k / (1 - p_k)), whose second factor tends to -1.
#     sce (Wang et al. 2019, Sec. 3.2) is cross-entropy + RCE; its authors clamp p_y from below in the former.
#     In Ma et al.'s code (1 - p_k)^c is held fixed, in the numerator and in F: f'_k = (1 - p_k)^c. With d = c, or 0 if
#     it is held fixed, f'_k = (1 - p_k)^c - d (1 - p_k)^(c-1) p_k l_k.
#     OPTIONS: a, c, b, floor, d: l_y below `floor` counts as `floor`, without gradient through the active loss.
#     apl_normalised has no floor: a, c, b, d


@triton.jit
def focal(log_prob, prob, complement, GAMMA: tl.constexpr, SLOPE_GAMMA: tl.constexpr):
    """f and f' of one class."""
    modulation = power(complement, GAMMA)
    ratio = tl.where(complement > 0, log_prob / tl.where(complement > 0, complement, 1.0), -1.0)
    return -modulation * log_prob, modulation * (1.0 - SLOPE_GAMMA * prob * ratio)


@triton.jit
def apl_finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr):
    a: tl.constexpr = OPTIONS[0]
    passive: tl.constexpr = OPTIONS[2]
    prob = tl.exp(label_log_prob)
    active, slope = focal(tl.maximum(label_log_prob, OPTIONS[3]), prob, label_complement, OPTIONS[1], OPTIONS[4])
    slope = tl.where(label_log_prob >= OPTIONS[3], slope, 0.0)
    return a * active + passive * label_complement, 0.0, a * slope + passive * prob, 0.0


APL = Rule(finish=apl_finish)


@triton.jit
def apl_normalised_terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS: tl.constexpr):
    loss, slope = focal(log_probs, probs, complement, OPTIONS[1], OPTIONS[3])
    return tl.where(label > 0, 0.0, loss), 0.0, tl.where(label > 0, 0.0, slope)


@triton.jit
def apl_normalised_finish(
    label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr
):
    a: tl.constexpr = OPTIONS[0]
    passive: tl.constexpr = OPTIONS[2]
    prob = tl.exp(label_log_prob)
    active, slope = focal(label_log_prob, prob, label_complement, OPTIONS[1], OPTIONS[3])
    everything = active + sum0
    share = active / everything
    own = a * (slope / everything) * (sum0 / everything) + passive * prob
    return a * share + passive * label_complement, 0.0, own, -a * (share / everything)


APL_NORMALISED = Rule(finish=apl_normalised_finish, terms=apl_normalised_terms, num_sums=1)
