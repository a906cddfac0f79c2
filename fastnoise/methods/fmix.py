"""FMix (Harris et al. 2020, "FMix: Enhancing Mixed Sample Data Augmentation"): pairs of images in parts."""

import math

import torch
from torch import Tensor, nn

from ..data.views import uniform
from .base import random_numbers

DECAY = 3.0
"""Power by which the amplitude of a mask's frequencies falls."""


class FMix(nn.Module):
    """One mask for a batch: an image keeps its pixels where the mask is 1 and has its partner's where it is 0.

    The share of ones is uniform in [0, 1], Beta(1, 1); they stand where a random image of low frequencies is largest.
    That image is made of numbers that a captured step draws from a key, so that a mask never has to be sent.

    Args:
        purpose: of the random numbers; masks of several networks and heads take several.
    """

    share: Tensor
    """float32 [], the share that is asked for; a mask has it but for rounding to whole pixels."""
    key: Tensor

    def __init__(self, purpose: int):
        super().__init__()
        self.purpose = purpose
        self.register_buffer("share", torch.ones(()))
        self.register_buffer("key", torch.zeros((), dtype=torch.int64))

    def draw(self, epoch: int, batch: int, seed: int) -> None:
        """Draw a step's mask, a function of (seed, epoch, batch); nothing waits for the device."""
        random = random_numbers(seed, (epoch << 32) + batch, self.purpose)
        self.share.fill_(float(random.random()))
        self.key.fill_(int(random.integers(2**63)))

    def mask(self, height: int, width: int) -> Tensor:
        """float32 [H, W] of ones and zeros. The number of ones is share * H * W, rounded up or down at random."""
        half = width // 2 + 1
        draws = uniform(self.key, 2 * height * half + 1)
        real, imaginary = low_frequencies(draws[:-1], height, width)
        field = inverse_fourier(real, imaginary, width).flatten()
        ones = (self.share * (height * width) + draws[-1]).floor()
        places = field.argsort(descending=True, stable=True)
        chosen = (torch.arange(len(places), device=places.device) < ones).float()
        return torch.zeros_like(chosen).scatter(0, places, chosen).view(height, width)

    def mix(self, images: Tensor, mates: Tensor) -> Tensor:
        """images [B, C, H, W] with the parts of their partners; mates: int64 [B], the partners' places."""
        theirs = images[mates].contiguous(memory_format=torch.channels_last)
        return torch.where(self.mask(*images.shape[2:]) > 0, images, theirs)


def low_frequencies(draws: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts [H, W // 2 + 1] of a spectrum: normal numbers, from as many uniform ones, over the
    frequency to the power DECAY."""
    half = width // 2 + 1
    radius, angle = (-2 * (1 - draws[::2]).log()).sqrt(), 2 * math.pi * draws[1::2]
    down = torch.arange(height, device=draws.device)
    down = torch.where(down < (height + 1) // 2, down, down - height).float() / height
    across = torch.arange(half, device=draws.device) / width
    frequency = (down[:, None].square() + across.square()).sqrt()
    scale = frequency.clamp(min=1 / max(width, height)) ** -DECAY
    return scale * (radius * angle.cos()).view(height, half), scale * (radius * angle.sin()).view(height, half)


def inverse_fourier(real: Tensor, imaginary: Tensor, width: int) -> Tensor:
    """`torch.fft.irfft2` times H * W for [H, W // 2 + 1], as products of matrices, which compilers take."""
    height, half = real.shape
    with torch.autocast(real.device.type, enabled=False):
        rows = torch.arange(height, device=real.device)
        turn = (2 * math.pi / height) * (rows[:, None] * rows % height)
        sine, cosine = turn.sin(), turn.cos()
        real, imaginary = cosine @ real - sine @ imaginary, sine @ real + cosine @ imaginary
        columns = torch.arange(half, device=real.device)
        turn = (2 * math.pi / width) * (columns[:, None] * torch.arange(width, device=real.device) % width)
        once = (columns == 0) | (2 * columns == width)
        twice = torch.where(once, 1.0, 2.0)  # of a real image, half of whose spectrum is here
        return (real * twice) @ turn.cos() - (imaginary * twice) @ turn.sin()
