"""Networks by name, with the heads that methods add.

Importing this package imports no torch: `MODELS` is a table of names, and the rest is loaded where it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .names import MODELS

if TYPE_CHECKING:
    from .build import create_model
    from .heads import Backbone, LogitsNetwork, Network, Outputs

_LAZY = {"create_model": "build", **dict.fromkeys(("Backbone", "LogitsNetwork", "Network", "Outputs"), "heads")}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["MODELS", "Backbone", "LogitsNetwork", "Network", "Outputs", "create_model"]
