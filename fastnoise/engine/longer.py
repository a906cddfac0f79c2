"""A run that goes on to more epochs than it was started with."""

from typing import Any

import torch

from ..config import OptimConfig, RunConfig, Schedule
from ..errors import ConfigError
from ..methods import Method
from .layer_rates import follow, set_group_rate
from .optimizer import LRScheduler


def epochs_before(state: dict[str, Any], config: RunConfig, method: Method) -> int | None:
    """The epochs that a checkpoint's run had, if `config` has more; else None.

    ConfigError for a method that divides its epochs into rounds, which would lie otherwise, and for one that could not
    go on from such an end.
    """
    before = state.get("epochs")
    if before is None and isinstance(state.get("schedule"), dict):  # of an earlier version
        before = state["schedule"].get("T_max")
    now = config.optim.epochs
    if type(before) is not int or before >= now:
        return None
    if max(len(method.rounds(before)), len(method.rounds(now))) > 1:
        raise ConfigError(
            f"--epochs {now}: method {config.method.method} divides its {before} epochs into rounds, which more epochs "
            "would move; start a new run"
        )
    if (obstacle := method.end_obstacle(before)) is not None:
        raise ConfigError(f"--epochs {now}: method {config.method.method} {obstacle}; start a new run")
    return before


def lengthen(
    schedule: LRScheduler, optimizer: torch.optim.Optimizer, optim: OptimConfig, before: int, done: int
) -> str:
    """Let a loaded schedule, which `create_schedule` made for fewer epochs, go on as one of `optim.epochs` epochs would
    at its place. Those that do not depend on the number of epochs stay as they are.

    Args:
        before: the epochs that the run had.
        done: the epochs that are trained.

    Returns a line that says how the learning rate goes on.
    """
    _move(schedule, optimizer, optim.epochs)
    courses = {
        "cosine": f"follows the cosine of {optim.epochs} epochs from epoch {done + 1} on, and followed that of "
        f"{before} before",
        "linear": f"falls to 0 in epoch {optim.epochs} now, and not in epoch {before}",
        "one_cycle": f"follows the cycle of {optim.epochs} epochs from epoch {done + 1} on, and followed that of "
        f"{before} before",
        "constant": "stays as it is",
    }
    course = courses.get(Schedule.parse(optim.schedule).name, "goes on by the same epochs as before")
    return f"longer: {optim.epochs} epochs in place of {before}; the learning rate {course}"


def _move(schedule: LRScheduler, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    """Put a schedule and the learning rate where those of a run of `epochs` epochs would be."""
    if isinstance(schedule, torch.optim.lr_scheduler.CosineAnnealingLR):
        schedule.T_max = epochs
        rates = schedule._get_closed_form_lr()
    elif isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
        rates = [
            base * factor(schedule.last_epoch)
            for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        ]
    else:
        return
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        set_group_rate(group, float(rate))
    follow(optimizer)
    schedule._last_lr = [group["lr"] for group in optimizer.param_groups]
