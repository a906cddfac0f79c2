"""Passes over all training samples in small parts, so that nothing of size [N, C] is held."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import TrainingError
from ..models import Outputs

Kept = TypeVar("Kept", bound=Tensor | tuple[Tensor, ...] | None)
"""What a function returns for some samples: a tensor with one row for each, a tuple of such tensors, or None."""


class Scan(Protocol):
    """Run.scan."""

    def __call__(
        self,
        of: Callable[[Sequence[Outputs], Tensor], Kept],
        *,
        batch_statistics: bool = False,
        samples: NDArray[np.int64] | None = None,
    ) -> Kept:
        """Pass over the training set in order, in evaluation mode and without augmentation.

        Args:
            of: called without gradient for each batch of B samples, in order. It gets the outputs of each network
                (float32: logits [B, C], attention weights [B] after the sigmoid, features [B, F]; None if there are
                none) and the samples' positions (int64 [B]). It returns a tensor [B, ...] or a tuple of such tensors,
                whose rows are kept; or it returns None and keeps what it needs by itself. The outputs are overwritten
                after it returns.
            batch_statistics: batch norm uses each batch's statistics, as in training, and its running statistics do not
                change.
            samples: int64 [n], positions of different samples to pass over in place of all.

        Returns:
            What `of` returned, joined for all N samples: a tensor [N, ...] on the device, a tuple of such tensors, or
            None if it returned None. Rows of samples that are not passed over mean nothing.

        Raises:
            TrainingError: a tensor does not have one row for each sample of its batch.
        """
        ...


def keep(found: Iterable[tuple[Tensor | slice, Kept]], count: int) -> Kept:
    """Join the results for parts of the samples.

    Args:
        found: positions and what was found for them, a row each; all positions 0..count - 1 come once.
        count: N.

    Returns:
        As `Scan` says.
    """
    tables: list[Tensor] = []
    parts: Tensor | tuple[Tensor, ...] | None = None
    for positions, parts in found:
        rows: tuple[Tensor, ...] = () if parts is None else (parts,) if isinstance(parts, Tensor) else parts
        size = len(range(count)[positions]) if isinstance(positions, slice) else len(positions)
        for part in rows:
            if part.dim() == 0 or len(part) != size:
                raise TrainingError(
                    f"Run.scan: the function returned a tensor of shape {list(part.shape)} for a batch of {size} "
                    "samples; return one row for each sample, or None"
                )
        tables = tables or [part.new_empty(count, *part.shape[1:]) for part in rows]
        for table, part in zip(tables, rows, strict=True):
            table[positions] = part
    return cast(Kept, None if parts is None else tables[0] if isinstance(parts, Tensor) else tuple(tables))


BLOCK = 1 << 22
"""Numbers of a table that `by_blocks` has worked on at once: 16 MiB in float32."""

ALIGNMENT = 64
"""Blocks begin at rows divisible by this, so that sums over several tables take each number into the same lane of the
same vector as sums over whole tables do: the same bits."""


def by_blocks(of: Callable[[slice], Kept], table: Tensor) -> Kept:
    """Call `of` for one block of rows after another and join the results.

    Use it on tables [N, C] that a method keeps, so that no second table of that size is made.

    Args:
        of: takes a slice of rows, and returns a row for each of them as in `Scan`.
        table: [..., N, C]; says how many rows there are and how long they are.
    """
    count, width = table.shape[-2:]
    numbers = width * max(1, table.numel() // max(1, count * width))
    step = max(ALIGNMENT, BLOCK // max(1, numbers) // ALIGNMENT * ALIGNMENT)
    with torch.no_grad():
        return keep(((rows := slice(first, first + step), of(rows)) for first in range(0, count, step)), count)
