"""Several steps at a time as a side of `benchmarks.train`."""

import itertools
from collections.abc import Callable, Iterator

from fastnoise.data import Loader
from fastnoise.data.positioned import PositionedBatches, positioned_obstacle
from fastnoise.data.resident import ResidentLoader
from fastnoise.engine.step import Step
from fastnoise.errors import ConfigError


def steps_together(step: Step, loader: Loader, count: int) -> tuple[Callable[[], object], Iterator[tuple[()]]]:
    """A side's step and batches if `count` steps are made together: all of them at once at the first of so many calls,
    so that the calls have the mean speed. ConfigError if the loader is none for it, or has fewer full batches."""
    if obstacle := positioned_obstacle(loader):
        raise ConfigError(f"{count} steps together: {obstacle}")
    assert isinstance(loader, ResidentLoader)
    if loader.num_samples // loader.batch_size < count:
        raise ConfigError(f"{count} steps together: an epoch has {loader.num_batches} batches; lower the batch size")
    batches, made = PositionedBatches(loader), itertools.count()

    def endless() -> Iterator[tuple[()]]:
        try:
            for epoch in itertools.count(1):
                full = batches.begin(epoch) // batches.batch_size
                yield from itertools.repeat((), full - full % count)
        finally:
            loader.close()

    def make() -> None:
        if next(made) % count == 0:
            step.train_next(batches, count)

    return make, endless()
