"""What looks on while a run is evaluated."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from ..models import Outputs


class Witness(nn.Module):
    """Sees the outputs for the test images at the end of each epoch.

    It keeps what it needs in buffers, which are saved with the run and loaded when it resumes.
    """

    @abstractmethod
    def see(self, outputs: Outputs, index: Tensor) -> None:
        """Take note of a batch: outputs in float32 and evaluation mode, index int64 [B], positions in the test set."""

    def watch(self, batches: Iterable[tuple[Outputs, Tensor]]) -> Iterator[tuple[Outputs, Tensor]]:
        """Pass the batches of an epoch on, and see each."""
        for outputs, index in batches:
            self.see(outputs, index)
            yield outputs, index
