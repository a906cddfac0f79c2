"""Faults of one of two processes that train together."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def arranged(fault: str) -> Iterator[None]:
    """Let this process meet a fault at a training step, as "nan:1:5" says: kind, rank, step from 1. "": none.

    nan: the loss is NaN. signal: SIGTERM. image: an image cannot be decoded. disk: the disk is full when the table of
    the checkpoint of this number is written. large: no fault, but every table counts as a large one. memory: they do,
    and there is none for copies.
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
        return before(self, images, index)

    from fastnoise.engine import background, checkpoint

    write, writes = checkpoint.write_atomically, [0]

    def full(path: Path, fill: Callable[[BinaryIO], object]) -> None:
        table = path.name.startswith("tables")
        writes[0] += table

        def failing(stream: BinaryIO) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        fails = table and kind == "disk" and writes[0] == int(step) and os.environ["RANK"] == rank
        write(path, failing if fails else fill)

    apart, free = checkpoint.APART, background.free_memory
    checkpoint.APART = 0 if kind in ("large", "memory") else apart
    if kind == "memory" and os.environ["RANK"] == rank:
        background.free_memory = lambda device: 1000
    Step.train, checkpoint.write_atomically = train, full  # type: ignore[method-assign]
    try:
        yield
    finally:
        checkpoint.APART, background.free_memory = apart, free
        Step.train, checkpoint.write_atomically = before, write  # type: ignore[method-assign]
