"""Rules of the losses that correct the label."""

import triton
import triton.language as tl

from .base import Rule

# --- bootstrap (Reed et al. 2015), soft: L = -sum_k (b y_k + (1 - b) p_k) l_k. With the target held fixed
#     g_j = b y_j + (1 - b) p_j; OPTIONS (literal) differentiates p_k too, d(p_k l_k)/dl_k = p_k (1 + l_k).
#     OPTIONS: b, literal. A class of probability 0 adds 0: log-probabilities are finite here.


@triton.jit
def bootstrap_soft_terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS: tl.constexpr):
    slope = probs
    if OPTIONS[1]:
        slope = probs * (1.0 + log_probs)
    return probs * log_probs, 0.0, slope


@triton.jit
def bootstrap_finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr):
    own: tl.constexpr = OPTIONS[0]
    return -own * label_log_prob - (1.0 - own) * sum0, 0.0, own, 1.0 - own


BOOTSTRAP_SOFT = Rule(finish=bootstrap_finish, terms=bootstrap_soft_terms, num_sums=1)


# --- bootstrap, hard: the one-hot of the most probable class m in place of p, L = -b l_y - (1 - b) l_m, so
#     g_j = b y_j + (1 - b) [j = m]


@triton.jit
def bootstrap_hard_terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS: tl.constexpr):
    return tl.where(is_top, log_probs, 0.0), 0.0, tl.where(is_top, 1.0, 0.0)


BOOTSTRAP_HARD = Rule(finish=bootstrap_finish, terms=bootstrap_hard_terms, num_sums=1)


# --- forward (Patrini et al. 2017, Theorem 2): L = -log m, m = sum_k T_ky p_k, with column y of T as the row's target.
#     dm/dl_k = T_ky p_k, so g_j = T_jy p_j / m. Where T_ky = 0 for every class that p favours, m underflows; so with
#     a_k = log T_ky + l_k and M = max_k a_k: log m = M + log S, S = sum_k exp(a_k - M), and g_j = exp(a_j - M) / S.


@triton.jit
def forward_log(log_probs, target):
    return log_probs + tl.where(target > 0, tl.log(tl.where(target > 0, target, 1.0)), -1e30)


@triton.jit
def forward_prepare(probs, log_probs, target, OPTIONS: tl.constexpr):
    return forward_log(log_probs, target)


@triton.jit
def forward_terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS: tl.constexpr):
    share = tl.exp(forward_log(log_probs, target) - total)
    return share, 0.0, share


@triton.jit
def forward_finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr):
    return -total - tl.log(sum0), 0.0, 0.0, 1.0 / sum0


FORWARD = Rule(
    finish=forward_finish,
    terms=forward_terms,
    num_sums=1,
    prepare=forward_prepare,
    prepare_max=True,
    prepare_first=True,
)
