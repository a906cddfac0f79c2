"""Batches of noise, to measure what training takes without loading."""

from collections.abc import Generator

import torch

from .base import BaseLoader, LoaderSpec, aligned_part, upload
from .plan import PlannedEpoch

BATCHES = 4


class SyntheticLoader(BaseLoader):
    """Gives the same few batches of normal noise in turn, drawn once, with the index of the epoch's real batches.

    A batch takes no kernel and no copy, so that what is left is the training step's own time. The images are given out
    again and again: unlike other loaders' they must not be written to.
    """

    name = "synthetic"

    def __init__(self, spec: LoaderSpec, reason: str) -> None:
        super().__init__(spec, reason)
        plan = spec.plan
        generator = torch.Generator(spec.device).manual_seed(plan.seed % 2**63)
        shape = (plan.views * plan.batch_size, *spec.size, spec.table.shape[0])
        self._batches = [
            torch.randn(shape, generator=generator, device=spec.device).to(spec.dtype).permute(0, 3, 1, 2)
            for _ in range(BATCHES)
        ]

    def _produce(self, planned: PlannedEpoch) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        index = upload(planned.draw().index, self.spec.device)
        for number, (first, last) in enumerate(planned.spans(), planned.start_batch):
            images = self._batches[number % BATCHES][: self.spec.plan.views * (last - first)]
            yield images, aligned_part(index, first, last)
