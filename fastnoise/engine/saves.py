"""When a checkpoint is due."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..schedules import SaveEvery

SHARE = 0.02
"""Of the time that may go into checkpoints with --save-every auto: once a write has taken s seconds, the next comes
s / SHARE = 50 s later. A checkpoint of a small network takes milliseconds and comes every second; 170 MB on a slow disk
take half a second and come every half minute, where one after each epoch of 1.4 s would take a quarter of the run. What
a kill costs is as many seconds again, however long the run."""

FIRST = 60.0
"""Seconds until the first of these inside an epoch, when nothing is known of how long one takes."""


class SaveClock:
    """Says when the next checkpoint is due, from the time that has gone by since the last one was written, or since the
    start. Epochs are counted from the run's first, so that a resumed run saves after the same ones."""

    def __init__(self, every: SaveEvery):
        self.every = every
        self._took: float | None = None
        self._last = time.perf_counter()
        self.occupied: Callable[[], bool] = lambda: False
        """Whether the last one is being written still; the next then comes later, so that nobody waits for it."""

    def due(self) -> bool:
        """Whether enough time has passed for a checkpoint, inside an epoch or at its end."""
        if self.every.epochs is not None or self.occupied():
            return False
        wait = self.every.seconds
        if wait is None:
            wait = FIRST if self._took is None else self._took / SHARE
        return time.perf_counter() - self._last >= wait

    def due_after(self, epoch: int) -> bool:
        """Whether a checkpoint is due at the end of `epoch`, counted from 1."""
        if self.every.epochs is not None:
            return epoch % self.every.epochs == 0
        first = self.every.seconds is None and self._took is None  # shows early whether there is room for one
        return first or self.due()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around the writing of a checkpoint."""
        began = time.perf_counter()
        yield
        self._last = time.perf_counter()
        self._took = self._last - began

    def took(self, seconds: float) -> None:
        """Say how long the last checkpoint took to be written in the background."""
        self._took = seconds + (self._took or 0.0)
