"""Several training steps at a time, so that short steps do not wait for the host."""

from collections.abc import Iterator
from functools import partial
from typing import Callable, NamedTuple

import numpy as np

from .. import own
from ..config import AUTO_STEPS_PER_GRAPH, RunConfig
from ..data import Loader
from ..data.positioned import PositionedBatches, positioned_obstacle
from ..data.resident import ResidentLoader
from ..errors import ConfigError
from ..methods import Method
from .profile import StepProfiler
from .step import Step


class Steps(NamedTuple):
    """Training steps that are made together."""

    number: int
    """Batches of the epoch that are done after them."""
    count: int
    samples: int
    make: Callable[[], object]


def choose_steps_per_graph(config: RunConfig, method: Method, loader: Loader, runs: int = 1, processes: int = 1) -> int:
    """How many steps are made together, as `--steps-per-graph` says; ConfigError if this run cannot."""
    asked = config.engine.steps_per_graph
    count = AUTO_STEPS_PER_GRAPH if asked == "auto" else asked
    if count == 1:
        return 1
    obstacle = positioned_obstacle(loader)
    if runs > 1:
        obstacle = "stacked runs make their batches on the host"
    elif processes > 1:
        obstacle = "several processes agree on the host after a step"
    elif type(method).before_step is not Method.before_step:
        obstacle = f"method {own.short(config.method.method)} draws numbers on the host before each step"
    elif config.engine.profile:
        obstacle = "--profile looks at single steps"
    if obstacle is None:
        return count
    if asked == "auto":
        return 1
    raise ConfigError(f"--steps-per-graph {count}: {obstacle}, or drop the option")


class Stepping:
    """Makes an epoch's steps, `together` at a time as far as they go, and the others one by one.

    Args:
        step: of the run.
        method: of the run.
        loader: of the training set.
        together: as `choose_steps_per_graph` gave it.
    """

    def __init__(self, step: Step, method: Method, loader: Loader, together: int):
        self.step, self.method, self.loader, self.together = step, method, loader, together
        self.positioned: PositionedBatches | None = None
        if together > 1:
            assert isinstance(loader, ResidentLoader)
            self.positioned = PositionedBatches(loader)

    def epoch(
        self, epoch: int, start: int, order: np.ndarray | None, seed: int, profiler: StepProfiler | None = None
    ) -> Iterator[Steps]:
        """The steps of an epoch from batch `start` (from 0) on."""
        if self.positioned is not None:
            yield from self._together(self.positioned, epoch, start, order)
            return
        source = self.loader.epoch(epoch, start, order)
        if profiler is not None:
            source = profiler.batches(source)
        for number, (images, index) in enumerate(source, start + 1):

            def make(number: int = number, images: object = images, index: object = index) -> None:
                self.method.before_step(epoch, number - 1, seed)
                self.step.train(images, index)  # type: ignore[arg-type]

            yield Steps(number, 1, len(index), make)

    def _together(
        self, batches: PositionedBatches, epoch: int, start: int, order: np.ndarray | None
    ) -> Iterator[Steps]:
        size, done = batches.batch_size, start
        samples = batches.begin(epoch, start, order)
        while (done + self.together) * size <= samples:
            done += self.together
            yield Steps(
                done, self.together, self.together * size, partial(self.step.train_next, batches, self.together)
            )
        for number in range(done, self.loader.count_batches(order)):
            rest = min(size, samples - number * size)
            yield Steps(number + 1, 1, rest, lambda rest=rest: self.step.train(*batches.next(rest)))  # type: ignore[misc]
