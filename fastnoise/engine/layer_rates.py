"""Learning rates by layer: groups of parameters whose rates are fixed shares of the run's learning rate."""

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import OptimConfig, RunConfig
from ..models import Network
from ..models.depth import layer_depths

SHARE = "share"
"""Of a group: its rate as a share of that of the first group, which is the run's learning rate."""


def by_layers(config: RunConfig) -> bool:
    """Whether a run treats the backbone otherwise than the heads, so that its networks must have one."""
    return config.model.freeze == "backbone" or config.optim.backbone_rate != 1 or config.optim.layer_decay != 1


def parameter_groups(config: OptimConfig, networks: nn.Module) -> list[Any]:
    """The parameters of the networks, as an optimiser takes them.

    If all have the same rate, the parameters in their order. Otherwise groups by share, the first with share 1: the
    heads, and what methods have added. A parameter of a backbone, d layers before the heads, has the share
    `backbone_rate * layer_decay^d` (Clark et al. 2020, ELECTRA, arXiv:2003.10555; Bao et al. 2022, BEiT,
    arXiv:2106.08254).

    ConfigError if there is a layer decay and the order of a network's layers is not known.
    """
    if config.backbone_rate == 1 and config.layer_decay == 1:
        return list(networks.parameters())
    shares: dict[nn.Parameter, float] = {}
    for network in networks.modules():
        if not isinstance(network, Network):
            continue
        depths, heads = layer_depths(network.backbone) if config.layer_decay != 1 else ({}, 0)
        for name, parameter in network.backbone.named_parameters():
            shares[parameter] = config.backbone_rate * config.layer_decay ** (heads - depths.get(name, 0))
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for parameter in networks.parameters():
        groups.setdefault(shares.get(parameter, 1.0), []).append(parameter)
    return [{"params": parameters, SHARE: share} for share, parameters in groups.items()]


def follow(optimizer: Optimizer) -> None:
    """Give every group its share of the first group's rate, which a schedule has just set."""
    first, *others = optimizer.param_groups
    for group in others:
        set_group_rate(group, first["lr"] * group[SHARE])


def set_rate(optimizer: Optimizer, rate: float | Tensor) -> None:
    """Make `rate` the learning rate of a run: a number, or a scalar on the device, which may be a part of a graph."""
    set_group_rate(optimizer.param_groups[0], rate)
    follow(optimizer)


def set_group_rate(group: dict[str, Any], rate: float | Tensor) -> None:
    """Make `rate` the learning rate of a group of an optimiser's parameters."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)  # in place: a captured graph reads it there
    else:
        group["lr"] = rate
