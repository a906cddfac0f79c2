"""Checks of arguments: arrays, integers, numbers and memory. Each error names the argument."""

import os
import platform
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

_UNASKED = 1 << 30  # bytes that any machine is taken to have


def as_array(what: str, values: Any) -> NDArray[Any]:
    """`values` as an array of any shape; DataError if they are not an array."""
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError, RuntimeError):  # the last from a tensor that requires a gradient
        raise DataError(f"{what}: not an array of numbers, got {type(values).__name__}") from None


def integer(what: str, value: Any, low: int, high: int) -> int:
    """An integer in [low, high], else ConfigError."""
    try:
        number = index(value)
    except TypeError:
        raise ConfigError(f"{what} must be an integer, got {shown(value)}") from None
    if not low <= number <= high:
        raise ConfigError(f"{what} must be in [{low}, {high}], got {number}")
    return number


def real(what: str, value: Any) -> float:
    """A float, which may be NaN or infinite, else ConfigError."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{what} must be a number, got {shown(value)}") from None


def shown(value: Any) -> str:
    """A value of any kind on one line of a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."


def free_memory(device: "torch.device | None" = None) -> int | None:
    """Bytes that can be allocated on a device, by default the host; None if this is unknown.

    On the host: free memory within the limit of the container. On CUDA: the driver's free memory plus what torch holds
    in reserve.
    """
    if device is not None and device.type == "cuda":
        import torch

        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device is not None and device.type != "cpu":
        return None
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        names = getattr(os, "sysconf_names", {})
        if not {"SC_AVPHYS_PAGES", "SC_PAGE_SIZE"} <= names.keys():
            return None
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return free


def cpu_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The CPU's name if the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def require_memory(what: str, size: int) -> None:
    """Raise DataError if `size` more bytes do not fit into memory. The message begins with `what`.

    Without this check the system may grant more than it has, and kill the process that fills it.
    """
    if size <= _UNASKED:
        return
    free = free_memory()
    if free is not None and size > free:
        raise DataError(f"{what}: this takes {size / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free")
