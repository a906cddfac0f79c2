"""The loss rules: Triton functions that tell the skeleton in `row.py` what a fused loss computes.

There is a file per family, as in `fastnoise.losses`. An op finds its rule here by its own name in capitals.

A rule works in log-probability terms. With l_j = log p_j the softmax Jacobian is dl_k/dz_j = [k = j] - p_j, so a
loss L with the falls g_j = -dL/dl_j has the logit gradient

    dL/dz_j = p_j * sum_k g_k - g_j.

Every loss here has g_j = label_scale * y_j + row_scale * slope_j, where y is the one-hot of the label. So a rule
returns the element slope_j and the row's two scales. It never divides by a probability, which may have underflowed. The
skeleton sums the slopes and forms the gradient without cancellation. The parts of a rule, all inlined into the kernel,
are:

    prepare(probs, log_probs, target, OPTIONS)
        an element. Its sum (or maximum) over the row is the `total` that the parts below get.
        If a row is too long for the registers, `prepare_first` saves a pass: the skeleton then forms `total` together
        with the softmax. This is for elements that depend on the target alone, or for a maximum of log_probs plus a
        term of the target; that form gets logits in place of log_probs.
    linear(probs, target, OPTIONS) and unite(a, b, c, d, total, momentum, OPTIONS)
        optional, for long rows. `linear` returns four elements, given the stored target. They are summed over all
        classes but the top one, together with `prepare`. From the four sums `unite` returns sum0, sum1 and the sum of
        the slopes over those classes. This saves the pass that `terms` needs for its sums once `total` is known.
    update(target, probs, total, label, momentum, OPTIONS)
        the target that is used from here on and stored. With momentum 1 a row that was visited before does not change.
    step(target, probs, label, is_top, sum0, sum1, OPTIONS)
        in place of `update`, for a loss of the target as it was before: the target that is to be stored. `terms` and
        `finish` get the one that was stored, and as their `attention` that at the label. For the top class the third
        element of `terms` is not slope_j, which is 0, but the `total` for all others and for `finish` (sop).
    kept(target, probs, total, label, momentum, OPTIONS)
        the updated target without the share (1 - momentum) * probs, exactly; only if `terms` needs it (nal)
    gate(attention, OPTIONS)
        whether the row's target is updated at all
    blend(share, own, other, OPTIONS)
        for pairs of labels: the share of the first label, given the targets at both labels
    terms(probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS)
        three elements: two whose row sums are sum0 and sum1 (the first `num_sums` of them are summed), and slope_j
    terms(probs, log_probs, target, excess, top_probs, top_target, attention, OPTIONS), for a rule with `kept`
        the same, but slope_j less the multiple of probs that makes it 0 for the top class. excess is
        kept - top_kept * probs / top_probs.
    finish(label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS)
        loss, d loss / d attention, label_scale, row_scale

Elements are [rows, columns], row values [rows, 1]. `terms` is called once for the most probable class alone, with
elements [rows, 1] and `is_top` true, and once for all columns with `is_top` false; the column of the most probable
class is then left out. The parts before `terms` are called in the same way for both, but `step` is told by `is_top`
which column is that of the most probable class. `complement` is 1 - p_j and
`label_complement` is 1 - p_y; both are exact to the last places even if p nears 1. `label` is y_j in float32, or its
share if the row has a pair of labels. In a tie the first class is the most probable one. `attention` is NAL's logit h
before the sigmoid. OPTIONS is a constant tuple of the values that the op's schema lists after its tensors. The skeleton
masks what a rule returns for padding columns.
"""

import pkgutil
from importlib import import_module
from types import ModuleType
from typing import Any

from .base import Rule, exp, log, log1p, log_sigmoid, power, reciprocal

__all__ = ["Rule", "exp", "log", "log1p", "log_sigmoid", "power", "reciprocal"]


def of_families() -> dict[str, Any]:
    """The rules in the files of this folder and the functions that they are made of, by name."""
    found: dict[str, Any] = {}
    for file in pkgutil.iter_modules(__path__):
        for name, value in vars(import_module(f"{__name__}.{file.name}")).items():
            if name.startswith("_") or isinstance(value, ModuleType):
                continue
            if found.setdefault(name, value) is not value:
                raise ImportError(f"kernels/rules: {file.name}.py and another file define {name}; rename one of them")
    return found


globals().update(of_families())
