"""The memory of target tables: what a table takes, whether it fits, and how shards are merged into a whole table."""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from mmap import PAGESIZE
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from ..checks import free_memory
from ..errors import CheckpointError, ConfigError

TARGET_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Place = Literal["device", "host"]
"""Where a table is: on the device of the logits, or in host memory (`TargetLoss`, target_place)."""


class Storage(TypedDict, total=False):
    """How a loss keeps its targets: keyword arguments of every loss with targets (see `TargetLoss`)."""

    target_dtype: torch.dtype
    target_place: Place
    shard: tuple[int, int]
    seed: int


_storage: ContextVar[Storage | None] = ContextVar("storage", default=None)


@contextmanager
def storing(**storage: Unpack[Storage]) -> Iterator[None]:
    """Within it, losses keep their targets as `storage` says where their own arguments say nothing.

    An engine that builds methods says by it how all their tables are stored, as `torch.device` says where tensors are.
    """
    token = _storage.set({**storage_now(), **storage})
    try:
        yield
    finally:
        _storage.reset(token)


def storage_now() -> Storage:
    """What the `storing` around this call says."""
    return _storage.get() or {}


def shard_rows(num_samples: int, shard: tuple[int, int] = (0, 1)) -> int:
    """The number of samples in a shard (rank, world): those at `rank`, `rank + world`, ..."""
    rank, world = shard
    return len(range(rank, num_samples, world))


def table_bytes(
    num_samples: int, num_classes: int, dtype: torch.dtype = torch.float32, shard: tuple[int, int] = (0, 1)
) -> int:
    """Bytes of a loss's targets: a row of C values per sample, and in half precision a counter of 4 bytes per sample.

    Args:
        num_samples: N, of the whole training set.
        num_classes: C.
        dtype: float32, bfloat16 or float16.
        shard: (rank, world), for one of several parts.
    """
    counter = 0 if dtype == torch.float32 else 4
    return shard_rows(num_samples, shard) * (num_classes * dtype.itemsize + counter)


def readable(size: int) -> str:
    """A number of bytes in the largest decimal unit in which it is at least 1."""
    power = min(4, max(0, (len(str(size)) - 1) // 3))
    return f"{size / 1000**power:.{1 if power else 0}f} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def check_memory(
    num_samples: int, num_classes: int, dtype: torch.dtype, shard: tuple[int, int], device: torch.device
) -> None:
    """ConfigError for a table that does not fit on a device."""
    size, free = table_bytes(num_samples, num_classes, dtype, shard), free_memory(device)
    if free is None or size <= free:
        return
    remedies = [f"hold a part in each of several processes (shard=(rank, world), now {shard})"]
    if device.type != "cpu":
        remedies.append("keep it in host memory (target_place='host')")
    if dtype == torch.float32:
        half = readable(table_bytes(num_samples, num_classes, torch.bfloat16, shard))
        remedies.insert(0, f"use target_dtype=torch.bfloat16 ({half})")
    raise ConfigError(
        f"the targets of {num_samples} samples and {num_classes} classes take {readable(size)} as "
        f"{str(dtype).removeprefix('torch.')}, and {device} has {readable(free)} free: {', or '.join(remedies)}"
    )


def page_locked(table: Tensor) -> Tensor:
    """A copy of a tensor [N, C] of any dtype on the CPU in page-locked memory.

    The kernels of a GPU read and write it in place.

    The memory is exactly as large as the tensor, in pages of its own: PyTorch's own page-locked memory comes in powers
    of two, which for a table of 9.6 GB is 17.2 GB. ConfigError if the driver refuses to lock it.
    """
    size = table.nbytes
    room = np.empty(size + 2 * PAGESIZE, np.uint8)
    before = -room.ctypes.data % PAGESIZE
    own = room[before : before + size]
    runtime = torch.cuda.cudart()
    code = int(runtime.cudaHostRegister(own.ctypes.data, size, 0))
    if code != 0:
        raise ConfigError(
            f"the driver locks no {readable(size)} of host memory for the targets (CUDA error {code}); free memory, "
            "raise the limit of locked memory (ulimit -l), or keep them on the device (target_place='device')"
        )
    weakref.finalize(room, runtime.cudaHostUnregister, own.ctypes.data).atexit = False
    return torch.from_numpy(own).view(table.dtype).view(table.shape).copy_(table)


def fit_state(state: dict[str, Any], prefix: str, layout: list[int], counts_visits: bool) -> None:
    """Change a saved state, in place, into one for a loss with this layout (rank, world, number of samples).

    CheckpointError if it is that of another table or shard.

    A shard takes its rows of a whole table. Counters of visits are dropped if the loss has none. They start from 0 if
    the state has none. So a run can continue in another precision.
    """
    rank, world, num_samples = layout
    targets, saved = state.get(f"{prefix}targets"), state.get(f"{prefix}layout")
    if targets is None:
        return
    names = [name for name in (f"{prefix}targets", f"{prefix}visits") if name in state]
    if saved is None and world > 1:
        if len(targets) != num_samples:
            raise CheckpointError(
                f"the saved targets are of {len(targets)} samples, those to be loaded of {num_samples}"
            )
        state.update({name: state[name][rank::world] for name in names})
        state[f"{prefix}layout"] = torch.tensor(layout)
    elif saved is not None and saved.tolist() != layout:
        one, of, total = saved.tolist()
        raise CheckpointError(
            f"the saved targets are shard {one} of {of} of {total} samples, not {rank} of {world} of {num_samples}: "
            "make one state of all shards with fastnoise.losses.merge_shards and load that"
        )
    if not counts_visits:
        state.pop(f"{prefix}visits", None)
    elif f"{prefix}visits" not in state:
        state[f"{prefix}visits"] = torch.zeros(shard_rows(num_samples, (rank, world)), dtype=torch.int32)


def merge_shards(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One state of a whole table from the states of all its shards.

    A loss with any `shard` can load the result; it takes its own rows. So a run can continue with another number of
    processes: `loss.load_state_dict(merge_shards([torch.load(file) for file in files]))`.

    Args:
        states: the `state_dict()` of each shard's loss, or of a module that contains such losses, in any order.
            Everything else is taken from the first state.

    Raises:
        CheckpointError: a shard is missing or given twice, the shards belong to different tables, or the states hold no
            shards.
    """
    merged = dict(states[0]) if states else {}
    prefixes = [name.removesuffix("layout") for name in merged if name == "layout" or name.endswith(".layout")]
    if not prefixes:
        raise CheckpointError("nothing to merge: no state holds a shard of targets, as losses with shard=... save it")
    for prefix in prefixes:
        layouts = [state[f"{prefix}layout"].tolist() for state in states]
        _, world, num_samples = layouts[0]
        if sorted(layouts) != [[rank, world, num_samples] for rank in range(world)]:
            found = ", ".join(f"{rank} of {of} ({total} samples)" for rank, of, total in layouts)
            raise CheckpointError(f"shards 0 to {world - 1} of {world} are needed, each once; given: {found}")
        for name in (f"{prefix}targets", f"{prefix}visits"):
            if name in merged:
                first: Tensor = merged[name]
                merged[name] = first.new_empty(num_samples, *first.shape[1:])
                for state, (rank, *_) in zip(states, layouts, strict=True):
                    merged[name][rank::world] = state[name]
        del merged[f"{prefix}layout"]
    return merged
