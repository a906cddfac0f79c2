"""The loss rules: what differs between two fused losses, as Triton functions for the skeleton in `row.py`.

A file per family, as in `fastnoise.losses`. An op finds the rule of its name in capitals here, whichever file has it.

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

import pkgutil
from importlib import import_module
from types import ModuleType
from typing import Any

from .base import Rule, exp, log, log1p, log_sigmoid, power, reciprocal

__all__ = ["Rule", "exp", "log", "log1p", "log_sigmoid", "power", "reciprocal"]


def of_families() -> dict[str, Any]:
    """What the files of this folder define, by name: the rules, and the functions that they are made of."""
    found: dict[str, Any] = {}
    for file in pkgutil.iter_modules(__path__):
        for name, value in vars(import_module(f"{__name__}.{file.name}")).items():
            if name.startswith("_") or isinstance(value, ModuleType):
                continue
            if found.setdefault(name, value) is not value:
                raise ImportError(f"kernels/rules: {file.name}.py and another file define {name}; rename one of them")
    return found


globals().update(of_families())
