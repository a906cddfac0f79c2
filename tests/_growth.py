"""How the time of some work grows with its size: seconds themselves are another on each machine."""

import gc
import time
from collections.abc import Callable


def growth(prepare: Callable[[int], Callable[[], object]], size: int, times: int = 4) -> float:
    """CPU time at `times` the size over that at the size, each the least of three; `times` where it is linear.

    Args:
        prepare: gives the work of a size, to be done once.
        size: large enough that the work takes some milliseconds.
        times: how much larger the other size is.
    """

    def seconds(size: int) -> float:
        least = float("inf")
        for _ in range(3):
            work = prepare(size)
            gc.disable()  # what other tests have left would be looked through
            try:
                began = time.process_time()
                work()
                least = min(least, time.process_time() - began)
            finally:
                gc.enable()
        return least

    return seconds(times * size) / seconds(size)
