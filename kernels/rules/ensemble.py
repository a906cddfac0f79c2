"""Rule of self-ensemble label correction."""

import triton
import triton.language as tl

from .base import Rule
from .cross_entropies import soft_ce_finish, soft_ce_terms

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
