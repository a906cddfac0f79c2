"""Run.scan over outputs that are known for all samples."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastnoise.methods.scan import Kept, Scan, keep
from fastnoise.models import Outputs

BATCH = 7
"""Divides few numbers of samples, so that most scans end with a smaller batch."""


def scan_over(evaluate: Callable[[], Sequence[Outputs]]) -> Scan:
    """A scan of what `evaluate` gives for each network when the scan is made, with attention weights as they are."""

    @torch.no_grad()
    def scan(of: Callable[[Sequence[Outputs], Tensor], Kept], *, batch_statistics: bool = False) -> Kept:
        whole = evaluate()
        count = len(whole[0].logits)

        def part(index: Tensor) -> list[Outputs]:
            return [Outputs(*(None if each is None else each[index] for each in outputs)) for outputs in whole]

        return keep(((index, of(part(index), index)) for index in torch.arange(count).split(BATCH)), count)

    return scan
