"""Rules of the losses that correct the label."""

import triton
import triton.language as tl

from .base import Rule

# --- bootstrap (Reed et al. 2015), soft: L = -sum_k (b y_k + (1 - b) p_k) l_k. With the target held fixed
#     g_j = b y_j + (1 - b) p_j; OPTIONS (literal) differentiates p_k too, d(p_k l_k)/dl_k = p_k (1 + l_k).
#     A class of probability 0 adds 0: log-probabilities are finite here. Keras clips p_k to [e, 1 - e], e = 1e-7, in
#     both of its places; a clipped class has g_k = 0, its label's share too.   OPTIONS: b, clipped, literal


@triton.jit
def unclipped(prob, complement):
    """Whether Keras leaves a probability as it is, so that it has a gradient."""
    return (prob >= 1e-7) & (complement >= 1e-7)


@triton.jit
def clipped_log(log_prob, complement):
    """The logarithm of a probability that Keras has clipped: log 1e-7 to log(1 - 1e-7)."""
    return tl.where(complement < 1e-7, -1.00000005e-7, tl.maximum(log_prob, -16.11809565095832))


@triton.jit
def clipped_prob(prob):
    """A probability that Keras has clipped."""
    return tl.minimum(tl.maximum(prob, 1e-7), 1.0 - 1e-7)


@triton.jit
def bootstrap_soft_terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS: tl.constexpr):
    slope = probs
    if OPTIONS[2]:
        slope = probs * (1.0 + log_probs)
    if OPTIONS[1]:
        return (
            clipped_prob(probs) * clipped_log(log_probs, complement),
            0.0,
            tl.where(unclipped(probs, complement), slope, 0.0),
        )
    else:
        return probs * log_probs, 0.0, slope


@triton.jit
def bootstrap_finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr):
    own: tl.constexpr = OPTIONS[0]
    if OPTIONS[1]:
        loss = -own * clipped_log(label_log_prob, label_complement) - (1.0 - own) * sum0
        kept = unclipped(tl.exp(label_log_prob), label_complement)
        return loss, 0.0, tl.where(kept, own, 0.0), 1.0 - own
    else:
        return -own * label_log_prob - (1.0 - own) * sum0, 0.0, own, 1.0 - own


BOOTSTRAP_SOFT = Rule(finish=bootstrap_finish, terms=bootstrap_soft_terms, num_sums=1)


# --- bootstrap, hard: the one-hot of the most probable class m in place of p, L = -b l_y - (1 - b) l_m, so
#     g_j = b y_j + (1 - b) [j = m]   OPTIONS: b, clipped


@triton.jit
def bootstrap_hard_terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS: tl.constexpr):
    if OPTIONS[1]:
        kept = is_top & unclipped(probs, complement)
        return tl.where(is_top, clipped_log(log_probs, complement), 0.0), 0.0, tl.where(kept, 1.0, 0.0)
    else:
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


# --- forward_clipped: forward with p_k clipped as Keras does. No p_k is below 1e-7, so that m does not underflow.


@triton.jit
def forward_clipped_terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS: tl.constexpr):
    share = clipped_prob(probs) * target
    return share, 0.0, tl.where(unclipped(probs, complement), share, 0.0)


@triton.jit
def forward_clipped_finish(
    label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr
):
    mixed = tl.maximum(sum0, 1e-30)
    return -tl.log(mixed), 0.0, 0.0, 1.0 / mixed


FORWARD_CLIPPED = Rule(finish=forward_clipped_finish, terms=forward_clipped_terms, num_sums=1)
