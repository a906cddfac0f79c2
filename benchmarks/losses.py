"""Time of one loss: forward, backward, and both with the target update, against what is there without fastnoise.

    python -m benchmarks.losses            # minutes on a GPU, a quarter of an hour on a CPU
    python -m benchmarks.losses --quick    # under two minutes on two CPU cores

Sides, measured in turn within one process on the same inputs:

    reference           fastnoise.losses.reference, eager, with the table's rows gathered and written back
    reference_compiled  the same under torch.compile
    authors_list        ELR with the operations of its authors' code, which index the table with a Python list
    authors             the same with a tensor; for NAL, with its authors' clamp of the whole table in every step
    authors_compiled    that under torch.compile
    fused               the module of fastnoise.losses

The loss "ce" is plain cross-entropy: its reference is torch.nn.functional.cross_entropy. Every side averages over the
batch, and takes half-precision logits to float32 first, as autocast does.

On a GPU a sample is a series of calls between two CUDA events, on as many different inputs as a series has calls and
after 256 MB were written, so that neither inputs nor target rows wait in the L2 cache; with graphs, the series is one
graph, whose replays are counted on the device. Series called normally begin with an idle GPU, so the time to launch
them counts. On a CPU a sample is one call, on one thread. Sides take turns sample by sample, so that a busy machine
slows all of them; compare ratios.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastnoise.ops.unit import with_unit_gradient

from . import record
from .loss_sides import LOSSES, Inputs, Side, sides_of, table_rows
from .report import Figure
from .timing import Spread

RESULTS = record.RESULTS / "losses.csv"
KEY = ("side", "loss", "mode", "B", "C", "dtype", "graph", "machine", "gpu", "torch", "commit")

SIZES = ((64, 10), (128, 100), (256, 1000), (1024, 14), (4096, 1000), (8192, 21841))
CPU_SIZES = (*SIZES[:-1], (512, 21841))
QUICK_SIZES = SIZES[:2]
MODES = ("forward", "backward", "both")
"""The mode "step" besides is "both" as the engine's step has it (`step_gradients`)."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

COLD_BYTES = 150_000_000
"""More than any GPU's L2 cache; a series of calls moves through inputs of this size where calls are large."""

MAX_SERIES = 64
"""Calls per sample on a GPU: their sum must be long against an event's resolution of half a microsecond."""

USUAL_LOSSES = ("ce", "swce", "elr", "nal")


def counted_bytes(loss: str, mode: str, batch: int, num_classes: int, element_size: int) -> int:
    """The least that must move through memory, whoever computes it.

    Per element, with logits and gradient of e bytes and fp32 targets: forward reads the logit (e), and reads and writes
    the target (4 + 4); backward reads what it differentiates (e) and writes the gradient (e). Both in one pass read the
    logit once: e + 8 + e, 12 bytes in half precision and 16 in fp32; without targets 2e. Per row: the label (8) and,
    with targets, the index (8); NAL's attention logit and its gradient (e + e); and for the loss of each sample 4. A
    backward that scales a stored gradient moves another 2e per element, which is not counted in "both".
    """
    targets = 8 if loss in ("elr", "nal") else 0
    attention = element_size if loss == "nal" else 0
    forward_row = 8 + 4 + (8 if targets else 0) + attention
    element, row = {
        "forward": (element_size + targets, forward_row),
        "backward": (2 * element_size, 4 + attention),
        "both": (2 * element_size + targets, forward_row + attention),
    }[mode]
    return batch * (num_classes * element + row)


def make_inputs(
    count: int, batch: int, num_classes: int, num_samples: int, dtype: torch.dtype, device: torch.device
) -> list[Inputs]:
    """Batches that differ in everything, with distinct indices within each."""
    random = torch.Generator(device).manual_seed(0)

    def batch_of() -> Inputs:
        logits = 3 * torch.randn(batch, num_classes, generator=random, device=device)
        return (
            logits.to(dtype).requires_grad_(),
            torch.randint(num_classes, (batch,), generator=random, device=device),
            torch.randperm(num_samples, generator=random, device=device)[:batch],
            torch.randn(batch, generator=random, device=device).to(dtype).requires_grad_(),
        )

    return [batch_of() for _ in range(count)]


