"""fastnoise trains image classifiers on wrong labels at the speed of the hardware.

Importing the package needs no GPU, no Triton and no DALI, and loads nothing heavy: the submodules
(`fastnoise.losses`, `fastnoise.noise`, `fastnoise.data`, ...) are imported where they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_SUBMODULES = (
    "config",
    "data",
    "engine",
    "errors",
    "losses",
    "methods",
    "models",
    "noise",
    "ops",
    "recipes",
    "selection",
)

if TYPE_CHECKING:
    from . import config, data, engine, errors, losses, methods, models, noise, ops, recipes, selection


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES])


__all__ = [
    "__version__",
    "config",
    "data",
    "engine",
    "errors",
    "losses",
    "methods",
    "models",
    "noise",
    "ops",
    "recipes",
    "selection",
]
