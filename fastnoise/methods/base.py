"""What a method may change in plain training."""

from typing import ClassVar

from torch import Tensor, nn

from ..config import MethodConfig
from ..models import Outputs


class Method:
    """One way of training on wrong labels: a loss, the heads it needs, and what happens between epochs.

    The trainer knows methods by this interface alone. A subclass sets the class attributes, builds
    `criterion` in `__init__`, and overrides the hooks it needs.

    Args:
        options: the method's options, already checked: those that it reads are set.
        num_samples: N, the size of the training set.
        num_classes: C.
    """

    name: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    """The fields of MethodConfig that the method reads; the others are refused on the command line."""
    attention: ClassVar[bool] = False
    """Whether the network gets NAL's attention branch."""

    criterion: nn.Module
    """The loss with its per-sample state; saved in checkpoints, moved to the device by the trainer."""

    def __init__(self, options: MethodConfig, num_samples: int, num_classes: int):
        raise NotImplementedError(f"{type(self).__name__} builds its criterion in __init__")

    def loss(self, outputs: Outputs, labels: Tensor, index: Tensor) -> Tensor:
        """Mean loss of a batch: a scalar, differentiable in the outputs. Runs inside the compiled step."""
        return self.criterion(outputs.logits, labels, index)

    def start_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 1, and again when a run resumes inside one."""

    def corrected(self, labels: Tensor) -> Tensor | None:
        """The class int64 [N] that the method now takes each training sample to be, on the device of `labels`.

        `labels` int64 [N] are the given ones. None for a method that corrects nothing.
        """
        return None