def gradients(loss: Tensor, inputs: Inputs, with_attention: bool, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, (inputs[0], inputs[3]) if with_attention else inputs[0], upstream)


def step_gradients(loss: Tensor, inputs: Inputs, with_attention: bool, one: Tensor) -> tuple[Tensor, ...]:
    """As the engine's step takes them, which brings along the gradient of the loss."""
    return gradients(with_unit_gradient(loss), inputs, with_attention, one)


def cpu_samples(side: Side, mode: str, inputs: list[Inputs], with_attention: bool) -> Iterator[float]:
    """Microseconds of one call after another, without end."""
    one = torch.ones(())
    for batch in itertools.cycle(inputs):
        start = time.perf_counter()
        loss = side(*batch)
        middle = time.perf_counter()
        if mode == "step":
            step_gradients(loss, batch, with_attention, one)
        elif mode != "forward":
            gradients(loss, batch, with_attention)
        end = time.perf_counter()
        yield 1e6 * {"forward": middle - start, "backward": end - middle}.get(mode, end - start)


def series(side: Side, mode: str, inputs: list[Inputs], with_attention: bool) -> tuple[Callable, Callable]:
    """What prepares a series of calls, and the series: lists of losses in, gradients out."""

    def forward() -> list[Tensor]:
        return [side(*batch) for batch in inputs]

    def backward(losses: list[Tensor]) -> list[tuple[Tensor, ...]]:
        return [gradients(loss, batch, with_attention) for loss, batch in zip(losses, inputs, strict=True)]

    def both(_: None) -> list[tuple[Tensor, ...]]:
        return [gradients(side(*batch), batch, with_attention) for batch in inputs]

    def step(one: Tensor) -> list[tuple[Tensor, ...]]:
        return [step_gradients(side(*batch), batch, with_attention, one) for batch in inputs]

    if mode == "both":
        return lambda: None, both
    if mode == "step":
        return lambda: torch.ones((), device=inputs[0][0].device), step
    return (lambda: None, lambda _: forward()) if mode == "forward" else (forward, backward)


def cuda_samples(side: Side, mode: str, inputs: list[Inputs], with_attention: bool) -> Iterator[float]:
    """Microseconds per call of one series after another, launched normally."""
    prepare, run = series(side, mode, inputs, with_attention)
    flush = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    while True:
        prepared = prepare()
        flush.zero_()
        torch.cuda.synchronize()
        start.record()
        run(prepared)
        end.record()
        del prepared
        torch.cuda.synchronize()
        yield 1e3 * start.elapsed_time(end) / len(inputs)


def graph_samples(side: Side, mode: str, inputs: list[Inputs], with_attention: bool) -> Iterator[float]:
    """Microseconds per call of one replay after another of a series captured as a graph."""
    return replays(*series(side, mode, inputs, with_attention), len(inputs))


