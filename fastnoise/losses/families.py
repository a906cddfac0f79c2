"""The families of losses, a line each.

A family lists its classes and functions in its `__all__`: `fastnoise.losses` exports the classes, and
`fastnoise.losses.functional` the functions.
"""

# ruff: noqa: F403

from .attention import *
from .correction import *
from .cross_entropies import *
from .early_learning import *
from .ensemble import *
from .robust import *
from .separation import *
