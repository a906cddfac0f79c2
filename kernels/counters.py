"""Zeroed counters on the device for kernels whose last program finishes the work: no launch is spent on zeroing.

A kernel leaves its counter at 0, so the launches of one stream, which run one after another, share one. A CUDA graph
may be replayed on any stream and beside other graphs: each launch that it records gets a counter that nobody else ever
uses, out of a pool that eager launches keep filled. Where a capture finds the pool empty, the counter is made and
zeroed inside the graph, which costs a node.
"""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

POOL = 1024
"""Counters laid by per device."""

of_streams: dict[tuple[torch.device, int], Tensor] = {}
of_graphs: dict[torch.device, list[Tensor]] = {}
kept: list[Tensor] = []
"""The memory of all pools so far. A graph keeps no more than a counter's address: what its launches took must not be
freed when the pool is empty."""


def zeroed(count: int, device: torch.device) -> Tensor:
    """Counters [count, 4] int32, of which the first column is used: Triton compiles a kernel again for a pointer that
    is not aligned to 16 bytes."""
    return torch.zeros(count, 4, dtype=torch.int32, device=device)


def lasting(count: int, device: torch.device) -> Tensor:
    """`zeroed` on the current stream, in memory that stays.

    While torch.compile warms up its own CUDA graphs (mode="reduce-overhead"), and in torch.cuda.use_mem_pool, all that
    the thread allocates comes from the graphs' pool, which is reused and where PyTorch raises an error at what it
    doesn't know. So another thread asks for the memory.
    """
    if device.type != "cuda":
        return zeroed(count, device)
    stream = torch.cuda.current_stream(device)

    def make() -> Tensor:
        with torch.cuda.stream(stream):
            return zeroed(count, device)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


def counter(device: torch.device) -> Tensor:
    """A counter for one launch on that device's current stream."""
    stream = 0
    if device.type == "cuda":
        if torch.cuda.is_current_stream_capturing():
            pool = of_graphs.get(device)
            return pool.pop() if pool else zeroed(1, device)
        # What Triton's launcher asks too; torch.cuda.current_stream() takes many times as long.
        stream = torch._C._cuda_getCurrentRawStream(device.index)
        if not of_graphs.get(device):
            kept.append(lasting(POOL, device))
            of_graphs[device] = list(kept[-1])
    found = of_streams.get((device, stream))
    if found is None:
        found = of_streams[device, stream] = lasting(1, device)
    return found
