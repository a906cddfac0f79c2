"""Rules of the cross-entropies: on hard, smoothed and soft labels, and weighted by p_y."""

import triton
import triton.language as tl

from .base import Rule

# --- ce: L = -l_y, so g_y = 1


@triton.jit
def ce_finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr):
    return -label_log_prob, 0.0, 1.0, 0.0


CE = Rule(finish=ce_finish)


# --- label_smoothing (Szegedy et al. 2016, Sec. 7): cross-entropy on the target (1 - s) y + s / C,
#     L = -(1 - s) l_y - s * mean_k l_k, so g_j = (1 - s) y_j + s / C.   OPTIONS: s


@triton.jit
def label_smoothing_terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS: tl.constexpr):
    return log_probs, 1.0, 1.0


@triton.jit
def label_smoothing_finish(
    label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr
):
    smoothing: tl.constexpr = OPTIONS[0]
    share = smoothing / sum1  # sum1 counts the classes
    return -(1.0 - smoothing) * label_log_prob - share * sum0, 0.0, 1.0 - smoothing, share


LABEL_SMOOTHING = Rule(finish=label_smoothing_finish, terms=label_smoothing_terms, num_sums=2)


# --- soft_ce: L = -sum_k t_k l_k on a row t of soft labels, so g_j = t_j. The terms are also those of selc.


@triton.jit
def soft_ce_terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS: tl.constexpr):
    return target * log_probs, 0.0, target


@triton.jit
def soft_ce_finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr):
    return -sum0, 0.0, 0.0, 1.0


SOFT_CE = Rule(finish=soft_ce_finish, terms=soft_ce_terms, num_sums=1)


# --- swce: L = -w l_y with w = p_y held fixed, so g_y = p_y; OPTIONS (literal) differentiates w too:
#     d(p_y l_y)/dl_y = (1 + l_y) p_y


@triton.jit
def swce_finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr):
    weight = tl.exp(label_log_prob)
    scale = weight
    if OPTIONS[0]:
        scale = (1.0 + label_log_prob) * weight
    return -weight * label_log_prob, 0.0, scale, 0.0


SWCE = Rule(finish=swce_finish)
