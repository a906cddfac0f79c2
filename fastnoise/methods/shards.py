"""How the samples of a training set are divided among the processes that train one run together.

Process `rank` of `size` trains the samples rank, rank + size, rank + 2 size, ... and no others. Sample i is row
i // size of what process i % size keeps for its samples alone. A method meets this in three places only: tables with
the rows of own samples (`own_rows` of them, row `row(index)`), vectors of all samples into which its steps write
(`share_`), and sums over the samples (`sum_`).
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from ..losses.tables import shard_rows, storage_now
from .scan import Kept


def own_rows(num_samples: int) -> int:
    """Rows of a table that this process keeps for its own samples of N, while a method is built."""
    return shard_rows(num_samples, storage_now().get("shard", (0, 1)))


class Shards:
    """The part of one process. By itself this class is the only process of a run: all samples are its own, nothing is
    sent, and every method returns what it is given.

    Each method that sends something must be called by every process, in the same order.
    """

    rank: int = 0
    size: int = 1

    # -- what has no need of the others ----------------------------------------------------------------------

    def row(self, index: Tensor) -> Tensor:
        """Rows of own samples `index` in a table with a row for each own sample."""
        return index if self.size == 1 else index // self.size

    def own(self, whole: Tensor, dim: int = 0) -> Tensor:
        """The rows of own samples in a table of all: a view."""
        if self.size == 1:
            return whole
        return whole[(slice(None),) * dim + (slice(self.rank, None, self.size),)]

    # -- what is sent ----------------------------------------------------------------------------------------

    def sum_(self, *tensors: Tensor) -> None:
        """Replace each by its sum over the processes, in place."""

    def gathered(self, tensor: Tensor) -> Tensor:
        """[size, ...]: the tensors of all processes, which have one shape, in the order of ranks."""
        return tensor[None]

    def share_(self, *tables: Tensor, dim: int = 0) -> None:
        """Give every process the rows of all samples, in place, where each has written those of its own samples.

        Args:
            tables: [..., N, ...] each, N in dimension `dim`; rows of other processes' samples are overwritten.
        """
        if self.size == 1:
            return
        for table in tables:
            whole = torch.zeros_like(table, dtype=torch.uint8 if table.dtype == torch.bool else table.dtype)
            self.own(whole, dim).copy_(self.own(table, dim))
            self.sum_(whole)  # of one number and zeros, which is exact
            table.copy_(whole)

    def merge_(self, table: Tensor) -> None:
        """Give every process each entry that some process has written, in place: [N, ...]. What is not written is -1,
        or NaN in a table of real numbers. If several have written one, the first of them counts."""
        for part in self.gathered(table).flip(0) if self.size > 1 else ():
            written = ~part.isnan() if part.is_floating_point() else part != -1
            torch.where(written, part, table, out=table)

    def join(self, rows: Kept, count: int) -> Kept:
        """The rows of all N samples, [N, ...], from those of each process's own samples, [own, ...].

        Args:
            rows: a tensor, a tuple of them, or None.
            count: N.
        """
        if self.size == 1 or rows is None:
            return rows
        parts: Sequence[Tensor] = (rows,) if isinstance(rows, Tensor) else rows
        tables = [part.new_empty(count, *part.shape[1:]) for part in parts]
        for table, part in zip(tables, parts, strict=True):
            self.own(table).copy_(part)
        self.share_(*tables)
        return cast(Kept, tables[0] if isinstance(rows, Tensor) else tuple(tables))
