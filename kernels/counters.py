"""Counters on the device that are 0, for kernels whose last program finishes the work. No launch is spent on zeroing.

A kernel leaves its counter at 0. The launches of one stream run one after another and so share one counter. A CUDA
graph can be replayed on any stream and at the same time as other graphs, so each launch that it records gets a counter
that nothing else ever uses. Such counters come from a pool that eager launches keep filled. If the pool is empty during
a capture, the counter is made and zeroed inside the graph, which costs a node.
"""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

POOL = 1024
"""Number of counters in the pool of each device."""

of_streams: dict[tuple[torch.device, int], Tensor] = {}
of_graphs: dict[torch.device, list[Tensor]] = {}
kept: list[Tensor] = []
"""The memory of all pools so far. A graph keeps only the address of a counter, so this memory must not be freed when a
pool is empty."""


def zeroed(count: int, device: torch.device) -> Tensor:
    """Counters [count, 4] int32. Only the first column is used, because Triton compiles a kernel again for a pointer
    that is not aligned to 16 bytes."""
    return torch.zeros(count, 4, dtype=torch.int32, device=device)


def lasting(count: int, device: torch.device) -> Tensor:
    """`zeroed` on the current stream, in memory that is never reused.

    While torch.compile warms up its own CUDA graphs (mode="reduce-overhead"), and in torch.cuda.use_mem_pool, all
    memory that a thread allocates comes from the graphs' pool. This memory is reused, and PyTorch raises an error for
    tensors in it that it doesn't know. So another thread allocates the memory.
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
