"""The optimiser of a run and its learning rate: made, saved ones taken up, begun anew."""

from typing import Any, Literal

import torch
from torch import Tensor

from ..config import EngineConfig, OptimConfig
from ..errors import ConfigError
from ..ops import optimizer as kernels
from ..schedules import Optimizer, Schedule
from .layer_rates import follow, parameter_groups

LRScheduler = torch.optim.lr_scheduler.LRScheduler

AUTO_OPTIMIZER_KERNEL: Literal["torch", "triton"] = "torch"
"""What `--optimizer-kernel auto` takes on a GPU: PyTorch's, until a GPU has shown Triton's to make steps faster
(`benchmarks.gpu`)."""


def choose_optimizer_kernel(config: EngineConfig, device: torch.device) -> str:
    """What makes the updates on `device`, torch or triton, as `--optimizer-kernel` says. ConfigError if it cannot."""
    if config.optimizer_kernel == "auto":
        return AUTO_OPTIMIZER_KERNEL if device.type == "cuda" else "torch"
    if config.optimizer_kernel == "triton" and device.type != "cuda":
        raise ConfigError("--optimizer-kernel triton needs a GPU; on a CPU use torch")
    return config.optimizer_kernel


def create_optimizer(
    config: OptimConfig, networks: torch.nn.Module, *, capturable: bool = False, kernel: str = "torch"
) -> torch.optim.Optimizer:
    """One optimiser over all networks: PyTorch's fused form, which exists for CPUs and GPUs alike, or that of the same
    name in one Triton kernel (`fastnoise.ops.optimizer`).

    With `capturable` the learning rate is a tensor on the device, so that a captured graph follows its schedule. The
    backbones may have groups of their own with other rates (`parameter_groups`). `kernel`: torch or triton; ConfigError
    if the networks have weights that Triton's cannot take.
    """
    choice = Optimizer.parse(config.optimizer)
    parameters, decay = parameter_groups(config, networks), config.weight_decay
    rate: float | Tensor = config.learning_rate
    if capturable:
        rate = torch.tensor(config.learning_rate, device=next(networks.parameters()).device)
        for group in parameters:
            if isinstance(group, dict):
                group["lr"] = rate.clone()
    made: torch.optim.Optimizer
    if kernel == "triton":
        made = _in_one_launch(choice, parameters, rate, decay, capturable)
    elif choice.name == "sgd":
        made = torch.optim.SGD(
            parameters, rate, momentum=choice.momentum, weight_decay=decay, nesterov=choice.nesterov, fused=True
        )
    else:
        kind = torch.optim.Adam if choice.name == "adam" else torch.optim.AdamW
        made = kind(parameters, rate, weight_decay=decay, fused=True, capturable=capturable)
    follow(made)
    return made


def _in_one_launch(
    choice: Optimizer, parameters: list[Any], rate: float | Tensor, decay: float, capturable: bool
) -> kernels.OneLaunch:
    try:
        if choice.name == "sgd":
            return kernels.SGD(parameters, rate, momentum=choice.momentum, weight_decay=decay, nesterov=choice.nesterov)
        decoupled = choice.name == "adamw"
        return kernels.Adam(
            parameters, rate, weight_decay=decay, capturable=capturable, decoupled_weight_decay=decoupled
        )
    except ValueError as error:
        raise ConfigError(f"--optimizer-kernel triton: {error}; use torch") from None


def create_schedule(config: OptimConfig, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """The learning rate's course, stepped once per epoch."""
    choice = Schedule.parse(config.schedule)
    schedulers = torch.optim.lr_scheduler
    if choice.name == "multistep":
        return schedulers.MultiStepLR(optimizer, list(choice.milestones), choice.gamma)
    if choice.name == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, config.epochs, eta_min=choice.minimum)
    if choice.name == "cosine_restarts":
        return schedulers.CosineAnnealingWarmRestarts(optimizer, choice.period, eta_min=choice.minimum)
    if choice.name == "linear":
        start, length = choice.milestones[0], max(1, config.epochs - choice.milestones[0])
        return schedulers.LambdaLR(optimizer, lambda epoch: min(1.0, max(0.0, 1 - (epoch - start) / length)))
    if choice.by_step:  # `StepCourse` sets the rate of each step; this one counts the epochs
        return schedulers.LambdaLR(optimizer, lambda epoch: choice.share(epoch / config.epochs))
    return schedulers.ConstantLR(optimizer, factor=1.0, total_iters=0)


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    schedule: LRScheduler | None = None,
    course: dict[str, Any] | None = None,
) -> None:
    """Take up the states of an optimiser and its schedule, which may come from another device or gear.

    Both `load_state_dict` put what was saved in place of the learning rate: a number, or a tensor on the CPU, either
    of which a captured graph would keep for good. It stays of the optimiser's own kind, and in place.
    """
    own = [(group["lr"], group.get("capturable")) for group in optimizer.param_groups]
    first = own[0][0]
    optimizer.load_state_dict(state)
    for group, (rate, capturable) in zip(optimizer.param_groups, own, strict=True):
        saved = group["lr"]
        group["lr"] = rate.copy_(_like(rate, saved)) if isinstance(rate, Tensor) else _like(rate, saved)
        if "initial_lr" in group:
            group["initial_lr"] = _like(first, group["initial_lr"])
        if capturable is not None:
            group["capturable"] = capturable
    if schedule is None or course is None:
        return
    schedule.load_state_dict(course)
    schedule.base_lrs = [_like(first, rate) for rate in schedule.base_lrs]
    schedule._last_lr = [_like(first, rate) for rate in schedule._last_lr]


def _like(own: float | Tensor, value: float | Tensor) -> Any:
    """A number, or a tensor of its own, as `own` is."""
    if isinstance(own, Tensor):
        return torch.as_tensor(value, dtype=own.dtype).to(own.device, copy=True)
    return float(value)


def reset_optimizer(optimizer: torch.optim.Optimizer) -> bool:
    """Zero the optimiser's state in place: a fresh optimiser at the same addresses, as a captured graph needs it.

    If only some of the trained parameters have a state, as when one of two networks has been trained alone, the state
    is dropped instead, since PyTorch's fused SGD takes no parameters with and without momenta together. Returns whether
    it is: a captured graph must then be captured anew.
    """
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    if optimizer.state and not all(parameter in optimizer.state for parameter in trained):
        optimizer.state.clear()
        return True
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                value.zero_()
    return False


def captured(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Call this after the capture of a graph with steps of the optimiser, before it is replayed. What is returned is
    to be kept as long as the graph."""
    return optimizer.captured() if isinstance(optimizer, kernels.OneLaunch) else []