def replays(prepare: Callable[..., object], run: Callable[..., object], calls: int) -> Iterator[float]:
    """Microseconds per call of one replay after another of `run(prepare())`, which makes so many calls.

    Only `run` is timed. Its graph ends with a count of its replays, one small kernel in the whole series. Replays are
    queued while the cache is flushed, so that the time to launch the graph does not count.
    """
    replayed = torch.zeros((), dtype=torch.int64, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run(prepare())
    torch.cuda.current_stream().wait_stream(stream)
    before, graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(before, stream=stream):
        prepared = prepare()
        replayed.add_(0)  # a graph must hold something
    with torch.cuda.graph(graph, pool=before.pool(), stream=stream):
        kept = run(prepared)
        replayed.add_(1)
    flush = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for expected in itertools.count(1):
        before.replay()
        flush.zero_()
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        if int(replayed) != expected:
            raise RuntimeError(f"{int(replayed)} replays ran on the device, {expected} were asked for")
        yield 1e3 * start.elapsed_time(end) / calls
    del kept


def in_turn(samplers: dict[str, Iterator[float]], seconds: float) -> dict[str, list[float]]:
    """Samples of every side, in turn, for so long in all: at least 5 rounds, at most 300; two rounds warm up."""
    for sampler in samplers.values():
        next(sampler), next(sampler)
    found: dict[str, list[float]] = {name: [] for name in samplers}
    start = time.perf_counter()
    for count in range(300):
        if count >= 5 and time.perf_counter() - start > seconds:
            break
        for name, sampler in samplers.items():
            found[name].append(next(sampler))
    return found


def copy_bandwidth(device: torch.device) -> float:
    """GB/s, read and written, of copying 512 MB: the median of 20 copies."""
    source = torch.zeros(2**27, device=device)
    target = torch.empty_like(source)

    def copies() -> Iterator[float]:
        while True:
            if device.type == "cuda":
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                target.copy_(source)
                end.record()
                torch.cuda.synchronize()
                yield start.elapsed_time(end) / 1e3
            else:
                began = time.perf_counter()
                target.copy_(source)
                yield time.perf_counter() - began

    seconds = list(itertools.islice(copies(), 23))[3:]
    return 2 * source.nbytes / 1e9 / percentiles(seconds)[1]


def percentiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = torch.tensor(values, dtype=torch.float64).quantile(torch.tensor([0.2, 0.5, 0.8]).double())
    return float(low), float(middle), float(high)


@dataclass(frozen=True)
class Bench:
    """What is common to a run's measurements."""

    device: torch.device
    dtype: str
    seconds: float
    stamp: record.Row
    copy_gb_s: float

    def inputs(self, batch: int, num_classes: int) -> list[Inputs]:
        """As many batches as a series has calls."""
        dtype, on_gpu = DTYPES[self.dtype], self.device.type == "cuda"
        if on_gpu:
            torch.cuda.empty_cache()  # graphs have pools of their own, which get nothing that an earlier size holds
        count = max(1, min(MAX_SERIES, COLD_BYTES // (batch * num_classes * dtype.itemsize))) if on_gpu else 4
        return make_inputs(count, batch, num_classes, table_rows(batch, num_classes), dtype, self.device)

    def measure(self, loss: str, batch: int, num_classes: int, modes: tuple[str, ...]) -> list[record.Row]:
        """All sides of one loss at one size."""
        torch._dynamo.reset()  # or the sides of earlier sizes count against the limit on recompilation
        on_gpu = self.device.type == "cuda"
        inputs = self.inputs(batch, num_classes)
        sides = sides_of(loss, table_rows(batch, num_classes), num_classes, self.device)
        rows = []
        for mode, graph in itertools.product(modes, (False, True) if on_gpu else (False,)):
            sample = cpu_samples if not on_gpu else graph_samples if graph else cuda_samples
            samplers = {
                name: sample(side, mode, inputs, loss == "nal")
                for name, side in sides.items()
                if not (graph and name == "authors_list")  # a list is read on the host: it cannot be captured
            }
            for name, samples in in_turn(samplers, self.seconds).items():
                rows.append(self.row(loss, batch, num_classes, name, mode, graph, samples, len(inputs)))
        return rows

    def row(
        self,
        loss: str,
        batch: int,
        num_classes: int,
        side: str,
        mode: str,
        graph: bool,
        samples: list[float],
        series: int,
    ) -> record.Row:
        """The record of one side's samples, each of a series of so many calls on a GPU. A mode beside MODES counts the
        bytes of "both"."""
        low, middle, high = percentiles(samples)
        counted = counted_bytes(
            loss, mode if mode in MODES else "both", batch, num_classes, DTYPES[self.dtype].itemsize
        )
        gb_s = counted / middle / 1e3
        row = {
            "side": side,
            "loss": loss,
            "mode": mode,
            "B": batch,
            "C": num_classes,
            "N": table_rows(batch, num_classes),
            "dtype": self.dtype,
            "graph": "yes" if graph else "no",
            "device": self.device.type,
            "us_p20": f"{low:.2f}",
            "us_p50": f"{middle:.2f}",
            "us_p80": f"{high:.2f}",
            "samples": len(samples),
            "calls_per_sample": series if self.device.type == "cuda" else 1,
            "counted_bytes": counted,
            "gb_s": f"{gb_s:.3f}",
            "copy_gb_s": f"{self.copy_gb_s:.1f}",
            "copy_share": f"{gb_s / self.copy_gb_s:.4f}",
            **self.stamp,
        }
        return {column: str(value) for column, value in row.items()}


def figure(row: record.Row) -> Figure:
    """A row of the record as a figure."""
    mode = row["mode"] + ("-graph" if row["graph"] == "yes" else "")
    return Figure.of(
        f"losses/{row['loss']}/{row['B']}x{row['C']}-{row['dtype']}/{mode}/{row['side']}",
        Spread(*(float(row[f"us_{percentile}"]) for percentile in ("p20", "p50", "p80"))),
        "us",
        "lower",
        int(row["samples"]),
        copy_share=float(row["copy_share"]),
        counted_bytes=int(row["counted_bytes"]),
    )


def summary(rows: list[record.Row]) -> Iterator[str]:
    """A line per loss, size and mode: medians in microseconds, and how many times the fused one each takes."""
    for _, group in itertools.groupby(rows, lambda row: (row["loss"], row["B"], row["C"], row["mode"], row["graph"])):
        by_side = {row["side"]: row for row in group}
        fused = by_side["fused"]
        own = float(fused["us_p50"])
        others = ", ".join(
            f"{name} {float(row['us_p50']):.1f} ({float(row['us_p50']) / own:.1f}x)"
            for name, row in by_side.items()
            if name != "fused"
        )
        graph = ", graph" if fused["graph"] == "yes" else ""
        share = f"{100 * float(fused['copy_share']):.3g} % of copy"
        where = f"{fused['loss']} ({fused['B']},{fused['C']}) {fused['mode']}{graph}"
        yield f"{where}: fused {own:.1f} us ({share}), {others}"


def size(text: str) -> tuple[int, int]:
    batch, _, num_classes = text.partition("x")
    return int(batch), int(num_classes)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="the two smallest sizes, elr and nal, forward and backward"
    )
    parser.add_argument("--losses", nargs="+", choices=LOSSES, help="default: ce, swce, elr and nal")
    parser.add_argument("--sizes", nargs="+", type=size, metavar="BxC", help="default: six, from 64x10 to 8192x21841")
    parser.add_argument("--modes", nargs="+", choices=MODES, help="default: all")
    parser.add_argument("--dtype", choices=DTYPES, help="of the logits; default: bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--seconds", type=float, help="per loss, size and mode, beside warm-up; default: 6, quick 2")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file; default: %(default)s")
    arguments = parser.parse_args(words)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        print(f"GPU: {torch.cuda.get_device_name()}")
    else:
        torch.set_num_threads(1)
        print("No GPU: this measures the CPU path on one thread; what a GPU would do is not measured.")
    if not on_gpu and not (arguments.quick or arguments.sizes):
        print("(512, 21841) stands in for (8192, 21841), which would take the references minutes and 20 GB.")
    device = torch.device("cuda" if on_gpu else "cpu")
    bench = Bench(
        device=device,
        dtype=arguments.dtype or ("bfloat16" if on_gpu else "float32"),
        seconds=arguments.seconds or (2 if arguments.quick else 6),
        stamp=record.stamp(),
        copy_gb_s=copy_bandwidth(device),
    )
    print(f"copy bandwidth {bench.copy_gb_s:.1f} GB/s, {bench.dtype} logits, {bench.stamp['machine']}")
    sizes = arguments.sizes or (QUICK_SIZES if arguments.quick else SIZES if on_gpu else CPU_SIZES)
    losses = arguments.losses or (("elr", "nal") if arguments.quick else USUAL_LOSSES)
    modes = tuple(arguments.modes or (("both",) if arguments.quick else MODES))
    for loss, (batch, num_classes) in itertools.product(losses, sizes):
        rows = bench.measure(loss, batch, num_classes, modes)
        record.append(arguments.output, rows, KEY)
        print("\n".join(summary(rows)), flush=True)


if __name__ == "__main__":
    main()
