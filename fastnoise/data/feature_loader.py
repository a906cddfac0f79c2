"""The loader of frozen features: a batch is one gather from the table."""

from collections.abc import Generator

import torch

from .base import BaseLoader, LoaderSpec, aligned_part, upload
from .plan import PlannedEpoch
from .resident import on_device, room


class FeatureLoader(BaseLoader):
    """Gathers a batch's rows from the table, and normalises each number of them.

    Batches are [V * B, D, 1, 1]: each number is a channel. Nothing is drawn, so that all V views are the same. On the
    CPU the work is done when a batch is asked for: it takes less than handing it over from another thread. On CUDA the
    table lies on the device if it takes at most `share` of the free memory; else rows are gathered on the host.
    """

    name = "features"

    def __init__(self, spec: LoaderSpec, reason: str, share: float) -> None:
        super().__init__(spec, reason)
        self._mean = torch.from_numpy(spec.mean).to(spec.device)
        self._scale = torch.from_numpy(spec.std).to(spec.device).reciprocal_()
        assert spec.table.images is not None
        fits = spec.device.type == "cuda" and spec.table.images.nbytes <= share * room(spec.table, spec.device)
        self._features = on_device(spec.table, spec.device) if fits else torch.from_numpy(spec.table.images)

    def _produce(self, planned: PlannedEpoch) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        device, plan = self.spec.device, self.spec.plan
        drawn = planned.draw().index
        index = upload(drawn, device)
        features = self._features.flatten(1)
        on_host = features.device != device
        host_index = torch.from_numpy(drawn) if on_host else index
        for first, last in planned.spans():
            rows = features.index_select(0, aligned_part(host_index, first, last))
            if on_host:
                rows = rows.pin_memory().to(device, non_blocking=True)
            rows = torch.sub(rows, self._mean).mul_(self._scale)  # in float32, which both are promoted to
            if plan.views > 1:
                rows = rows.repeat(plan.views, 1)
            yield rows[:, :, None, None], aligned_part(index, first, last)
