"""What runs the fused losses: registration, checks, tables, and the device's kernels.

The families in `fastnoise.losses` make the ops; importing them registers the ops. `registry.OPS` has them by name.
"""

from .registry import FusedOp
from .selection import select

__all__ = ["FusedOp", "select"]
