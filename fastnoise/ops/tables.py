"""How a target table is stored: in float32 or half precision, whole or as one shard of several.

The rules' CPU kernels do not know the placement: `on_gathered_rows` gives them the batch's rows as a small float32
table, and then rounds these rows and writes them back. The Triton kernels read and write the table itself.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Placement(NamedTuple):
    """The last arguments of every op with targets. The defaults are those of a whole float32 table.

    A shard holds the samples with `index % world == rank`, in row `index // world`. `visits`, int32, counts the visits
    of each row of a half-precision table; the op raises it at each visit. Count and `seed` decide the random bits.
    """

    visits: Tensor | None = None
    rank: int = 0
    world: int = 1
    seed: int = 0


class FixedDtype(nn.Module):
    """A module whose buffers move with it but keep their dtypes when it is cast."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def move_without_cast(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move_without_cast, recurse)


def mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def round_stochastically(rows: Tensor, dtype: torch.dtype, index: Tensor, visits: Tensor, seed: int) -> Tensor:
    """Round float32 rows [B, C] of the samples `index` [B] to a half type. The bits equal those of
    `fastnoise.kernels.rounding`."""
    given = rows.numpy()
    sample, visit = index.numpy().astype(np.uint32), visits.numpy().astype(np.uint32)
    key = mix(mix(mix(sample) ^ np.uint32(seed)) ^ visit)[:, None]
    bits = mix(key ^ (np.arange(given.shape[1], dtype=np.uint32) * np.uint32(0x9E3779B9)))
    clamped = np.clip(given, np.float32(0), np.float32(1))  # of NaN: NaN
    pattern = clamped.view(np.uint32)
    if dtype == torch.bfloat16:
        rounded = ((pattern + (bits >> 16)) & np.uint32(0xFFFF0000)).view(np.float32)
    else:
        rounded = ((pattern + (bits >> 19)) & np.uint32(0xFFFFE000)).view(np.float32)
        steps = clamped * np.float32(2**24)
        whole = np.floor(steps)
        whole += (bits >> 8).astype(np.float32) * np.float32(2**-24) < steps - whole
        rounded = np.where(clamped < 2**-14, whole * np.float32(2**-24), rounded)
    return torch.from_numpy(np.where(given == given, rounded, given)).to(dtype)


def local_rows(index: Tensor, rank: int, world: int) -> Tensor:
    """The shard's rows of the samples; -1 for samples of another shard."""
    return index if world == 1 else torch.where(index % world == rank, index.div(world, rounding_mode="floor"), -1)


def without_ignored(given: dict[str, Any]) -> dict[str, Any]:
    """An op's arguments by name, without the rows whose label is ignored. Waits for the device."""
    if given["ignore_index"] is None or "labels" not in given:
        return given
    kept = given["labels"] != given["ignore_index"]
    rows = ("logits", "attention", "labels", "index", "pair_labels", "pair_index", "share")
    return given | {name: given[name][kept] for name in rows if name in given and given[name].dim()}


def on_kept_rows(kernel: Callable[..., Any], names: Sequence[str], given: dict[str, Any]) -> tuple[Tensor, ...]:
    """Call a twin's kernel with the arguments `names`, cut to the rows that are not ignored. The other rows get loss
    and gradient 0."""
    if given.get("update") is False:
        given = given | {"knobs": given["knobs"] * torch.tensor([0.0, 1.0, 1.0])}
    kept = without_ignored(given)

    def on_rows(given: dict[str, Any]) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = kernel(*(given[name] for name in names))
        return results

    results = on_rows(kept) if is_plain(kept) else on_gathered_rows(on_rows, kept | {"ignore_index": None})
    if kept is given:
        return results
    position = (given["labels"] != given["ignore_index"]).nonzero()[:, 0]
    num_rows = len(given["labels"])
    return tuple(x.new_zeros(num_rows, *x.shape[1:]).index_copy_(0, position, x) for x in results)


def is_plain(given: dict[str, Any]) -> bool:
    """Whether an op has no table, or a whole one in float32."""
    return "targets" not in given or (given["visits"] is None and given["world"] == 1)


def on_gathered_rows(kernel: Callable[[dict[str, Any]], Any], given: dict[str, Any]) -> Any:
    """Call an op's CPU kernel with its arguments, whose "targets" is a table of any placement. The kernel gets the
    batch's rows as a small float32 table; these rows are then rounded and written back."""
    table, visits = given["targets"], given["visits"]
    indices = [name for name in ("index", "pair_index") if name in given]
    rows = local_rows(torch.cat([given[name] for name in indices]), given["rank"], given["world"])
    updating = is_finite(given["logits"]).all(1)
    if "attention" in given:
        updating &= is_finite(given["attention"])
    if given["ignore_index"] is not None and "labels" in given:
        kept = given["labels"] != given["ignore_index"]
        rows = torch.where(kept.repeat(len(indices)), rows, 0)  # what an ignored row reads doesn't matter
        updating &= kept
    held, position = torch.unique(rows, return_inverse=True)
    gathered = table.index_select(0, held).float()  # raises IndexError where a row is out of range
    positions = dict(zip(indices, position.chunk(len(indices)), strict=True))
    result = kernel({**given, "targets": gathered, **positions})
    if given["update"] and given["knobs"][0]:
        rows, index = rows[: len(updating)][updating], given["index"][updating]
        updated = gathered.index_select(0, positions["index"][updating])
        if visits is not None:
            counted = visits.index_select(0, rows)
            updated = round_stochastically(updated, table.dtype, index, counted, given["seed"])
            visits.index_copy_(0, rows, counted + 1)
        table.index_copy_(0, rows, updated)
    return result


def is_finite(values: Tensor) -> Tensor:
    """Which values are neither NaN nor +inf. -inf is a masked class."""
    return values < torch.inf
