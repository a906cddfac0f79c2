"""The engine: steps, training loop, run folders. What it exports is imported when it is first used."""

from typing import TYPE_CHECKING

from .. import lazy

if TYPE_CHECKING:
    from .environment import describe_environment
    from .folder import RunFolder
    from .predictor import Predictor, load
    from .signals import Interrupted
    from .single import train
    from .step import Step

__getattr__ = lazy.attributes(
    __name__,
    {
        **{"Interrupted": "signals", "Predictor": "predictor", "RunFolder": "folder", "Step": "step"},
        **{"describe_environment": "environment", "load": "predictor", "train": "single"},
    },
)

__all__ = ["Interrupted", "Predictor", "RunFolder", "Step", "describe_environment", "load", "train"]
