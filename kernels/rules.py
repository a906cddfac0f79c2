"""The loss rules: what differs between two fused losses, as Triton functions for the skeleton in `row.py`.

A rule works in log-probability terms. With l_j = log p_j the softmax Jacobian is dl_k/dz_j = [k = j] - p_j, so a
loss L with the falls g_j = -dL/dl_j has the logit gradient

    dL/dz_j = p_j * sum_k g_k - g_j.

Every loss here has g_j = label_scale * y_j + row_scale * slope_j, y being the one-hot of the label. A rule therefore
yields the element slope_j and the row's two scales, and never divides by a probability, which may have underflowed; the
skeleton sums the slopes and forms the gradient without cancellation. Its parts, all inlined into the kernel:

    prepare(probs, log_probs, target, OPTIONS)
        an element, whose sum (or maximum) over the row is the `total` that the parts below get
        of a row too long to be held in registers, `prepare_first` has it formed with the softmax, in one pass less: for
        elements of the target alone, or with a maximum, of log_probs plus something of the target, which then gets
        logits in place of log_probs
    linear(probs, target, OPTIONS) and unite(a, b, c, d, total, momentum, OPTIONS)
        optional, for long rows: four elements, target being the one stored, summed over the classes but the top one
        together with `prepare`; and sum0, sum1 and the sum of the slopes over those classes, from the four sums. Spares
        the pass that `terms` needs for its sums once `total` is known
    update(target, probs, total, label, momentum, OPTIONS)
        the target used from here on, and stored; with momentum 1, a row that was visited before stays as it is
    kept(target, probs, total, label, momentum, OPTIONS)
        the updated target without the share (1 - momentum) * probs, exactly; only where `terms` needs it (nal)
    gate(attention, OPTIONS)
        whether the row's target is updated at all
    blend(share, own, other, OPTIONS)
        for pairs of labels, the first one's share, given the targets at both labels
    terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS)
        three elements: two whose row sums are sum0 and sum1 (the first `num_sums` of them are summed), and slope_j
    terms(probs, log_probs, target, excess, top_probs, top_target, attention, OPTIONS), of a rule with `kept`
        the same; slope_j less the multiple of probs that makes it 0 for the top class, excess being
        kept - top_kept * probs / top_probs
    finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS)
        loss, d loss / d attention, label_scale, row_scale

Elements come as [rows, columns], row values as [rows, 1]. `terms` is called for the most probable class alone, with
elements of [rows, 1] and `is_top` true, and for all columns with `is_top` false, of which that class's is left out; the
parts before it are called for both alike. `complement` is 1 - p_j, `label_complement` 1 - p_y, both exact to the last
places also where p nears 1. `label` is y_j in float32, or its share where the row has a pair of labels. The most
probable class is the first of equals. `attention` is NAL's logit h before the sigmoid. OPTIONS is the
constant tuple of what the op's schema lists after its tensors. What a rule yields for a padding column is masked by the
skeleton.
"""

from typing import NamedTuple

import triton
import triton.language as tl


class Rule(NamedTuple):
    """The parts of one loss: no `terms` where p_y says it all, no `update` where targets are only read."""

    finish: triton.JITFunction | None = None
    terms: triton.JITFunction | None = None
    num_sums: int = 0
    prepare: triton.JITFunction | None = None
    prepare_max: bool = False
    update: triton.JITFunction | None = None
    kept: triton.JITFunction | None = None
    gate: triton.JITFunction | None = None
    blend: triton.JITFunction | None = None
    prepare_first: bool = False
    linear: triton.JITFunction | None = None
    unite: triton.JITFunction | None = None


