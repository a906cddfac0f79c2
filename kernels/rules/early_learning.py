"""Rules of early-learning regularisation, on single samples and on mixup pairs."""

import triton
import triton.language as tl

from .base import Rule

# --- elr: L = -l_y + strength * log(1 - d), d = sum_k t_k clamp(p_k). Where the clamp is inactive dp_k/dl_k = p_k, so
#     g_k = y_k + strength * t_k p_k / (1 - d); where it is active the second term is 0, as in the authors' code.
#     The update renormalises the clamped probabilities, the inner product does not.
#     The gap 1 - d nears 1e-4 as p and t agree. With m the most probable class it is formed as
#     (1 - t_m) + t_m (1 - clamp(p_m)) - sum_{k != m} t_k clamp(p_k), of which no term is larger than it by much.


@triton.jit
def elr_clamp(probs):
    return tl.minimum(tl.maximum(probs, 1e-4), 1.0 - 1e-4)


@triton.jit
def elr_prepare(probs, log_probs, target, OPTIONS: tl.constexpr):
    return elr_clamp(probs)


@triton.jit
def elr_update(target, probs, total, label, momentum, OPTIONS: tl.constexpr):
    return momentum * target + ((1.0 - momentum) / total) * elr_clamp(probs)


@triton.jit
def elr_terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS: tl.constexpr):
    gap = tl.where(is_top, (1.0 - target) + target * elr_clamp(complement), -1.0 * target * tl.maximum(probs, 1e-4))
    unclamped = (probs >= 1e-4) & (~is_top | (complement >= 1e-4))  # only the top class can come near 1
    return gap, 0.0, tl.where(unclamped, target * probs, 0.0)


@triton.jit
def elr_finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr):
    # The gap is at least 1e-4: every clamped probability is at most 1 - 1e-4 and a target row sums to at most 1. The
    # bound is for what rounding leaves of a target row that sums to 1.
    gap = tl.maximum(sum0, 1e-5)
    return -label_log_prob + strength * tl.log(gap), 0.0, 1.0, strength / gap


# Off the top class, with c_k = clamp(p_k) and the updated target momentum * t_k + (1 - momentum) / total * c_k.


@triton.jit
def elr_linear(probs, target, OPTIONS: tl.constexpr):
    clamped = tl.maximum(probs, 1e-4)
    free = tl.where(probs >= 1e-4, probs, 0.0)
    return target * clamped, clamped * clamped, target * free, free * free


@triton.jit
def elr_unite(a, b, c, d, total, momentum, OPTIONS: tl.constexpr):
    own = (1.0 - momentum) / total
    return -1.0 * (momentum * a + own * b), 0.0, momentum * c + own * d


ELR = Rule(
    finish=elr_finish,
    terms=elr_terms,
    num_sums=1,
    prepare=elr_prepare,
    linear=elr_linear,
    unite=elr_unite,
    update=elr_update,
)


# --- elr_plus: elr on a mixup pair, L = -s l_a - (1 - s) l_b + strength * log(1 - <clamp(p), q>) with
#     q = s t_i + (1 - s) t_j, both mixed by the skeleton; the targets are only read. OPTIONS (weighted) is the authors'
#     code on CIFAR-100: the cross-entropy's target is y_mix * q, normalised, which is again a pair of labels, with the
#     first one's share s q_a / (s q_a + (1 - s) q_b). Where both are 0 that is undefined, and s stays.


@triton.jit
def elr_plus_blend(share, own, other, OPTIONS: tl.constexpr):
    if OPTIONS[0]:
        first = share * own
        both = first + (1.0 - share) * other
        share = tl.where(both > 0, first / tl.where(both > 0, both, 1.0), share)
    return share


ELR_PLUS = Rule(finish=elr_finish, terms=elr_terms, num_sums=1, blend=elr_plus_blend)


# --- ema: no loss, t <- momentum * t + (1 - momentum) * p alone: the targets of elr_plus, from the other network


@triton.jit
def ema_update(target, probs, total, label, momentum, OPTIONS: tl.constexpr):
    return momentum * target + (1.0 - momentum) * probs


EMA = Rule(update=ema_update)
