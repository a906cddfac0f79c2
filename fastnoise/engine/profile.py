"""Measures where training steps spend time and what they waste: layout copies, copies of the target table, host reads.

Figures come from the trace that torch.profiler writes, a file in the Trace Event Format that chrome://tracing and
https://ui.perfetto.dev open; the same file is read here.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ..errors import CheckpointError
from ..texts import counted

T = TypeVar("T")

NEXT_BATCH = "fastnoise::next_batch"
"""Name in the trace of the time that the loop spends on getting a batch."""

_HOST_READS = frozenset({"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2"})
"""Ops that bring a value or a size that depends on values to the host; aten::item calls the first."""

_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cuStreamSynchronize")

_COPIES = frozenset({"aten::copy_"})
"""clone, contiguous and to end in this one."""

_TRANSPOSITIONS = ("nchwtonhwc", "nhwctonchw", "transpose")
"""What kernels that change the layout have in their names, in lower case."""

_KERNELS_OF_THE_CPU = (
    "aten::convolution_backward",
    "aten::mkldnn_convolution",
    "aten::_fused_sgd_",
    "aten::_fused_adam_",
    "aten::_fused_adamw_",
)
"""Ops whose CPU kernels lay out weights or their gradients anew inside, whatever layout they are given: oneDNN gives
weight gradients in NCHW, and the fused optimisers copy what is not contiguous."""

_TABLE_READERS = frozenset(
    f"aten::{name}"
    for name in (
        *("alias", "as_strided", "detach", "detach_", "expand", "narrow", "select", "slice", "t", "transpose"),
        *("unsqueeze", "view", "gather", "index", "index_copy_", "index_put_", "_index_put_impl_", "index_select"),
    )
)
"""Ops that may take the target table: views of it, and those that read or write chosen rows in place."""

_SHOWN = 10


@dataclass(frozen=True)
class Waste:
    """Wasted work in some training steps, one description per event."""

    layout_copies: tuple[str, ...]
    table_copies: tuple[str, ...]
    host_reads: tuple[str, ...]
    inside_kernels: tuple[str, ...] = ()
    """Layout copies that PyTorch's CPU kernels make inside; no step can do without them, so they don't count."""

    def __bool__(self) -> bool:
        return bool(self.layout_copies or self.table_copies or self.host_reads)


def find_waste(call: Callable[[], object], table_shape: tuple[int, int] | None = None) -> Waste:
    """Run `call`, which makes a training step, under the profiler and say what it wasted.

    layout_copies: copies between dense tensors of one shape, in 4 dimensions, whose dimensions lie in another order in
        memory, and kernels that transpose.
    table_copies: ops on whole tensors of `table_shape` [N, C] that are no view, gather or update of rows in place.
    host_reads: ops that bring values to the host, CUDA calls that wait for the device, and copies from it.

    What a compiled step computes inside fused kernels on the CPU does not show; its generated code has to be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        with _profiler() as profiler:
            call()
        profiler.export_chrome_trace(str(path))
        return _waste(_Trace.read(path), table_shape)


