"""--fused-head: which runs leave the last layer's logits to the loss."""

from collections.abc import Iterable

import torch
from torch import nn

from .. import own
from ..config import RunConfig
from ..errors import ConfigError
from ..methods import Method
from ..models import Network
from ..models.heads import chooses_fused_head


def fuse_heads(config: RunConfig, method: Method, networks: Iterable[nn.Module], device: torch.device) -> None:
    """Fuse the last layer of a run's networks with the loss, if --fused-head says so.

    A run that can't have it: with "on" ConfigError, with "auto" its networks stay as they are.
    """
    setting = config.engine.fused_head
    if not chooses_fused_head(setting, device):
        return
    obstacle = ""
    if not method.fused_head:
        obstacle = f"method {own.short(config.method.method)}, as it is set, does more with logits than one loss"
    elif method.task.name != "classification":
        obstacle = f"task {method.task.name} has another loss than one of a softmax"
    elif method.class_weights is not None:
        obstacle = "--balance weights gives each sample a weight, which this operation has not"
    elif not all(isinstance(network, Network) and network.fuse_head() for network in networks):
        obstacle = f"{config.model.model} has no linear last layer of fastnoise's"
    if obstacle and setting == "on":
        raise ConfigError(f"--fused-head on: {obstacle}; drop the option")
