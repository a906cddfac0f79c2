"""The engine: steps, training loop, run folders."""

from .environment import describe_environment
from .folder import RunFolder
from .predictor import Predictor, load
from .signals import Interrupted
from .single import train
from .step import Step

__all__ = ["Interrupted", "Predictor", "RunFolder", "Step", "describe_environment", "load", "train"]
