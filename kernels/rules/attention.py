"""Rule of noise attention learning."""

import triton
import triton.language as tl

from .base import Rule, exp, log, log_sigmoid, reciprocal
from .ensemble import target_sum

# --- nal: L = -sum_k t_k log s_k - strength * log tau - reverse * sum_k s_k log t_k,
#     s_k = tau p_k + (1 - tau) t_k, tau = sigmoid(h). The last term is RNAL, off at reverse = 0.
#     With r_k = tau p_k / s_k: ds_k/dl_k = tau p_k = s_k r_k and ds_k/dh = tau (1 - tau) (p_k - t_k) = s_k (r_k - tau).
#     So with w_k = t_k + reverse * s_k log t_k:
#         g_k = w_k r_k    and    dL/dh = -sum_k w_k (r_k - tau) - strength * (1 - tau).
#     Where s_k nears underflow, e^lift s_k takes its place, with lift = max(h - 20, 0): e^lift (1 - tau) is then about
#     e^-20. The other part of it is exp(l_k + log tau + lift); where that passes e^60, lift is as much less, and what
#     t_k has in the sum is none of its digits. Elsewhere s_k itself is more exact, as a difference of logarithms has
#     their absolute error. Where the lifted sum still underflows, t_k and p_k are below 1e-20, and with them what class
#     k adds to loss and gradient. The authors' code keeps s_k above 1e-16.
#     In RNAL log t_k is at least log 1e-4, the authors' clamp, since a one-hot's log 0 would make the loss infinite.
#     The gradient p_j sum_k g_k - g_j is small where g is nearly a multiple of p, and then cancels: at a first visit
#     t_k = (1 - momentum) p_k but for the label, which leaves something like p_y, however small; and for small tau
#     g_k = tau p_k / (1 - tau) to first order, whatever the target. Since such a multiple may be taken off all g_k,
#     that of the top class m is, and what is left is formed without its two parts. From the definition of s,
#         t_k s_m - t_m s_k = tau (t_k p_m - t_m p_k), so that with g_k = t_k r_k
#         f_k = g_k - g_m p_k / p_m = r_k r_m (t_k - t_m p_k / p_m) = r_k r_m (d_k - d_m p_k / p_m),
#     where d_k, the part of the target that is `kept`, is the target without its (1 - momentum) p_k: for the one-hot
#     above momentum * y_k, exactly. RNAL's part of f_k is tau p_k log(t_k / t_m).
#     That is stable: with u_k = g_k / p_k the gradient is p_j (sum_k p_k u_k - u_j), as large as D, the mean of
#     |u_j - mean u| under p. Rounding f_k = p_k (u_k - u_m) costs some 2^-24 of the mean of |u_k - u_m|, at most
#     D (1 + 1 / p_m); rounding the terms of d_k - d_m p_k / p_m costs what a rounding of the stored target would.
#     OPTIONS[0] (the authors' code) clamps p and tau to [1e-12, 1 - 1e-12], targets to [1e-4, 1] and s to [1e-7, 1]; a
#     clamped value passes no gradient. In these terms: p_k >= 1e-12, |h| <= logit(1 - 1e-12), s_k >= 1e-7.
#     The upper bounds of p and s cannot act: in fp32 1 - 1e-12 is 1, and s_k mixes two numbers of at most 1.
#     OPTIONS: code, reverse, gate: only rows with tau > gate have their targets updated.

LOG_1E12 = tl.constexpr(27.631021115928547)
LOG_1E7 = tl.constexpr(16.11809565095832)


@triton.jit
def nal_kept(target, probs, total, label, momentum, OPTIONS: tl.constexpr):
    target += tl.where(total == 0.0, label, 0.0)
    if OPTIONS[0]:
        target = tl.maximum(momentum * tl.maximum(target, 1e-4), 1e-4 - (1.0 - momentum) * probs)
    else:
        target = momentum * target
    return target


@triton.jit
def nal_update(target, probs, total, label, momentum, OPTIONS: tl.constexpr):
    target = nal_kept(target, probs, total, label, momentum, OPTIONS) + (1.0 - momentum) * probs
    if OPTIONS[0]:
        target = tl.minimum(tl.maximum(target, 1e-4), 1.0)
    return target


@triton.jit
def nal_logit(attention, OPTIONS: tl.constexpr):
    if OPTIONS[0]:
        attention = tl.minimum(tl.maximum(attention, -LOG_1E12), LOG_1E12)
    return attention


@triton.jit
def nal_gate(attention, OPTIONS: tl.constexpr):
    return tl.sigmoid(nal_logit(attention, OPTIONS)) > OPTIONS[2]


@triton.jit
def nal_terms(probs, log_probs, target, excess, top_probs, top_target, attention, OPTIONS: tl.constexpr):
    code: tl.constexpr = OPTIONS[0]
    reverse: tl.constexpr = OPTIONS[1]
    attention = nal_logit(attention, OPTIONS)
    tau = tl.sigmoid(attention)
    rest = tl.sigmoid(-attention)
    top_mix = tau * top_probs + rest * top_target
    top_ratio = tl.where(top_mix > 0, tau * top_probs / tl.where(top_mix > 0, top_mix, 1.0), 1.0)
    if code:
        own = tau * tl.maximum(probs, 1e-12)
        mix = own + rest * target
        log_mix = log(mix)
        unclamped = mix >= 1e-7
        log_mix = tl.where(unclamped, log_mix, -LOG_1E7)
        plain_mix = tl.where(unclamped, mix, 1e-7)
    else:
        own = tau * probs
        plain_mix = own + rest * target
        log_own = log_probs + log_sigmoid(attention)
        most = tl.maximum(attention - 20.0, 0.0)
        lift = tl.minimum(most, 60.0 - log_own)
        large = plain_mix > 1e-30
        own = tl.where(large, own, exp(log_own + lift))
        mix = own + tl.where(large, rest, exp(log_sigmoid(-attention) + most)) * target
        mix = tl.maximum(mix, 1e-37, propagate_nan=tl.PropagateNan.ALL)
        log_mix = log(mix) - tl.where(large, 0.0, lift)
    ratio = own * reciprocal(mix)
    loss = target * log_mix
    weight = target
    slope = excess * ratio * top_ratio
    clamped_slope = -top_ratio * top_target / top_probs
    if reverse != 0:
        log_target = log(tl.maximum(target, 1e-4, propagate_nan=tl.PropagateNan.ALL))
        top_log_target = log(tl.maximum(top_target, 1e-4, propagate_nan=tl.PropagateNan.ALL))
        reversed_loss = reverse * plain_mix * log_target
        loss += reversed_loss
        weight += reversed_loss
        slope += (reverse * probs) * (tau * (log_target - top_log_target))  # in this order rows of 9000 don't spill
        clamped_slope -= reverse * tau * top_log_target
    if code:
        weight = tl.where(unclamped, weight, 0.0)
        slope = tl.where(unclamped & (probs >= 1e-12), slope, clamped_slope * probs)
    return loss, weight * (ratio - tau), slope


@triton.jit
def nal_finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr):
    logit = nal_logit(attention, OPTIONS)
    dattention = -sum1 - strength * tl.sigmoid(-logit)
    return -sum0 - strength * log_sigmoid(logit), tl.where(logit == attention, dattention, 0.0), 0.0, 1.0


NAL = Rule(
    finish=nal_finish,
    terms=nal_terms,
    num_sums=2,
    prepare=target_sum,
    prepare_first=True,
    update=nal_update,
    kept=nal_kept,
    gate=nal_gate,
)
