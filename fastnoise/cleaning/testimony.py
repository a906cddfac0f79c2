"""What a network says of each label."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..engine.witness import Witness
from ..errors import CheckpointError
from ..files import write_atomically
from ..models import Outputs

SPANS = ((0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (0.0, 2 / 3))
"""Stretches of the epochs over which a network's answers are averaged: where they begin and end, as shares of the
training, and at least one epoch. The last epoch is best for networks that still learn, the mean over all for networks
that come to memorise wrong labels, and the mean over all but the last third for those that have nearly all of them by
heart; `reach` takes the one whose answers for labels not learnt from explain these best."""


class LogitWitness(Witness):
    """Notes a network's logits for every image, in a table of one or more rows for each.

    Args:
        rows: R.
        count: N.
        num_classes: C.
        dtype: of the table.
    """

    logits: Tensor
    """[R, N, C]"""
    seen: Tensor

    def __init__(self, rows: int, count: int, num_classes: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.register_buffer("logits", torch.zeros(rows, count, num_classes, dtype=dtype))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def see(self, outputs: Outputs, index: Tensor) -> None:
        self.note(int(self.seen) // self.logits.shape[1], outputs.logits, index)
        self.seen += len(index)

    @abstractmethod
    def note(self, epoch: int, logits: Tensor, index: Tensor) -> None:
        """Put a batch's logits [B, C] of an epoch, counted from 0, into the table; index int64 [B]."""


class Judge(LogitWitness):
    """Adds up over the epochs what a network says of every image.

    Networks learn the right labels first and wrong ones late, if at all (Arpit et al. 2017), so means over epochs tell
    wrong labels better than the end of a long training (AUM, Pleiss et al. 2020, Eq. 1). There they are taken in the
    training steps, here in evaluation mode at the end of each epoch, which images that are held out have too.

    Args:
        epochs: E, of the training.
        count: N.
        num_classes: C.
    """

    def __init__(self, epochs: int, count: int, num_classes: int):
        super().__init__(len(SPANS), count, num_classes)
        self.stretches = []
        for begin, end in SPANS:
            first = epochs - max(1, round((1 - begin) * epochs))
            self.stretches.append(range(first, max(first + 1, round(end * epochs))))

    def note(self, epoch: int, logits: Tensor, index: Tensor) -> None:
        for sums, stretch in zip(self.logits, self.stretches, strict=True):
            if epoch in stretch:
                sums[index] += logits.float() / len(stretch)


@dataclass(frozen=True, eq=False)
class Testimony:
    """What one network said: a job's judged.npz."""

    logits: NDArray[np.float32]
    """[S, N, C], the mean logits over each of SPANS."""
    held: NDArray[np.bool_]
    """[N], the images whose labels the network did not learn from."""

    @classmethod
    def of(cls, judge: Judge, held: NDArray[np.bool_]) -> "Testimony":
        """What a network said at the end of its training."""
        return cls(judge.logits.cpu().numpy(), held)

    def save(self, path: Path) -> None:
        """Write the file; CheckpointError if it cannot be written."""
        write_atomically(path, lambda file: np.savez(file, logits=self.logits, held=self.held))

    @classmethod
    def load(cls, path: Path, count: int, num_classes: int) -> "Testimony":
        """Read what `save` wrote; CheckpointError for a file that is damaged or of other images."""
        try:
            with np.load(path, allow_pickle=False) as file:
                found = cls(file["logits"], file["held"])
        except Exception as error:  # whatever a damaged zip or npy file makes its readers raise
            raise CheckpointError(f"{path} is damaged ({type(error).__name__}); remove {path.parent}") from error
        if (found.logits.shape, found.held.shape) != ((len(SPANS), count, num_classes), (count,)):
            raise CheckpointError(f"{path} is of other images or of another version; remove {path.parent}")
        return found
