"""What a run measures of its steps for later runs, and what it learns from earlier ones."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from ..config import RunConfig
from ..methods import Method
from .distributed import World
from .payback import UNKNOWN_NETWORK, Cost, StepTimes, compile_cost, steps_key
from .prepare import Loaders
from .profile import StepProfiler
from .record import Record
from .step import Step


class MeasuredSteps:
    """The part of a training that knows what its steps cost.

    Attributes:
        times: the file of measured times.
        shape: of the images of a full batch of one view.
        amp: the autocast dtype.
        profiler: of --profile.
        The others are those of `Training`.
    """

    config: RunConfig
    device: torch.device
    method: Method
    networks: nn.ModuleList
    loaders: Loaders
    world: World
    step: Step
    times: StepTimes
    shape: Sequence[int]
    amp: torch.dtype | None
    profiler: StepProfiler | None = None

    def _say(self, line: str) -> None:
        raise NotImplementedError

    def _begin_profile(self, record: Record) -> None:
        """Begin to profile a run's steps if it asks for that."""
        if self.config.engine.profile and self.world.main:
            targets = getattr(getattr(self.method, "criterion", None), "targets", None)
            shape = None if targets is None else (targets.shape[0], targets.shape[1])
            self.profiler = StepProfiler(record.folder.profile, table_shape=shape)

    def _times_key(self, graphed: bool) -> str:
        return steps_key(self.config, self.method, self.shape, self.amp, self.device, self.loaders.train.name, graphed)

    def _compile_cost(self) -> Cost:
        engine = self.config.engine
        if self.device.type != "cuda" or engine.gear != "auto" or engine.compile != "auto":
            return UNKNOWN_NETWORK  # nobody asks for it
        if self.config.model.batch_norm == "sync" and self.world.size > 1:
            return Cost(math.inf, 0.0, obstacle="batch norm over all processes sends messages inside the network")
        times, note = self.times.read(self._times_key(self.amp != torch.float16))  # whose steps are not captured
        return compile_cost(list(self.networks), self.shape, self.amp, times, note)

    def _keep_times(self, **seconds: float) -> None:
        """Let later runs know what was measured; not on a CPU, where `auto` never compiles, and not of a profile, which
        takes time of its own."""
        if self.device.type == "cuda" and self.profiler is None and self.world.main:
            note = self.times.write(self._times_key(self.step.gear.graphed), **seconds)
            if note:
                self._say(f"warning: {note}")
