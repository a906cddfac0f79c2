"""The check of a loss that may be of the user's code."""

from typing import Any

from torch import Tensor

from ..errors import TrainingError
from ..methods import Method


def check_loss(loss: Any, method: Method) -> None:
    """TrainingError unless a method's loss, which may be of the user's code, is one that can be minimised."""
    if isinstance(loss, Tensor) and not loss.dim() and loss.requires_grad:
        return
    form = type(loss).__name__
    if isinstance(loss, Tensor):
        form = f"of shape {list(loss.shape)}" if loss.dim() else "a number that no weight has a part in"
    raise TrainingError(
        f"the loss of {type(method).__name__} is {form}; it must be a scalar tensor, computed from the network's "
        "outputs without detach()"
    )
