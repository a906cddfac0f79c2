"""The engine: steps, training loop, run folders."""

from .environment import describe_environment
from .folder import RunFolder
from .step import Step
from .trainer import Interrupted, train

__all__ = ["Interrupted", "RunFolder", "Step", "describe_environment", "train"]