class StepProfiler:
    """Profiles some steps of a training loop, writes their trace, and says where the time went.

        with StepProfiler(folder / "trace.json") as profiler:
            for images, index in profiler.batches(loader.epoch(1)):
                step.train(images, index)
                profiler.step()
        print(profiler.report())

    Args:
        path: of the trace.
        warmup: steps before those that are recorded, for compilation and capture.
        steps: recorded.
        table_shape: [N, C] of the method's target table, whose copies are then reported.
    """

    def __init__(self, path: Path, *, warmup: int = 10, steps: int = 10, table_shape: tuple[int, int] | None = None):
        if warmup < 1 or steps < 1:
            raise ValueError(f"a profile needs at least one step of warm-up and one recorded, not {warmup} and {steps}")
        self.path, self.steps, self.table_shape = path, steps, table_shape
        self.done = False
        """Whether the trace is written; `step` does nothing from then on."""
        self._report = ""
        schedule = torch.profiler.schedule(wait=warmup - 1, warmup=1, active=steps, repeat=1)
        self._profiler = _profiler(schedule=schedule, on_trace_ready=self._finish)
        self._running = False

    def __enter__(self) -> "StepProfiler":
        self._profiler.__enter__()
        self._running = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            self._profiler.__exit__(None, None, None)

    def batches(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; the time to get each is marked in the trace."""
        iterator = iter(batches)
        while True:
            with record_function(NEXT_BATCH):
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            yield batch

    def step(self) -> None:
        """After each training step."""
        if self.done:
            return
        self._profiler.step()
        if self.done:
            self._stop()

    def report(self) -> str:
        """The findings as lines of text, or a line that says that the loop ended before any step was recorded."""
        return self._report or "profile: no step was recorded, the run is shorter than the warm-up"

    def _finish(self, profiler: profile) -> None:
        if self.done:
            return
        try:
            profiler.export_chrome_trace(str(self.path))
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"cannot write the profile {self.path}: {error}; free space there") from error
        self.done = True
        trace = _Trace.read(self.path)
        lines = [
            f"profile of {counted(trace.count_steps(), 'step')}: {self.path} "
            "(open in chrome://tracing or ui.perfetto.dev)"
        ]
        lines += _top(profiler, trace)
        waste = _waste(trace, self.table_shape)
        for title, found in (
            ("layout copies", waste.layout_copies),
            ("copies of the target table", waste.table_copies),
            ("synchronisations and host reads", waste.host_reads),
            ("layout copies inside PyTorch's CPU kernels", waste.inside_kernels),
        ):
            lines.append(f"{title}: {len(found) or 'none'}")
            lines += [f"  {count:>5} x {what}" for what, count in Counter(found).most_common(_SHOWN)]
        self._report = "\n".join(lines + _gaps(trace))


def _profiler(**options: Any) -> profile:
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    return profile(activities=activities, record_shapes=True, **options)


class _Trace:
    """Events of a trace file; times in microseconds."""

    def __init__(self, events: Sequence[dict[str, Any]]):
        self.ops = [event for event in events if event.get("cat") == "cpu_op"]
        self.kernels = [event for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
        self.runtime = [event for event in events if event.get("cat") in ("cuda_runtime", "cuda_driver")]
        self.marks = [event for event in events if event.get("cat") == "user_annotation"]

    @classmethod
    def read(cls, path: Path) -> "_Trace":
        return cls([event for event in json.loads(path.read_text())["traceEvents"] if event.get("ph") == "X"])

    def steps(self) -> list[dict[str, Any]]:
        return [mark for mark in self.marks if mark["name"].startswith("ProfilerStep")]

    def count_steps(self) -> int:
        return len(self.steps())

    def with_callers(self) -> Iterator[tuple[dict[str, Any], list[str]]]:
        """Every op with the names of those that it runs in, outermost first."""
        stacks: dict[Any, list[dict[str, Any]]] = {}
        for op in sorted(self.ops, key=lambda op: (op["ts"], -op["dur"])):
            stack = stacks.setdefault(op["tid"], [])
            while stack and stack[-1]["ts"] + stack[-1]["dur"] <= op["ts"]:
                stack.pop()
            yield op, [caller["name"] for caller in stack]
            stack.append(op)

    def window(self) -> tuple[float, float]:
        """From the first recorded step's begin to the end of the last or of the last kernel."""
        steps = self.steps()
        begin = min(step["ts"] for step in steps)
        return begin, max(event["ts"] + event["dur"] for event in [*steps, *self.kernels])


def _order(dims: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Dimensions longer than 1, from the slowest in memory to the fastest."""
    return tuple(sorted((axis for axis, size in enumerate(dims) if size > 1), key=lambda axis: -strides[axis]))


def _waste(trace: _Trace, table_shape: tuple[int, int] | None) -> Waste:
    layouts: list[str] = []
    inside: list[str] = []
    tables: list[str] = []
    reads: list[str] = []
    for op, callers in trace.with_callers():
        name, args = op["name"], op.get("args", {})
        dims, strides = args.get("Input Dims", []), args.get("Input Strides", [])
        if name in _COPIES and len(dims) > 1 and len(dims[0]) == 4 and dims[0] == dims[1]:
            first, second = (_order(dims[0], strides[side]) for side in (0, 1))
            if first != second:
                kernel = next((caller for caller in callers if caller in _KERNELS_OF_THE_CPU), None)
                found = inside if kernel else layouts
                found.append(f"{kernel or name} of {dims[0]}, strides {strides[1]} to {strides[0]}")
        # Kernels of the CPU are on the host already; what their GPU forms wait for shows in the CUDA calls.
        on_host = any(caller.startswith("fastnoise::") or caller in _KERNELS_OF_THE_CPU for caller in callers)
        if name in _HOST_READS and not on_host:
            reads.append(name)
        whole = table_shape is not None and any(side == list(table_shape) for side in dims)
        if whole and name.startswith("aten::") and name not in _TABLE_READERS:
            tables.append(f"{name} of {list(table_shape or ())}")
    layouts += [
        kernel["name"] for kernel in trace.kernels if any(word in kernel["name"].lower() for word in _TRANSPOSITIONS)
    ]
    waits = [event["name"] for event in sorted(trace.runtime, key=lambda event: event["ts"]) if event["name"] in _WAITS]
    if waits and waits[-1] == "cudaDeviceSynchronize":  # the profiler's own, which ends its recording
        waits.pop()
    reads += waits
    reads += [kernel["name"] for kernel in trace.kernels if "DtoH" in kernel["name"]]
    return Waste(tuple(layouts), tuple(tables), tuple(reads), tuple(inside))


def _top(profiler: profile, trace: _Trace) -> list[str]:
    """Where the device's time goes: kernels on a GPU, ops on a CPU."""
    if trace.kernels:
        spent: Counter[str] = Counter()
        calls: Counter[str] = Counter()
        for kernel in trace.kernels:
            spent[kernel["name"]] += kernel["dur"]
            calls[kernel["name"]] += 1
        rows = [(name, time, calls[name]) for name, time in spent.most_common(_SHOWN)]
        total, title = sum(spent.values()), "kernels"
    else:
        averages = [item for item in profiler.key_averages() if not item.key.startswith("ProfilerStep")]
        averages = [item for item in averages if item.key != NEXT_BATCH]
        averages.sort(key=lambda item: -item.self_cpu_time_total)
        rows = [(item.key, item.self_cpu_time_total, item.count) for item in averages[:_SHOWN]]
        total, title = sum(item.self_cpu_time_total for item in averages), "ops, without those they call"
    steps = max(1, trace.count_steps())
    lines = [f"top {title} (ms a step, share, calls a step):"]
    for name, time, count in rows:
        lines.append(f"  {time / 1e3 / steps:9.3f}  {time / max(total, 1e-9):6.1%}  {count / steps:7.1f}  {name[:90]}")
    return lines


def _union(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _gaps(trace: _Trace) -> list[str]:
    """Time in which the device does nothing: on a GPU between kernels, on a CPU outside of ops in the loop's thread."""
    begin, end = trace.window()
    if trace.kernels:
        events, what = trace.kernels, "GPU idle"
    else:
        thread = trace.steps()[0]["tid"]
        autograd = {op["tid"] for op in trace.ops if op["name"].startswith("autograd::engine")}
        events = [op for op in trace.ops if op["tid"] == thread or op["tid"] in autograd]
        what = "outside of ops"
    busy = _union((max(begin, event["ts"]), event["ts"] + event["dur"]) for event in events if event["ts"] >= begin)
    idle = (end - begin) - sum(stop - start for start, stop in busy)
    edges = [begin, *(edge for interval in busy for edge in interval), end]
    holes = sorted((edges[i + 1] - edges[i] for i in range(0, len(edges), 2)), reverse=True)
    longest = ", ".join(f"{hole / 1e3:.3f}" for hole in holes[:5])
    lines = [f"gaps: {what} {max(0.0, idle) / (end - begin):.1%} of {(end - begin) / 1e3:.2f} ms; longest {longest} ms"]
    waiting = [mark["dur"] for mark in trace.marks if mark["name"] == NEXT_BATCH and mark["ts"] >= begin]
    if waiting:
        lines.append(f"getting batches: {sum(waiting) / (end - begin):.1%} of the loop's time")
    return lines
