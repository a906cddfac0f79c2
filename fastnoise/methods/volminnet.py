"""VolMinNet (Li et al. 2021, "Provably End-to-end Label-noise Learning without Anchor Points")."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses import ForwardLoss
from ..models import Network, Outputs
from .base import Method, Setting
from .correction import share_right
from .options import VolMinNetOptions

MOMENTUM = 0.9
"""Of T's SGD, and of the first moments of its Adam."""

SECOND_MOMENTUM, EPSILON = 0.999, 1e-8
"""Of T's Adam: PyTorch's defaults, which the authors take."""


class VolumeMinimisation(Method):
    """Forward correction with a transition matrix T that is trained beside the network.

    T is A with each row divided by its sum, A = I + sigmoid(W) off the diagonal and 1 on it. The loss is

        mean of -log (T^T p)_y + strength * log |det T|

    Many T explain the noisy labels together with some p. The second term takes the T of least volume, which under weak
    conditions is the true one: T needs neither samples that surely belong to a class, nor a network trained before.

    The run's optimiser has the network alone. W has a rate and an optimiser of its own, without weight decay, which
    takes a step after each of the network's. The rate follows the run's schedule, as the authors' does. T's gradient
    is formed in closed form beside the fused loss: dT = P^T Y, where row b of P is -p / (B (T^T p)_y) and that of Y is
    the label as one-hot, plus strength * T^-T. Several processes take the mean of their gradients.
    """

    weighted = parallel = True
    name = "volminnet"
    Options = VolMinNetOptions
    criterion: ForwardLoss
    weights: Tensor
    gradient: Tensor
    moment: Tensor
    second_moment: Tensor
    steps: Tensor
    rate: Tensor
    log_volume: Tensor
    volume_gradient: Tensor

    def __init__(self, options: VolMinNetOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.settings = options
        self.full_rate = 0.0
        initial = first_weight(num_classes) if options.initial == "auto" else options.initial
        self.register_buffer("weights", torch.full((num_classes, num_classes), initial))
        transition = transition_of(self.weights)
        self.criterion = ForwardLoss(transition)
        self.register_buffer("gradient", torch.zeros_like(transition), persistent=False)
        self.register_buffer("moment", torch.zeros_like(transition))
        self.register_buffer("second_moment", torch.zeros_like(transition))
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("rate", torch.tensor(options.transition_rate))
        log_volume, volume_gradient = volume(transition)
        self.register_buffer("log_volume", log_volume)
        self.register_buffer("volume_gradient", volume_gradient)

    def configure(self, setting: Setting) -> None:
        self.full_rate = setting.optim.learning_rate

    def at_rate(self, learning_rate: float) -> None:
        self.rate.fill_(self.settings.transition_rate * learning_rate / self.full_rate)

    def loss(self, outputs: Outputs, labels: Tensor, index: Tensor) -> Tensor:
        weight = self.weight_of(labels)
        loss: Tensor = self.criterion(outputs.logits, labels, **weight)
        self.gradient.copy_(likelihood_gradient(outputs.logits, labels, self.criterion.columns, **weight))
        return loss + self.settings.strength * self.log_volume

    @torch.no_grad()
    def after_update(self, networks: Sequence[Network]) -> None:
        self.shards.sum_(self.gradient)
        slope = self.gradient / self.shards.size + self.settings.strength * self.volume_gradient
        with torch.enable_grad():
            weights = self.weights.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(transition_of(weights), weights, slope)
        if self.settings.transition_optimizer == "adam":
            self.weights.sub_(self.rate * self._adam(gradient))
        else:
            self.weights.sub_(self.rate * self.moment.mul_(MOMENTUM).add_(gradient))
        transition = transition_of(self.weights)
        self.criterion.columns.copy_(transition.T)
        for own, found in zip((self.log_volume, self.volume_gradient), volume(transition), strict=True):
            own.copy_(found)

    def _adam(self, gradient: Tensor) -> Tensor:
        """Adam's step for a rate of 1. The number of steps is on the device, as a captured step needs it."""
        self.steps += 1
        self.moment.lerp_(gradient, 1 - MOMENTUM)
        self.second_moment.lerp_(gradient.square(), 1 - SECOND_MOMENTUM)
        first = self.moment / (1 - MOMENTUM**self.steps)
        second = self.second_moment / (1 - SECOND_MOMENTUM**self.steps)
        return first / (second.sqrt() + EPSILON)

    def report(self) -> dict[str, float]:
        """The estimated share of labels that are right, and what T's volume has come to."""
        return {**share_right(self.criterion), "transition_log_volume": float(self.log_volume)}


def first_weight(num_classes: int) -> float:
    """W's entries at first: -2 up to ten classes, as the authors have it. For more, T's diagonal begins as high as for
    ten: -4.51 for 100, for which they have -4.5."""
    flips = 9 / (1 + math.exp(2)) / (num_classes - 1)
    return min(-2.0, math.log(flips / (1 - flips))) if num_classes > 10 else -2.0


def transition_of(weights: Tensor) -> Tensor:
    """T[true, noisy], [C, C], of W [C, C], whose diagonal counts for nothing."""
    identity = torch.eye(len(weights), device=weights.device)
    rows = identity + (1 - identity) * weights.sigmoid()
    return rows / rows.sum(1, keepdim=True)


def volume(transition: Tensor) -> tuple[Tensor, Tensor]:
    """log |det T| [], and its gradient T^-T [C, C].

    By the LU decomposition that reports nothing to the host: slogdet and inv would wait for the device.
    """
    factors, pivots, _ = torch.linalg.lu_factor_ex(transition)
    identity = torch.eye(len(transition), device=transition.device)
    return factors.diagonal().abs().log().sum(), torch.linalg.lu_solve(factors, pivots, identity, adjoint=True)


def likelihood_gradient(logits: Tensor, labels: Tensor, columns: Tensor, weight: Tensor | None = None) -> Tensor:
    """The gradient [C, C] in T of ForwardLoss for logits [B, C], labels [B] and factors [B] of the samples' losses.

    columns: [C, C] float32, T transposed.
    """
    with torch.autocast(logits.device.type, enabled=False):
        probs = logits.detach().float().softmax(1)
        factors = -1 / (len(labels) * (probs * columns[labels]).sum(1))
        if weight is not None:
            factors = factors * weight
        chosen = labels[:, None] == torch.arange(len(columns), device=labels.device)
        return (probs * factors[:, None]).T @ chosen.float()
