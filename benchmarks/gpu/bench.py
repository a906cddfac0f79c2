"""What a step is given: where its figures go, how a side is tried, how much time is left."""

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from fastnoise.errors import FastnoiseError

from ..report import Figure
from ..timing import Spread
from . import records

T = TypeVar("T")


SHORT = 3.0
"""Seconds, or a tenth of a short step, in which no further side is begun: a step that ends itself keeps its worker."""


class Broken(Exception):
    """The CUDA context is of no more use; only another process can go on."""


class NotMeasured(Exception):
    """A step that cannot be had here; the message says why."""


class Bench:
    """What a step is given.

    Attributes:
        step: its name.
        limit: its seconds in all.
        on_gpu: whether there is a GPU; without one a step runs in miniature.
        folder: for traces and tables beside the records.
        data: the folder of the data sets.
    """

    def __init__(self, folder: Path, programme: str, half: int, data: Path, commit: str, events: int):
        self.folder, self.programme, self.half, self.data, self.commit = folder, programme, half, data, commit
        self.step = ""
        self.on_gpu = False
        self.stamp: records.Line = dict.fromkeys(records.STAMP, "unknown")
        self._events = events
        self.limit = 0.0
        self._deadline = 0.0
        self._skip: Collection[str] = ()
        self._failed: list[str] = []
        self._told: dict[str, Figure] = {}

    # -- for steps -------------------------------------------------------------------------------------------

    def say(self, line: str) -> None:
        print(line, flush=True)

    def left(self) -> float:
        """Seconds until the step is stopped."""
        return self._deadline - time.monotonic()

    def keep(self, *figures: Figure) -> None:
        """Write and print figures that are new or have changed."""
        for figure in figures:
            if self._told.get(figure.key) != figure:
                self._told[figure.key] = figure
                where = {"programme": self.programme, "half": self.half, "step": self.step}
                records.append(self.folder / records.LINES, records.figure_line(figure, self.stamp, **where))
                self.say(figure.line())

    def value(self, key: str, value: float, unit: str, better: str = "lower", **details: Any) -> None:
        """Keep a figure that has one sample."""
        self.keep(Figure.of(key, Spread(value, value, value), unit, better, 1, **details))

    def attempt(self, side: str, measure: Callable[[], T]) -> T | None:
        """Measure one side. One that fails is shown and noted, and None comes back; the others go on.

        A side that another process has begun is left out: it died of it. Raises Broken where CUDA is of no more use.
        """
        if side in self._skip:
            self.say(f"  {side}: left out, an earlier process ended in it")
            return None
        if self.left() < min(SHORT, self.limit / 10):
            self.say(f"  {side}: left out, the step's time is over")
            self._note(side, "not measured: the step's time was over")
            return None
        self.tell("side", side=side)
        try:
            return measure()
        except FastnoiseError as error:
            self.say(f"  {side}: not measured: {error}")
            self._note(side, f"not measured: {error}")
        except NotMeasured:
            raise
        except Exception as error:
            traceback.print_exc()
            sys.stderr.flush()
            self._failed.append(side)
            self._note(side, in_a_line(error))
            if not self.alive():
                raise Broken(f"{side} left CUDA broken: {in_a_line(error)}") from error
        self._collect()  # what the side held, which an error of memory may be about
        return None

    def _note(self, side: str, error: str) -> None:
        where = {"programme": self.programme, "half": self.half, "step": self.step, **self.stamp}
        line = {"kind": "failure", **where, "side": side, "error": error, "at": records.now()}
        records.append(self.folder / records.LINES, line)

    # -- for the loop ----------------------------------------------------------------------------------------

    def tell(self, event: str, **what: Any) -> None:
        os.write(self._events, (json.dumps({"event": event, **what}) + "\n").encode())

    def identify(self, stamp: records.Line) -> None:
        """Note which machine this is, as soon as it is known."""
        self.stamp = stamp
        records.append(self.folder / records.LINES, {"kind": "machine", **stamp, "at": records.now()})

    def alive(self) -> bool:
        """Whether CUDA still works, if it is used: after an illegal access every later call fails too."""
        torch = sys.modules.get("torch")
        if torch is None or not self.on_gpu:
            return True
        try:
            torch.cuda.synchronize()
            return bool(torch.ones(8, device="cuda").sum().item() == 8)
        except Exception as error:
            self.say(f"  CUDA fails: {in_a_line(error)}")
            return False

    def run(self, name: str, function: Callable[["Bench"], str | None], seconds: float, skip: Collection[str]) -> None:
        """Make a step and tell how it ended."""
        self.step, self._skip, self._failed = name, skip, []
        self.limit, self._deadline = seconds, time.monotonic() + seconds
        status, reason, poisoned = "done", "", False
        try:
            reason = function(self) or ""
        except NotMeasured as why:
            status, reason = "not measured", str(why)
        except Broken as error:
            status, reason, poisoned = "died", str(error), True
        except Exception as error:
            traceback.print_exc()
            status, reason = "failed", in_a_line(error)
            poisoned = not self.alive()
        if self._failed and status == "done":
            status, reason = "failed", f"{len(self._failed)} of its sides failed: {', '.join(self._failed[:5])}"
        sys.stdout.flush()
        sys.stderr.flush()
        if not poisoned:
            try:
                self.free()
            except Exception as error:
                traceback.print_exc()
                status, reason, poisoned = "failed", f"{reason} {in_a_line(error)}".strip(), True
        self.tell("end", status=status, reason=reason, poisoned=poisoned)

    def free(self) -> None:
        """Give back what a step has left: compiled code, graphs, memory."""
        if "torch" in sys.modules:
            sys.modules["torch"].compiler.reset()
        self._collect()

    def _collect(self) -> None:
        gc.collect()
        if self.on_gpu:
            cuda = sys.modules["torch"].cuda
            cuda.synchronize()
            cuda.empty_cache()


def in_a_line(error: BaseException) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"[:300]
