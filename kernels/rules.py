"""The loss rules: what differs between two fused losses, as Triton functions for the skeleton in `row.py`.

A rule works in log-probability terms. With l_j = log p_j the softmax Jacobian is dl_k/dz_j = [k = j] - p_j, so a
loss L with the partial derivatives b_j = dL/dl_j has the logit gradient

    dL/dz_j = b_j - p_j * sum_k b_k.

A rule therefore yields b_j per element and the row's total sum_k b_k, and never divides by a probability, which may
have underflowed. Its parts, all inlined into the kernel:

    prepare(probs, target)
        an element, whose row sum is the `total` that update gets
    update(target, probs, total, is_label, momentum, VARIANT)
        the target used from here on; with momentum 1, a row that was visited before stays as it is
    sums(probs, log_probs, target, attention, VARIANT)
        three elements, of which the first `num_sums` are summed over the row
    finish(label_log_prob, sum0, sum1, sum2, attention, strength, VARIANT)
        loss, d loss / d attention, scale (for slope), sum_k b_k
    slope(probs, log_probs, target, is_label, attention, scale, VARIANT)
        b_j

Elements come as [rows, columns], row values (total, sums, label_log_prob, attention, scale) as [rows, 1]. What a rule
yields for a padding column is masked by the skeleton. `attention` is NAL's logit h before the sigmoid.
"""

from typing import NamedTuple

import triton
import triton.language as tl


class Rule(NamedTuple):
    """The parts of one loss: no `prepare` and `update` without targets, no `sums` where log p_y says it all."""

    finish: triton.JITFunction
    slope: triton.JITFunction
    sums: triton.JITFunction | None = None
    num_sums: int = 0
    prepare: triton.JITFunction | None = None
    update: triton.JITFunction | None = None


# --- ce: L = -l_y


@triton.jit
def label_slope(probs, log_probs, target, is_label, attention, scale, VARIANT: tl.constexpr):
    return tl.where(is_label, -scale, 0.0)


@triton.jit
def ce_finish(label_log_prob, sum0, sum1, sum2, attention, strength, VARIANT: tl.constexpr):
    return -label_log_prob, 0.0, 1.0, -1.0


CE = Rule(finish=ce_finish, slope=label_slope)


# --- swce: L = -w l_y with w = p_y held fixed, so b_y = -p_y; VARIANT (literal) differentiates w too:
#     d(-p_y l_y)/dl_y = -(1 + l_y) p_y


@triton.jit
def swce_finish(label_log_prob, sum0, sum1, sum2, attention, strength, VARIANT: tl.constexpr):
    weight = tl.exp(label_log_prob)
    scale = weight
    if VARIANT:
        scale = (1.0 + label_log_prob) * weight
    return -weight * label_log_prob, 0.0, scale, -scale


SWCE = Rule(finish=swce_finish, slope=label_slope)


# --- elr: L = -l_y + strength * log(1 - d), d = sum_k t_k clamp(p_k). Where the clamp is inactive dp_k/dl_k = p_k, so
#     b_k = -[k = y] - strength * t_k p_k / (1 - d); where it is active the second term is 0, as in the authors' code.
#     The update renormalises the clamped probabilities, the inner product does not.


@triton.jit
def elr_clamp(probs):
    return tl.minimum(tl.maximum(probs, 1e-4), 1.0 - 1e-4)


@triton.jit
def elr_prepare(probs, target):
    return elr_clamp(probs)


@triton.jit
def elr_update(target, probs, total, is_label, momentum, VARIANT: tl.constexpr):
    return momentum * target + ((1.0 - momentum) / total) * elr_clamp(probs)


@triton.jit
def elr_active(probs, target):
    """t_k p_k where the clamp passes gradient, else 0."""
    return tl.where(elr_clamp(probs) == probs, target * probs, 0.0)


@triton.jit
def elr_sums(probs, log_probs, target, attention, VARIANT: tl.constexpr):
    return target * elr_clamp(probs), elr_active(probs, target), 0.0


@triton.jit
def elr_finish(label_log_prob, sum0, sum1, sum2, attention, strength, VARIANT: tl.constexpr):
    gap = 1.0 - sum0  # at least 1e-4: every clamped probability is at most 1 - 1e-4 and a target row sums to at most 1
    scale = strength / gap
    return -label_log_prob + strength * tl.log(gap), 0.0, scale, -1.0 - scale * sum1


@triton.jit
def elr_slope(probs, log_probs, target, is_label, attention, scale, VARIANT: tl.constexpr):
    return -scale * elr_active(probs, target) - tl.where(is_label, 1.0, 0.0)


