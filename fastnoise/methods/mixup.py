"""Mixup (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"): convex mixtures of pairs of samples."""

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from .base import random_numbers

PURPOSE = 0
"""Of the random numbers, among those that methods draw."""


class Mixup(nn.Module):
    """One share per batch, drawn from Beta(alpha, alpha) on the host; `share` float32 [] holds it on the device.

    Each sample's partner is the one before it in the batch, the first one's the last. Batches are drawn at random, so
    that this is a pairing at random, without a permutation that would have to be drawn inside a captured step.

    Args:
        alpha: both parameters of the Beta distribution; 0 mixes nothing.
        first_dominates: take max(share, 1 - share), so that a mixture keeps the identity of its first sample.
        purpose: of the random numbers; two networks with shares of their own take two.
    """

    share: Tensor

    def __init__(self, alpha: float, *, first_dominates: bool = False, purpose: int = PURPOSE):
        super().__init__()
        self.alpha, self.first_dominates, self.purpose = alpha, first_dominates, purpose
        self.register_buffer("share", torch.ones(()))

    def draw(self, epoch: int, batch: int, seed: int) -> None:
        """Draw the share of a step, a function of (seed, epoch, batch)."""
        if not self.alpha:
            return
        share = float(random_numbers(seed, (epoch << 32) + batch, self.purpose).beta(self.alpha, self.alpha))
        self.share.fill_(max(share, 1 - share) if self.first_dominates else share)

    def mix(self, values: Tensor) -> Tensor:
        """share * values + (1 - share) * the partners' values; [B, ...], in the memory format of `values`."""
        return blend(self.share, values, partners(values))


def blend(share: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """share * first + (1 - share) * second, in their dtype and memory format.

    Half precision would round the share itself, and with it the mixtures of all images of a batch the same way, so the
    arithmetic is float32's, rounded once.
    """
    wide = torch.promote_types(first.dtype, torch.float32)
    share = share.to(wide)
    return (share * first.to(wide) + (1 - share) * second.to(wide)).to(first.dtype)


def partners(values: Tensor) -> Tensor:
    """What belongs to each sample's partner; [B, ...], in the memory format of `values`, which roll would lose."""
    return torch.cat([values[-1:], values[:-1]])


# -- pairs that are not neighbours in the batch: i and (a i + b) mod size, a permutation that a captured step makes of
# two numbers


@cache
def _strides(size: int) -> np.ndarray:
    """The numbers below `size` that are prime to it."""
    return np.flatnonzero(np.gcd(np.arange(size), size) == 1)


def draw_pairing(pairing: Tensor, size: int, random: np.random.Generator) -> None:
    """Write a and b, int64 [2], for a batch of `size` samples; nothing waits for the device."""
    pairing[0].fill_(int(random.choice(_strides(size))))
    pairing[1].fill_(int(random.integers(size)))


def mates(pairing: Tensor, size: int) -> Tensor:
    """int64 [size]: the place of each sample's partner."""
    return (pairing[0] * torch.arange(size, device=pairing.device) + pairing[1]) % size


def gone_through(pool: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` of the pool in random order; one that is too small is gone through as often as needed, each time anew."""
    rounds = -(-count // len(pool))
    return np.concatenate([random.permutation(pool) for _ in range(rounds)])[:count]
