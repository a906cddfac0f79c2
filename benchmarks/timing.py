"""Times of short calls, taken in turn in one process so that a busy machine slows all alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """A median between the 20th and the 80th percentile."""

    low: float
    median: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(*(float(value) for value in np.quantile(values, [0.2, 0.5, 0.8])))


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call; each is made once before, unmeasured."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def copy_bandwidth(size: int = 1 << 28, rounds: int = 5) -> float:
    """Bytes read and written per second by one thread that copies `size` bytes."""
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    return 2 * size / in_turn({"copy": lambda: np.copyto(target, source)}, rounds)["copy"]
