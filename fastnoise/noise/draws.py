"""A counter-based generator in NumPy, Philox4x32-10, for models that need more than one pass over labels.

A sample's numbers depend on the seed, its position and their purpose alone, never on the number of samples, chunks or
threads. The compiled core draws other ones: 16 bits at a time, of Philox4x32-7 (csrc/core/draws.hpp).
"""

import math
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
Reals = NDArray[np.float64]

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


class Purpose(IntEnum):
    """What a number is drawn for."""

    FLIP = 0
    TARGET = 1
    SEQUENCE = 16  # which samples flip in the sequential variant of class maps; its attempts count classes
    PAIRS = 17  # the class pairs of the map "sce"
    SAMPLE_RATE = 18  # a sample's own flip rate, instance-dependent noise
    PROJECTION = 19  # the entries of a random projection
    POSTERIOR = 20  # most likely or second class, PMD
    HYBRID_SEED = 21  # the seed of the noise that follows PMD
    SWAP = 22  # which positive labels are swapped, multi-label
    SWAP_TARGET = 23  # for which other label
    REGRESSION = 24  # the Gaussian of a real-valued label


def _philox(seed: int, purpose: Purpose, block: NDArray[np.uint64], attempt: int) -> Words:
    """uint32 [4, B]: the words of counters (block, purpose, attempt) under the key `seed`."""
    x0, x1 = block & _LOW, block >> _HALF
    x2, x3 = np.full_like(block, purpose), np.full_like(block, attempt)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * x0, np.uint64(0xCD9E8D57) * x2
        x0, x1 = (p1 >> _HALF) ^ x1 ^ np.uint64(k0), p1 & _LOW
        x2, x3 = (p0 >> _HALF) ^ x3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3]).astype(np.uint32)


def words(seed: int, purpose: Purpose, count: int, *, start: int = 0, attempt: int = 0) -> Words:
    """uint32 [count]: the words of samples start .. start + count - 1."""
    first, last = start // 64, -(-(start + count) // 64)
    block = np.arange(first * 16, last * 16, dtype=np.uint64)
    groups = _philox(seed, purpose, block, attempt).reshape(4, last - first, 16)
    return groups.transpose(1, 0, 2).reshape(-1)[start - first * 64 :][:count]


def words_at(seed: int, purpose: Purpose, positions: NDArray[np.intp], *, attempt: int = 0) -> Words:
    """uint32 [M]: the words of the samples at these positions."""
    block = (positions // 64 * 16 + positions % 16).astype(np.uint64)
    return _philox(seed, purpose, block, attempt)[positions % 64 // 16, np.arange(len(positions))]


def wide_words(seed: int, purpose: Purpose, count: int, *, start: int = 0, attempt: int = 0) -> NDArray[np.uint64]:
    """uint64 [count] from attempts 2 attempt (upper half) and 2 attempt + 1 (lower half)."""
    high = words(seed, purpose, count, start=start, attempt=2 * attempt).astype(np.uint64)
    return high << _HALF | words(seed, purpose, count, start=start, attempt=2 * attempt + 1)


def wide_words_at(seed: int, purpose: Purpose, positions: NDArray[np.intp], *, attempt: int = 0) -> NDArray[np.uint64]:
    """`wide_words` of the samples at these positions."""
    high = words_at(seed, purpose, positions, attempt=2 * attempt).astype(np.uint64)
    return high << _HALF | words_at(seed, purpose, positions, attempt=2 * attempt + 1)


def uniforms(seed: int, purpose: Purpose, count: int, *, start: int = 0) -> Reals:
    """float64 [count] in the open interval (0, 1), of 52 bits, so that the ends and rounding to them are impossible."""
    whole = wide_words(seed, purpose, count, start=start) >> np.uint64(12)
    return (whole.astype(np.float64) + 0.5) * 2.0**-52


def normals(seed: int, purpose: Purpose, count: int, *, start: int = 0) -> Reals:
    """float64 [count], standard normal, by the inverse of its distribution function on 32 bits (|x| below 6.3)."""
    from scipy.special import ndtri

    scores: Reals = ndtri((words(seed, purpose, count, start=start) + 0.5) * 2.0**-32)
    return scores


def first_of(keys: NDArray[np.uint64], count: int) -> NDArray[np.bool_]:
    """bool [N]: the `count` least keys, of equal ones the first; a uniform draw without replacement, which nests as it
    grows."""
    if not 0 < count < len(keys):
        return np.full(len(keys), count > 0)
    last = np.partition(keys, count - 1)[count - 1]
    chosen = keys < last
    chosen[np.flatnonzero(keys == last)[: count - np.count_nonzero(chosen)]] = True
    return chosen


def quota(rate: float, count: int) -> int:
    """The whole samples in a share of `count`, as the core counts them: 0.29 of 100 is 29, though the product of
    doubles falls short of it, by two units in the last place at most."""
    return min(count, int(rate * count * (1 + 2.0**-51)))


def quota_up(rate: float, count: int) -> int:
    """`quota`, rounded up."""
    return math.ceil(rate * count * (1 - 2.0**-51))
