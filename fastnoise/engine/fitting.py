"""Layers that are made from a run's own images before its first step."""

import torch
from torch import nn

from ..config import RunConfig
from ..data import Loader
from ..models import Network
from ..models.names import FITTED

IMAGES = 5000
"""The first of the training set, of which the layers are made."""


@torch.no_grad()
def fit_networks(config: RunConfig, networks: nn.ModuleList, loader: Loader) -> None:
    """Let the networks of a run that begins make their frozen layers from its first training images.

    Args:
        networks: with their first weights. Those that begin from an encoder's file have its layers, and keep them.
        loader: gives the training images in order, as the networks get them in evaluation.
    """
    if config.model.model not in FITTED or config.model.encoder is not None:
        return
    parts, count = [], 0
    for batch, _ in loader.epoch(0):
        parts.append(batch.float().cpu())
        count += len(batch)
        if count >= IMAGES:
            break
    images = torch.cat(parts)[:IMAGES]
    for network in networks:
        assert isinstance(network, Network)
        network.backbone.fit(images)
