"""The fused losses as ops: per-sample loss, its gradient and the target update in one call.

`fastnoise.losses` wraps them as modules that own the target table and reduce over the batch.
"""

from .registry import FusedOp, backends
from .selection import select

ce = FusedOp("ce", "logits labels")
label_smoothing = FusedOp("label_smoothing", "logits labels", "float smoothing")
soft_ce = FusedOp("soft_ce", "logits soft_labels")
swce = FusedOp("swce", "logits labels", "bool literal")
gce = FusedOp("gce", "logits labels", "float q, float k")
apl = FusedOp("apl", "logits labels", "float active, float gamma, float passive, float floor")
apl_normalised = FusedOp("apl_normalised", "logits labels", "float active, float gamma, float passive")
bootstrap_soft = FusedOp("bootstrap_soft", "logits labels", "float own, bool literal")
bootstrap_hard = FusedOp("bootstrap_hard", "logits labels", "float own")
forward = FusedOp("forward", "logits labels columns")
elr = FusedOp("elr", "logits labels index targets! knobs")
elr_plus = FusedOp(
    "elr_plus",
    "logits labels pair_labels index pair_index share targets knobs",
    "bool weighted",
)
ema = FusedOp("ema", "logits index targets! knobs", loss=False)
selc = FusedOp("selc", "logits labels index targets! knobs")
nal = FusedOp("nal", "logits attention labels index targets! knobs", "bool code, float reverse, float gate")

__all__ = [
    "apl",
    "apl_normalised",
    "backends",
    "bootstrap_hard",
    "bootstrap_soft",
    "ce",
    "elr",
    "elr_plus",
    "ema",
    "forward",
    "gce",
    "label_smoothing",
    "nal",
    "selc",
    "select",
    "soft_ce",
    "swce",
]
