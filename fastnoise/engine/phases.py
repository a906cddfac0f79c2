"""How an epoch is optimised: by the run's optimiser and schedule, or as a phase of its method says."""

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ..config import OptimConfig, RunConfig
from ..errors import ConfigError
from ..methods import Method
from .layer_rates import set_rate
from .optimizer import LRScheduler, create_optimizer, create_schedule
from .step import Step


class Phased(Protocol):
    """The training whose epochs have phases."""

    config: RunConfig
    method: Method
    optimizer: torch.optim.Optimizer
    second: torch.optim.Optimizer | None
    schedule: LRScheduler
    rounds: dict[int, int]
    step: Step


def second_optimizer(
    config: OptimConfig, method: Method, networks: torch.nn.Module, *, capturable: bool, kernel: str
) -> torch.optim.Optimizer | None:
    """The optimiser of the phases that ask for another than the run's; None if the method has none.

    ConfigError with Triton's kernel for the run's: its copies and averages of weights know one optimiser.
    """
    if not method.second_optimizer:
        return None
    if kernel != "torch":
        raise ConfigError(
            f"--optimizer-kernel {kernel}: method {method.name} has phases with an optimiser of their own; use torch"
        )
    return create_optimizer(replace(config, optimizer=method.second_optimizer), networks, capturable=capturable)


def begin_epoch(training: Phased, epoch: int, start: int) -> tuple[float, LRScheduler | None]:
    """Set the optimiser for an epoch entered at batch `start`.

    Returns the learning rate, and the schedule if the epoch counts for it.
    """
    phase, config, step = training.method.phase(epoch), training.config.optim, training.step
    own = training.second if phase is not None and phase.second else training.optimizer
    assert own is not None
    step.optimise_by(own)
    if phase is None and start == 0 and epoch > 1 and epoch in training.rounds:
        step.restart()
        set_rate(training.optimizer, config.learning_rate)
        training.schedule = create_schedule(replace(config, epochs=training.rounds[epoch]), training.optimizer)
    if phase is not None:
        for group in own.param_groups:
            if group["weight_decay"] != phase.weight_decay:
                group["weight_decay"] = phase.weight_decay
                step.recapture()
        if phase.fresh and start == 0:
            step.restart()
        if phase.learning_rate is not None:
            set_rate(own, phase.learning_rate)
            return phase.learning_rate, None
    rate = training.schedule.get_last_lr()[0]
    # A tensor's is of float32: 0.1, as asked.
    return float(f"{float(rate):.8g}") if isinstance(rate, Tensor) else float(rate), training.schedule
