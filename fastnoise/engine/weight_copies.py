"""The bfloat16 copies of weights with which the forward pass computes, so that autocast has none to make."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.conv import _ConvNd

from ..ops.optimizer import OneLaunch

LAYERS = (nn.Linear, _ConvNd)
"""Layers that autocast runs in bfloat16 with all their weights."""


class WeightCopies:
    """Copies of the weights of convolutions and linear layers, written by the optimiser's kernel.

    Autocast casts each such weight to bfloat16 in every forward pass, and its gradient back. The copy is the same
    number, and so is its gradient before it is cast: only the passes over memory are saved.

    Args:
        networks: whose trained weights are the optimiser's.
    """

    def __init__(self, networks: Sequence[nn.Module], optimizer: OneLaunch):
        self.optimizer = optimizer
        places = [
            (layer, name, weight)
            for network in networks
            for layer in network.modules()
            if isinstance(layer, LAYERS)
            for name, weight in layer.named_parameters(recurse=False)
            if weight.requires_grad
        ]
        optimizer.keep_copies(list(dict.fromkeys(weight for _, _, weight in places)))
        self._places = [(layer, name, weight, optimizer.copies[weight]) for layer, name, weight in places]
        self._versions = self._seen()

    def _seen(self) -> list[int]:
        return [weight._version for weight in self.optimizer.copies]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The layers compute with the copies, for a forward pass and its backward pass."""
        for layer, name, _, copy in self._places:
            layer._parameters[name] = copy
        try:
            yield
        finally:
            for layer, name, weight, _ in self._places:
                layer._parameters[name] = weight

    def renew(self) -> None:
        """Before steps: bring the copies up to weights that others have changed, such as a checkpoint's."""
        if self._seen() != self._versions:
            self.optimizer.renew_copies()
            self.stepped()

    def stepped(self) -> None:
        """After a step outside a graph's replay: what has changed the weights was the optimiser."""
        self._versions = self._seen()
