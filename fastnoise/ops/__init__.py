"""The fused losses as ops: per-sample loss, its gradient and the target update in one call.

`fastnoise.losses` wraps them as modules that own the target table and reduce over the batch.
"""

from . import cpu
from .registry import FusedOp, backends

ce = FusedOp("ce", cpu.ce)
elr = FusedOp("elr", cpu.elr, targets=True)
nal = FusedOp("nal", cpu.nal, attention=True, targets=True, variant="code")
swce = FusedOp("swce", cpu.swce, variant="literal")

__all__ = ["backends", "ce", "elr", "nal", "swce"]