ELR = Rule(finish=elr_finish, slope=elr_slope, sums=elr_sums, num_sums=2, prepare=elr_prepare, update=elr_update)


# --- nal: L = -sum_k t_k log s_k - strength * log tau, s_k = tau p_k + (1 - tau) t_k, tau = sigmoid(h).
#     With r_k = tau p_k / s_k: ds_k/dl_k = tau p_k, so b_k = -t_k r_k. For h: dtau/dh = tau (1 - tau) and
#     tau (1 - tau) (p_k - t_k) / s_k = (1 - tau) r_k - tau (1 - r_k) = r_k - tau, so
#     dL/dh = -sum_k t_k (r_k - tau) - strength * (1 - tau).
#     Neither tau p_k nor (1 - tau) t_k is formed, as both may underflow: with their logarithms a_k and c_k,
#     log s_k = max(a_k, c_k) + log(1 + exp(-|a_k - c_k|)) and r_k = sigmoid(a_k - c_k).
#     VARIANT (the authors' code) clamps p and tau to [1e-12, 1 - 1e-12], targets to [1e-4, 1] and s to [1e-7, 1]; a
#     clamped value passes no gradient. In these terms: l_k >= log 1e-12, |h| <= logit(1 - 1e-12), log s_k >= log 1e-7.
#     The upper bounds of p and s cannot act: in fp32 1 - 1e-12 is 1, and s_k mixes two numbers of at most 1.
#     A row of the table that sums to 0 was never updated and stands for the one-hot of the given label.

LOG_1E12 = tl.constexpr(27.631021115928547)
LOG_1E7 = tl.constexpr(16.11809565095832)


@triton.jit
def log_sigmoid(x):
    return tl.minimum(x, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def nal_prepare(probs, target):
    return target


@triton.jit
def nal_update(target, probs, total, is_label, momentum, VARIANT: tl.constexpr):
    target += tl.where(is_label & (total == 0.0), 1.0, 0.0)
    if VARIANT:
        target = tl.maximum(target, 1e-4)
    target = momentum * target + (1.0 - momentum) * probs
    if VARIANT:
        target = tl.minimum(tl.maximum(target, 1e-4), 1.0)
    return target


@triton.jit
def nal_logit(attention, VARIANT: tl.constexpr):
    if VARIANT:
        attention = tl.minimum(tl.maximum(attention, -LOG_1E12), LOG_1E12)
    return attention


@triton.jit
def nal_parts(log_probs, target, attention, VARIANT: tl.constexpr):
    """log s_k, t_k where s_k passes gradient (else 0), t_k r_k where p_k does too (else 0), and r_k."""
    floor = -LOG_1E12 if VARIANT else -1e30  # finite, so that a class whose logit is -inf gives no inf - inf
    attention = nal_logit(attention, VARIANT)
    own = log_sigmoid(attention) + tl.maximum(log_probs, floor)
    kept = log_sigmoid(-attention) + tl.log(target)
    difference = own - kept
    decay = tl.exp(-tl.abs(difference))
    ratio = tl.where(difference >= 0, 1.0, decay) / (1.0 + decay)
    log_mix = tl.maximum(own, kept) + tl.log(1.0 + decay)
    live = target
    live_probs = target * ratio
    if VARIANT:
        unclamped = log_mix >= -LOG_1E7
        live = tl.where(unclamped, live, 0.0)
        live_probs = tl.where(unclamped & (log_probs >= floor), live_probs, 0.0)
        log_mix = tl.maximum(log_mix, -LOG_1E7)
    return log_mix, live, live_probs, ratio


@triton.jit
def nal_sums(probs, log_probs, target, attention, VARIANT: tl.constexpr):
    log_mix, live, live_probs, ratio = nal_parts(log_probs, target, attention, VARIANT)
    return target * log_mix, live_probs, live * (ratio - tl.sigmoid(nal_logit(attention, VARIANT)))


@triton.jit
def nal_finish(label_log_prob, sum0, sum1, sum2, attention, strength, VARIANT: tl.constexpr):
    logit = nal_logit(attention, VARIANT)
    dattention = -sum2 - strength * tl.sigmoid(-logit)
    return -sum0 - strength * log_sigmoid(logit), tl.where(logit == attention, dattention, 0.0), 1.0, -sum1


@triton.jit
def nal_slope(probs, log_probs, target, is_label, attention, scale, VARIANT: tl.constexpr):
    _, _, live_probs, _ = nal_parts(log_probs, target, attention, VARIANT)
    return -live_probs


NAL = Rule(finish=nal_finish, slope=nal_slope, sums=nal_sums, num_sums=3, prepare=nal_prepare, update=nal_update)
