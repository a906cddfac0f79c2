"""What an op refuses: tensors of the wrong form always; values out of range if the check is free or asked for."""

import os
from typing import NoReturn

import torch
from torch import Tensor

from ..errors import DataError

LOGIT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class debug:
    """Check every batch for labels and indices out of range, and for indices that occur twice; off by default.

    A violation raises DataError on every device. On a CUDA device each call then waits for the device and cannot be
    captured in a graph. `debug(True)` turns the checks on for all later calls, and `with debug():` inside the block.
    The environment variable FASTNOISE_DEBUG=1 turns them on from the start.
    """

    on = os.environ.get("FASTNOISE_DEBUG", "0") == "1"

    def __init__(self, on: bool = True):
        self.before = debug.on
        debug.on = on

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        debug.on = self.before


def refuse(op: str, name: str, tensor: Tensor, expected: str) -> NoReturn:
    dtype = str(tensor.dtype).removeprefix("torch.")
    raise DataError(f"{op}: {name} is {dtype} {list(tensor.shape)}; expected {expected}")


def check_range(op: str, name: str, tensor: Tensor, limit: int, meaning: str) -> None:
    """DataError for a value outside 0..limit - 1, with the first such value."""
    outside = tensor[(tensor < 0) | (tensor >= limit)]
    if len(outside):
        raise DataError(f"{op}: {name} {int(outside[0])} is outside 0..{limit - 1}, for a {meaning} of {limit}")


def check_index(op: str, index: Tensor, num_rows: int, rank: int = 0, world: int = 1) -> None:
    """DataError for an index out of range or of another shard, with the first such index. The table has `num_rows`
    rows."""
    foreign = index[(index >= 0) & (index % world != rank)]
    if len(foreign):
        first = int(foreign[0])
        raise DataError(
            f"{op}: index {first} belongs to shard {first % world}, not to {rank}, of {world}; give each process the "
            f"samples with index % {world} equal to its rank"
        )
    meaning = "number of samples" if world == 1 else f"shard of {num_rows} samples and an end"
    check_range(op, "index", index, rank + world * (num_rows - 1) + 1, meaning)


def check_distinct(op: str, index: Tensor) -> None:
    """DataError if an index occurs twice in the batch, with the first such index."""
    ordered, order = index.sort(stable=True)
    again = order[1:][ordered[1:] == ordered[:-1]]
    if len(again):
        value = int(index[again.min()])
        rows = (index == value).nonzero()[:2, 0].tolist()
        raise DataError(
            f"{op}: index {value} occurs twice in the batch, in rows {rows[0]} and {rows[1]}; the indices of a batch "
            "must be distinct, since each updates its row of the table"
        )
