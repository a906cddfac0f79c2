"""Files that are written while training goes on, from a copy of what they hold."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..checks import free_memory
from ..losses.tables import readable


class Copies:
    """Copies of large tables in host memory, at the same place each time, since new memory is slow at first.

    Args:
        tables: what is copied again and again, by name.
        neighbours: processes on this machine that make such copies, this one among them.
    """

    def __init__(self, tables: Mapping[str, Tensor], neighbours: int = 1):
        size = neighbours * sum(table.nbytes for table in tables.values())
        free = free_memory(torch.device("cpu"))
        self.tables = dict(tables)
        self.obstacle = ""
        """Why there are none, in one line; or nothing."""
        self.kept: dict[str, Tensor] = {}
        if free is not None and size > free:
            self.obstacle = f"a copy of the tables takes {readable(size)}, and {readable(free)} are free"

    def make(self) -> None:
        """Get the memory. Before it, all processes have found that there is enough, or none calls it."""
        for name, table in self.tables.items():
            pinned = table.device.type == "cuda"
            self.kept[name] = torch.empty(table.shape, dtype=table.dtype, device="cpu", pin_memory=pinned).zero_()
        self.tables.clear()

    def of(self, value: Any, name: str = "") -> Any:
        """A copy of a tensor, or of all that dictionaries and lists hold, which training may change meanwhile."""
        if isinstance(value, Tensor):
            if (kept := self.kept.get(name)) is not None and kept.shape == value.shape:
                return kept.copy_(value.detach())
            return value.detach().to("cpu", copy=True)
        if isinstance(value, Mapping):
            return {key: self.of(item, str(key)) for key, item in value.items()}
        return [self.of(item) for item in value] if isinstance(value, list) else value


class Background:
    """One piece of work at a time in a thread of its own."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, work: Callable[[], object], ended: Callable[[float], object]) -> None:
        """Do `work`, then call `ended` with the seconds that it took. The work before must have ended (`wait`)."""
        assert self._thread is None

        def run() -> None:
            began = time.perf_counter()
            try:
                work()
            except BaseException as error:  # raised by `wait`
                self._error = error
            ended(time.perf_counter() - began)

        self._thread = threading.Thread(target=run, name="fastnoise-checkpoint")
        self._thread.start()

    @property
    def begun(self) -> bool:
        """Whether there is work that nobody has waited for."""
        return self._thread is not None

    @property
    def busy(self) -> bool:
        """Whether work goes on."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait for the end of the work; raises what it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
