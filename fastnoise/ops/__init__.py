"""What runs the fused losses: registration, checks, tables, and the device's kernels.

The ops themselves are made by the families in `fastnoise.losses`, whose import registers them; `registry.OPS` has them
by name.
"""

from .registry import FusedOp
from .selection import select

__all__ = ["FusedOp", "select"]
