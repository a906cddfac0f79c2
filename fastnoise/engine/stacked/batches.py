"""Batches of several runs from one table of images. Each run's own plan decides its samples."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...config import RunConfig
from ...data import Augmentation, ImageTable, Loader, make_loader
from ...data.base import aligned_part, upload
from ...data.plan import Batch, Plan, PlannedEpoch
from ..prepare import Loaders, RunData, loading


class StackedPlan(Plan):
    """The plans of several runs over one table, step by step.

    If every run has equally many samples in a step, they alternate: sample 0 of each run, sample 1 of each, and so on.
    Otherwise, at the end of epochs of unequal length, the samples of each run come together.

    Args:
        plans: of the runs. They differ only in the number of samples and the seed.
        positions: for each run, the positions of its samples in the table.
    """

    def __init__(self, plans: Sequence[Plan], positions: Sequence[NDArray[np.int64]]):
        self.plans, self.positions = plans, positions
        alike, counts = plans[0], [plan.num_samples for plan in plans]
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        """Where each run's samples begin among the samples of all runs. The last entry is the number of all samples."""
        batches, size = max(plan.num_batches for plan in plans), alike.batch_size
        self.sizes = [
            tuple(0 if step >= plan.num_batches else min(size, plan.num_samples - step * size) for plan in plans)
            for step in range(batches)
        ]
        """For each step, the number of samples of each run."""
        super().__init__(
            int(self.starts[-1]),
            sum(self.sizes[0]),
            augmentation=alike.augmentation,
            source=alike.source,
        )
        self.num_batches = batches
        places = []
        for step, sizes in enumerate(self.sizes):
            first = self.starts[:-1] + step * size
            if len(set(sizes)) == 1:
                places.append((np.arange(sizes[0])[:, None] + first).ravel())
            else:
                places += [np.arange(begin, begin + count) for begin, count in zip(first, sizes, strict=True)]
        self.places = np.concatenate(places)
        """The order in which an epoch visits the samples of all runs, which are numbered one run after the other."""
        self._last: StackedEpoch | None = None

    def batches(self, epoch: int, start_batch: int = 0, order: np.ndarray | None = None) -> "StackedEpoch":
        """The epoch from `start_batch` on. A repeated call returns the same object, so that it is drawn only once."""
        if self._last is None or (self._last.epoch, self._last.start_batch) != (epoch, start_batch):
            self._last = StackedEpoch(self, epoch, start_batch, None)
        return self._last


@dataclass(frozen=True, eq=False)
class StackedEpoch(PlannedEpoch):
    """An epoch of a StackedPlan."""

    plan: StackedPlan

    def spans(self) -> Iterator[tuple[int, int]]:
        ends = np.cumsum([sum(sizes) for sizes in self.plan.sizes]).tolist()
        yield from itertools.islice(zip([0, *ends], ends, strict=False), self.start_batch, None)

    @cached_property
    def drawn(self) -> tuple[Batch, NDArray[np.int64]]:
        """The epoch as `draw` returns it, and the number of each of its samples among those of all runs."""
        plan = self.plan
        parts = [own.batches(self.epoch).draw() for own in plan.plans]

        def joined(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
            given = [array for array in arrays if array is not None]
            return np.concatenate(given, axis=1)[:, plan.places] if given else None

        tables = [positions[part.index] for positions, part in zip(plan.positions, parts, strict=True)]
        samples = [start + part.index for start, part in zip(plan.starts[:-1], parts, strict=True)]
        whole = Batch(
            index=np.concatenate(tables)[plan.places],
            corner=joined([part.corner for part in parts]),
            flip=joined([part.flip for part in parts]),
            hole=joined([part.hole for part in parts]),
            key=joined([part.key for part in parts]),
        )
        return whole, np.concatenate(samples)[plan.places]

    def draw(self) -> Batch:
        return self.drawn[0]


class StackedLoader:
    """A loader for K runs over one table. It is a Loader whose `epoch` returns other shapes.

    Args:
        loader: of any kind, over the table, with batches of the stack's size.
        plan: of the runs.
    """

    def __init__(self, loader: Any, plan: StackedPlan, device: torch.device):
        loader.spec = replace(loader.spec, plan=plan)
        self.loader, self.plan, self.device = loader, plan, device
        self.name, self.reason = loader.name, loader.reason
        self.num_samples, self.batch_size, self.num_batches = plan.num_samples, plan.batch_size, plan.num_batches

    def count_batches(self, order: np.ndarray | None = None) -> int:
        return self.num_batches

    def epoch(
        self, epoch: int, start_batch: int = 0, order: np.ndarray | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, index). If the runs have equally many samples in a step: images [B, K, channels, H, W] and index
        int64 [B * K]. Otherwise: images [R, channels, H, W] and index [R], run by run. The index numbers the samples of
        all runs, one run after the other."""
        planned = self.plan.batches(epoch, start_batch)
        index = upload(planned.drawn[1], self.device)
        steps = zip(self.plan.sizes[start_batch:], planned.spans(), self.loader.epoch(epoch, start_batch), strict=True)
        for sizes, (first, last), (images, _) in steps:
            even = len(set(sizes)) == 1
            yield images.unflatten(0, (-1, len(sizes))) if even else images, aligned_part(index, first, last)

    def close(self) -> None:
        self.loader.close()


def stacked_loaders(
    configs: Sequence[RunConfig], sets: Sequence[RunData], device: torch.device, dtype: torch.dtype
) -> Loaders:
    """The loaders of a stack, whose runs share their tables. Data that all runs read alike have ordinary loaders."""
    config, data = configs[0], sets[0]
    settings = config.data
    size = (settings.image_size,) * 2 if settings.image_size else data.train.shape[1:]

    evaluation = settings.eval_augmentation()

    def loader(table: ImageTable, batch_size: int, augmentation: Augmentation | None = evaluation) -> Loader:
        return make_loader(
            settings.loader,
            table,
            batch_size=batch_size,
            mean=data.mean,
            std=data.std,
            device=device,
            seed=config.engine.seed,
            dtype=dtype,
            **loading(settings, augmentation),
        )

    def plan(number: int, seed: int, augmentation: Augmentation | None = evaluation, **options: Any) -> Plan:
        return Plan(number, settings.batch_size, seed=seed, augmentation=augmentation, source=size, **options)

    def in_order(positions: Sequence[NDArray[np.int64]]) -> Loader:
        if all(np.array_equal(places, np.arange(len(data.train))) for places in positions):
            return loader(data.train, min(settings.batch_size, len(data.train)))
        plans = StackedPlan([plan(len(places), 0) for places in positions], positions)
        return StackedLoader(loader(data.train, plans.batch_size), plans, device)

    augmentation = settings.augmentation()
    positions = [each.positions for each in sets]
    plans = StackedPlan(
        [
            plan(len(places), one.engine.seed, augmentation, shuffle=True, drop_last=settings.drop_last)
            for places, one in zip(positions, configs, strict=True)
        ],
        positions,
    )
    validation = None
    if data.validation is not None:
        held = [np.setdiff1d(each.noisy.positions, each.positions) for each in sets]
        validation = in_order(held)
    return Loaders(
        StackedLoader(loader(data.train, plans.batch_size, augmentation), plans, device),
        in_order(positions),
        validation,
        loader(data.test, min(settings.batch_size, len(data.test))),
        {name: loader(table, min(settings.batch_size, len(table))) for name, table in data.second_tests.items()},
    )
