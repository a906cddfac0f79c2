"""Networks by name, with the heads that methods add.

Importing this package imports no torch: `MODELS` is a table of names, and the rest is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from .. import lazy
from .names import MODELS

if TYPE_CHECKING:
    from .build import create_model
    from .heads import Backbone, LogitsNetwork, Network, Outputs

__getattr__ = lazy.attributes(
    __name__,
    {"create_model": "build", **dict.fromkeys(("Backbone", "LogitsNetwork", "Network", "Outputs"), "heads")},
)


__all__ = ["MODELS", "Backbone", "LogitsNetwork", "Network", "Outputs", "create_model"]
