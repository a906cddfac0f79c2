"""Shared by the tests of label noise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import pytest

from fastnoise.errors import FastnoiseError

Result = TypeVar("Result")


def cyclic(count: int, num_classes: int = 10) -> np.ndarray:
    """Labels 0, 1, ..., num_classes - 1, 0, 1, ..."""
    return np.arange(count) % num_classes


@contextmanager
def refused(kind: type[FastnoiseError], *parts: str) -> Iterator[None]:
    """The block raises `kind` with one line that holds every part."""
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def result_or_refusal(call: Callable[[], Result]) -> Result | None:
    """What the call returns, or None where it refuses in one line. Any other exception fails the test."""
    try:
        return call()
    except FastnoiseError as error:
        message = str(error)
    assert "\n" not in message
    return None


def core_number(seed: int, purpose: int, sample: int, attempt: int) -> int:
    """A sample's 16 bits in plain integers, straight from the description in csrc/core/draws.hpp."""
    group, j = divmod(sample, 64)
    block = 8 * group + j % 32 // 4
    x = [block & 0xFFFFFFFF, block >> 32, purpose, attempt]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(7):
        p0, p1 = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [p1 >> 32 ^ x[1] ^ k0, p1 & 0xFFFFFFFF, p0 >> 32 ^ x[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = k0 + 0x9E3779B9 & 0xFFFFFFFF, k1 + 0xBB67AE85 & 0xFFFFFFFF
    return x[j // 32 * 2 + j % 4 // 2] >> 16 * (j % 2) & 0xFFFF


def core_uniform(seed: int, sample: int) -> int:
    """The 48 bits that lie below rate 2^48 where a sample's label flips."""
    high, middle, low = (core_number(seed, 0, sample, attempt) for attempt in range(3))
    return high << 32 | middle << 16 | low
