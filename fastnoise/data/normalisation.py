"""Which mean and standard deviation images are normalised with, in words. Imports no torch."""

import math

from ..errors import ConfigError, nearest

WORDS = ("dataset", "weights", "cifar10", "imagenet", "none")
"""What --normalisation can be beside numbers."""

Numbers = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of pixels scaled to 0..1."""


def parse(text: str) -> str | Numbers:
    """Read a word of WORDS, or mean and standard deviation of each channel: 0.485,0.456,0.406/0.229,0.224,0.225.

    ConfigError for other words, means outside [0, 1], deviations that are not positive, or another number of one than
    of the other.
    """
    if text in WORDS:
        return text
    flag = f"--normalisation {text}"
    example = "write mean and standard deviation of each channel as 0.485,0.456,0.406/0.229,0.224,0.225"
    if not any(sign.isdigit() for sign in text):
        raise ConfigError(f"{flag}: unknown word; {nearest(text, list(WORDS))}; or {example}")
    parts = text.split("/")
    try:
        mean, std = (tuple(float(number) for number in part.split(",")) for part in parts)
    except ValueError:
        raise ConfigError(f"{flag}: neither a word nor two lists of numbers; {example}") from None
    if len(mean) != len(std):
        raise ConfigError(f"{flag}: {len(mean)} means and {len(std)} standard deviations; {example}")
    if not all(0 <= value <= 1 for value in mean):
        raise ConfigError(f"{flag}: means lie in [0, 1], since pixels are scaled to it; {example}")
    if not all(0 < value < math.inf for value in std):
        raise ConfigError(f"{flag}: standard deviations must be positive; {example}")
    return mean, std


def written(numbers: Numbers) -> str:
    """The numbers as `parse` reads them."""
    return "/".join(",".join(repr(float(value)) for value in part) for part in numbers)
