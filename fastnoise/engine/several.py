"""Several training steps at a time, so that short steps do not wait for the host."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor

from .. import own
from ..config import RunConfig
from ..data import Loader
from ..data.positioned import PositionedBatches, positioned_obstacle
from ..data.resident import ResidentLoader
from ..errors import ConfigError
from ..methods import Method
from ..schedules import Optimizer
from .course import StepCourse
from .optimizer import LRScheduler
from .profile import StepProfiler
from .step import Step

AUTO_STEPS_PER_GRAPH = 1
"""What `--steps-per-graph auto` takes, until a GPU has shown more to be faster (`benchmarks.gpu`)."""


class Steps(NamedTuple):
    """Training steps that are made together."""

    number: int
    """Batches of the epoch that are done after them."""
    steps: int
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
    elif count % (every := Optimizer.parse(config.optim.optimizer).lookahead or 1):
        moves = f"moves its slow weights every {every} steps"
        obstacle = f"--optimizer {config.optim.optimizer} {moves}; take a multiple of {every}"
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
        course: of the run.
        loader: of the training set.
        together: as `choose_steps_per_graph` gave it.
        seed: of the run.
    """

    def __init__(self, step: Step, course: StepCourse, loader: Loader, together: int, seed: int):
        self.step, self.course, self.loader, self.together, self.seed = step, course, loader, together, seed
        self.positioned: PositionedBatches | None = None
        if together > 1:
            assert isinstance(loader, ResidentLoader)
            self.positioned = PositionedBatches(loader)

    def epoch(
        self,
        epoch: int,
        start: int,
        order: np.ndarray | None,
        schedule: LRScheduler | None = None,
        profiler: StepProfiler | None = None,
    ) -> Iterator[Steps]:
        """The steps of an epoch from batch `start` (from 0) on. `schedule`: of the learning rate, if the epoch follows
        it."""
        if self.positioned is not None:
            yield from self._together(self.positioned, epoch, start, order, schedule)
            return
        source, batches = self.loader.epoch(epoch, start, order), self.loader.count_batches(order)
        if profiler is not None:
            source = profiler.batches(source)
        for number, (images, index) in enumerate(source, start + 1):

            def make(number: int = number, images: Tensor = images, index: Tensor = index) -> None:
                self.step.method.before_step(epoch, number - 1, self.seed)
                if schedule is not None:
                    self.course.before_step(self.step.optimizer, schedule, epoch, number - 1, batches)
                self.step.train(images, index)
                self.course.after_step(number, batches)

            yield Steps(number, 1, len(index), make)

    def _together(
        self,
        batches: PositionedBatches,
        epoch: int,
        start: int,
        order: np.ndarray | None,
        schedule: LRScheduler | None,
    ) -> Iterator[Steps]:
        course, optimizer, size = self.course, self.step.optimizer, batches.batch_size
        samples, count = batches.begin(epoch, start, order), self.loader.count_batches(order)
        rates = course.rates(optimizer, schedule, epoch, count)

        def together(done: int) -> None:
            course.before_joint(None if rates is None else rates[done : done + self.together])
            before = partial(course.before_each, optimizer)
            self.step.train_next(batches, self.together, before, course.after_each)

        def alone(done: int, rest: int) -> None:
            if schedule is not None:
                course.before_step(optimizer, schedule, epoch, done, count)
            self.step.train(*batches.next(rest))
            course.after_step(done + 1, count)

        done = start
        while done < count:
            # An epoch that goes on between two moves of the slow weights goes up to the next one step by step.
            if done % course.every == 0 and (done + self.together) * size <= samples:
                made, make, steps = self.together * size, partial(together, done), self.together
            else:
                made, steps = min(size, samples - done * size), 1
                make = partial(alone, done, made)
            done += steps
            yield Steps(done, steps, made, make)