@triton.jit
def exp(x):
    """e^x. In fp32 results below the least normal number are 0; tl.exp takes three more instructions to keep them."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        return tl.exp2(x * 1.4426950408889634)


@triton.jit
def reciprocal(x):
    """1 / x for x from 1e-30 to 1e30, to 1 ulp or so; a division takes twice the instructions, for all the others.

    One step of Newton's on the square of the approximate 1 / sqrt(x), which is off by some 2^-21.
    """
    if x.dtype == tl.float64:
        return 1.0 / x
    else:
        root = tl.rsqrt(x)
        guess = root * root
        return guess + guess * (1.0 - x * guess)


@triton.jit
def log_near_1(x):
    """log(1 + x) in fp32 for x in [-1/4, 1/2], within 1.4e-7 of itself."""
    square = x * x
    even = (-4.54559326e-2 * square - 1.32279143e-1) * square - 1.66416913e-1
    odd = (1.05529785e-1 * square + 1.44911006e-1) * square + 1.99887201e-1
    tail = odd * x + (even * square - 2.50002742e-1)
    return ((tail * x + 3.33335280e-1) * x - 0.5) * square + x


@triton.jit
def exponent(x):
    """The pattern of 2^k, less that of 1, where x is 2^k times a number in [3/4, 3/2); for normal fp32 x > 0."""
    return (x.to(tl.int32, bitcast=True) - 0x3F400000) & -0x00800000


@triton.jit
def log(x):
    """log x for normal x > 0, within 2e-7 of itself; finite at 0. tl.log takes 9 more instructions, for all the others.

    NaN stays NaN.
    """
    if x.dtype == tl.float64:
        return tl.log(x)
    else:
        shift = exponent(x)
        scale = (0x3F800000 - shift).to(tl.float32, bitcast=True)
        return shift.to(tl.float32) * 8.2629582e-8 + log_near_1(x * scale - 1.0)


@triton.jit
def log1p(x):
    """log(1 + x) for x >= 0, within 1.4e-7 of itself: with 2^k near 1 + x, k log 2 + log(1 + (x 2^-k + (2^-k - 1))).

    In fp64 the logarithm of the rounded 1 + x, corrected by how far that is from 1 + x (Kahan).
    """
    if x.dtype == tl.float64:
        above = 1.0 + x
        return tl.where(above == 1.0, x, tl.log(above) * (x / tl.where(above == 1.0, 1.0, above - 1.0)))
    else:
        shift = exponent(1.0 + x)
        scale = (0x3F800000 - shift).to(tl.float32, bitcast=True)
        return shift.to(tl.float32) * 8.2629582e-8 + log_near_1(x * scale + (scale - 1.0))


@triton.jit
def log_sigmoid(x):
    return tl.minimum(x, 0.0) - log1p(exp(-tl.abs(x)))


@triton.jit
def power(x, EXPONENT: tl.constexpr):
    """x^EXPONENT for x >= 0; 0^0 is 1. A negative exponent may overflow: x is kept above the least normal number."""
    if EXPONENT == 0:
        return x * 0.0 + 1.0
    elif EXPONENT == 1:
        return x
    else:
        return tl.where(x > 0, tl.exp(EXPONENT * tl.log(tl.maximum(x, 1.1754944e-38))), 0.0)


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
#     OPTIONS: a, c, b, floor: l_y below `floor` counts as `floor`, without gradient through the active loss


@triton.jit
def focal(log_prob, prob, complement, GAMMA: tl.constexpr):
    """f and f' of one class."""
    modulation = power(complement, GAMMA)
    ratio = tl.where(complement > 0, log_prob / tl.where(complement > 0, complement, 1.0), -1.0)
    return -modulation * log_prob, modulation * (1.0 - GAMMA * prob * ratio)


@triton.jit
def apl_finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr):
    a: tl.constexpr = OPTIONS[0]
    passive: tl.constexpr = OPTIONS[2]
    prob = tl.exp(label_log_prob)
    active, slope = focal(tl.maximum(label_log_prob, OPTIONS[3]), prob, label_complement, OPTIONS[1])
    slope = tl.where(label_log_prob >= OPTIONS[3], slope, 0.0)
    return a * active + passive * label_complement, 0.0, a * slope + passive * prob, 0.0


APL = Rule(finish=apl_finish)


@triton.jit
def apl_normalised_terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS: tl.constexpr):
    loss, slope = focal(log_probs, probs, complement, OPTIONS[1])
    return tl.where(label > 0, 0.0, loss), 0.0, tl.where(label > 0, 0.0, slope)


@triton.jit
def apl_normalised_finish(
    label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr
):
    a: tl.constexpr = OPTIONS[0]
    passive: tl.constexpr = OPTIONS[2]
    prob = tl.exp(label_log_prob)
    active, slope = focal(label_log_prob, prob, label_complement, OPTIONS[1])
    everything = active + sum0
    share = active / everything
    own = a * (slope / everything) * (sum0 / everything) + passive * prob
    return a * share + passive * label_complement, 0.0, own, -a * (share / everything)


APL_NORMALISED = Rule(finish=apl_normalised_finish, terms=apl_normalised_terms, num_sums=1)


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


# --- selc (Lu & He 2022; Lu et al. 2022, Eq. 4): soft_ce on t <- momentum * t + (1 - momentum) * p, from the one-hot of
#     the label. A row of the table that sums to 0 was never updated and stands for that one-hot, here as in nal.


@triton.jit
def target_sum(probs, log_probs, target, OPTIONS: tl.constexpr):
    return target


@triton.jit
def selc_update(target, probs, total, label, momentum, OPTIONS: tl.constexpr):
    target += tl.where(total == 0.0, label, 0.0)
    return momentum * target + (1.0 - momentum) * probs


SELC = Rule(
    finish=soft_ce_finish,
    terms=soft_ce_terms,
    num_sums=1,
    prepare=target_sum,
    prepare_first=True,
    update=selc_update,
)


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
