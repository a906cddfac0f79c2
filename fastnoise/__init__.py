"""fastnoise trains image classifiers on wrong labels at the speed of the hardware.

Importing the package needs no GPU, no Triton and no DALI, and loads nothing heavy. The submodules
(`fastnoise.losses`, `fastnoise.noise`, `fastnoise.data`, ...) are imported when they are first used.
`fastnoise.train` trains as the command line does, `fastnoise.load` takes a run's networks into use,
`fastnoise.ImageDataset.from_arrays` takes images and labels that are in memory, and `fastnoise.clean` finds wrong
labels among them. The page `extend.md` in this package shows how to write your own methods, networks, data sets, noise
and tasks.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import lazy

__version__ = "0.2.0.dev0"

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

_ATTRIBUTES = {"ImageDataset": "data", "clean": "cleaning.arrays", "load": "engine", "train": "engine"}
"""Public names -> the submodule that they are taken from when they are first used."""

if TYPE_CHECKING:
    from . import config, data, engine, errors, losses, methods, models, noise, ops, recipes, selection
    from .cleaning.arrays import clean
    from .data import ImageDataset
    from .engine import load, train


_attribute = lazy.attributes(__name__, _ATTRIBUTES)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    return _attribute(name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES, *_ATTRIBUTES])


__all__ = [
    "ImageDataset",
    "__version__",
    "clean",
    "config",
    "data",
    "engine",
    "errors",
    "load",
    "losses",
    "methods",
    "models",
    "noise",
    "ops",
    "recipes",
    "selection",
    "train",
]
