"""Faults of one of two processes that train together."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def arranged(fault: str) -> Iterator[None]:
    """Let this process meet a fault at a training step, as "nan:1:5" says: kind, rank, step from 1. "": none.

    nan: the loss is NaN. signal: SIGTERM. image: an image cannot be decoded. kill: the process ends as by kill -9.
    """
    if not fault:
        yield
        return
    kind, rank, step = fault.split(":")
    from fastnoise.engine.step import Step
    from fastnoise.errors import DataError

    before, steps = Step.train, [0]

    def train(self: Step, images: Any, index: Any) -> Any:
        steps[0] += 1
        if steps[0] == int(step) and os.environ["RANK"] == rank:
            if kind == "nan":
                images = images * float("nan")
            elif kind == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            elif kind == "image":
                raise DataError("image 7.png is truncated")
            elif kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        return before(self, images, index)

    Step.train = train  # type: ignore[method-assign]
    try:
        yield
    finally:
        Step.train = before  # type: ignore[method-assign]
