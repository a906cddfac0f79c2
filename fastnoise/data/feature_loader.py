"""The loader of frozen features: a batch is one gather from the table."""

from collections.abc import Generator

import numpy as np
import torch

from .. import _C
from .base import BaseLoader, LoaderSpec, aligned_part, upload
from .plan import PlannedEpoch
from .resident import on_device, room


class FeatureLoader(BaseLoader):
    """Gathers a batch's rows from the table, and normalises each number of them.

    Batches are [V * B, D, 1, 1]: each number is a channel. Nothing is drawn, so that all V views are the same. On the
    CPU one pass in C++ does the work when a batch is asked for: it takes less than handing it over from another thread.
    On CUDA the table lies on the device if it takes at most `share` of the free memory; else rows are gathered on the
    host.
    """

    name = "features"

    def __init__(self, spec: LoaderSpec, reason: str, share: float) -> None:
        super().__init__(spec, reason)
        self._mean = torch.from_numpy(spec.mean).to(spec.device)
        self._scale = torch.from_numpy(spec.std).to(spec.device).reciprocal_()
        table = spec.table.images
        assert table is not None
        self._rows = table.reshape(len(table), -1)
        fits = spec.device.type == "cuda" and table.nbytes <= share * room(spec.table, spec.device)
        self._on_device = on_device(spec.table, spec.device).flatten(1) if fits else None

    def _produce(self, planned: PlannedEpoch) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        device, plan = self.spec.device, self.spec.plan
        drawn = planned.draw().index
        index = upload(drawn, device)
        for first, last in planned.spans():
            part = aligned_part(index, first, last)
            rows = self._on_cpu(drawn[first:last]) if device.type == "cpu" else self._on_cuda(drawn[first:last], part)
            if plan.views > 1:
                rows = rows.repeat(plan.views, 1)
            yield rows[:, :, None, None], part

    def _on_cpu(self, index: np.ndarray) -> torch.Tensor:
        mean, scale = self._mean.numpy(), self._scale.numpy()
        return torch.from_numpy(_C.normalised_rows(self._rows, index, mean, scale, threads=self.spec.threads))

    def _on_cuda(self, index: np.ndarray, part: torch.Tensor) -> torch.Tensor:
        """`part` is `index` on the device."""
        if self._on_device is None:
            rows = torch.from_numpy(self._rows).index_select(0, torch.from_numpy(index))
            rows = rows.pin_memory().to(self.spec.device, non_blocking=True)
        else:
            rows = self._on_device.index_select(0, part)
        return torch.sub(rows, self._mean).mul_(self._scale)  # in float32, which both are promoted to
