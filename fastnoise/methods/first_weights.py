"""Networks as they were drawn, for methods that train them twice."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn

from ..models import Network


class FirstWeights(nn.Module):
    """The networks as they were before their first step, to train them anew."""

    def __init__(self, networks: Sequence[Network]):
        super().__init__()
        self.copies = nn.ModuleList(deepcopy(network) for network in networks).requires_grad_(False)

    @torch.no_grad()
    def restore(self, networks: Sequence[Network]) -> None:
        """Give the networks their first weights and statistics back, in place."""
        for network, first in zip(networks, self.copies, strict=True):
            network.load_state_dict(first.state_dict())
