"""Training steps in images/s: fastnoise against the loop as the field writes it, side by side in one process.

    python -m benchmarks.train [--dataset cifar10] [--model resnet18] [--batch-size 128] [--seconds 2] [--rounds 9]

Sides, which train the same network on the same images with SGD, each on batches of its own:

    ordinary        PIL images and torchvision's transforms in a DataLoader, fp32, eager ELR with an N x C table
    amp             the same under autocast in channels_last
    compile         that with torch.compile
    fastnoise       ELR through fastnoise, with the gear and loader that it chooses
    cross_entropy   the same with plain cross-entropy: what robustness costs

SIDE@LOADER feeds a side from one of fastnoise's loaders (as in amp@resident, fastnoise@synthetic), which compares the
steps alone. More sides are the step of `fastnoise` with a fixed choice: uncompiled, compiled, combo_kernels and pdl
(compiled with that one of Inductor's options), fused_norm and compiled_fused_norm (`--fused-norm on`), triton_optimizer
and compiled_triton_optimizer (updates by the kernel of `fastnoise.ops.optimizer`), and joint (uncompiled, eight steps a
graph). Every side has its first turn as soon as it is built; then they take turns, of about `--seconds` each. Batches
that a loader prepared while others had their turn are used up before the clock starts, for as long as that takes less
than a second. GPU times are taken between CUDA events.
"""

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastnoise.config import EngineConfig, OptimConfig
from fastnoise.data import LOADERS, Loader, make_loader
from fastnoise.engine.metrics import EpochStatistics
from fastnoise.engine.optimizer import choose_optimizer_kernel, create_optimizer
from fastnoise.engine.step import Step, choose_amp, native_bf16
from fastnoise.errors import ConfigError, FastnoiseError, nearest
from fastnoise.methods import create_method
from fastnoise.models import create_model
from fastnoise.models.norm import chooses_fused, fuse_norms
from fastnoise.recipes import recipe

from . import counting
from .joint import steps_together
from .ordinary import PREFETCH, OrdinaryStep, batches
from .report import Figure
from .timing import spread
from .workload import Workload, make_workload

BASELINES = ("ordinary", "amp", "compile")
OWN: dict[str, dict[str, Any]] = {
    "fastnoise": {},
    "cross_entropy": {"method": "ce"},
    "uncompiled": {"compile": "off"},
    "compiled": {"compile": "on"},
    "combo_kernels": {"compile": "on", "compile_options": "combo_kernels"},
    "pdl": {"compile": "on", "compile_options": "pdl"},
    "fused_norm": {"compile": "off", "fused_norm": "on"},
    "compiled_fused_norm": {"compile": "on", "fused_norm": "on"},
    "triton_optimizer": {"compile": "off", "optimizer_kernel": "triton"},
    "compiled_triton_optimizer": {"compile": "on", "optimizer_kernel": "triton"},
    "joint": {"compile": "off", "steps_per_graph": 8},
}
"""Sides that are fastnoise's own step, and what each changes in `Options`: the method, fields of `engine`."""

ROADS = (*BASELINES, *OWN)
SIDES = (*BASELINES, "fastnoise", "cross_entropy")
"""Measured where nothing else is asked for."""

WARM_UP = {"cpu": 2, "cuda": 12}
"""Steps before the clock: compilation and kernel choice in the first, capture after the third."""

AHEAD = 4
"""Batches that a loader of fastnoise may hold ready."""


@dataclass(frozen=True)
class Options:
    device: torch.device
    method: str = "elr"
    engine: EngineConfig = field(default_factory=EngineConfig)
    loader: str = "auto"
    workers: int = 2
    """Of the ordinary loop's DataLoader."""
    threads: int = 2
    """Of fastnoise's loaders."""
    rounds: int = 9
    seconds: float = 2.0
    """Of a side's turn."""


@dataclass
class Side:
    name: str
    batches: Iterator[tuple[Tensor, ...]]
    step: Callable[..., object]
    ahead: int
    """Batches that can wait before a turn begins."""
    details: dict[str, Any]
    together: int = 1
    """Steps that are made at once, at the first of so many calls."""


@dataclass(frozen=True)
class Turn:
    images_per_second: float
    waiting: float
    """Share of the time between the end of one step and the arrival of the next batch."""


def fastnoise_step(
    workload: Workload, method: str, options: Options
) -> tuple[Callable[[Tensor, Tensor], object], Step]:
    """The step that `fastnoise train` makes, its running sums included."""
    torch.manual_seed(0)
    device, samples, classes = options.device, len(workload.table), workload.num_classes
    made = create_method(recipe(method, "cifar10").method, num_samples=samples, num_classes=classes).to(device)
    networks = [
        create_model(
            workload.model,
            num_classes=classes,
            channels=workload.shape[0],
            image_size=workload.shape[1:],
            width=workload.width,
            attention=made.attention,
        ).to(device)
        for _ in range(made.networks)
    ]
    for network in networks:
        network.train()
        if chooses_fused(options.engine.fused_norm, device):
            fuse_norms(network)
    made.attach(networks)
    made.start_epoch(1)
    statistics = EpochStatistics(samples, made.attention, device)
    step = Step(
        networks,
        made,
        create_optimizer(
            OptimConfig(),
            nn.ModuleList(networks),
            capturable=device.type == "cuda",
            kernel=choose_optimizer_kernel(options.engine, device),
        ),
        torch.from_numpy(workload.labels).to(device),
        batch_size=workload.batch_size,
        config=options.engine,
        device=device,
        observe=statistics.update,
    )
    return step.train, step


def fastnoise_batches(
    workload: Workload, kind: str, options: Options, dtype: torch.dtype, views: int = 1
) -> tuple[Iterator[tuple[Tensor, Tensor]], str]:
    """Batches of one of fastnoise's loaders, epoch after epoch, and what it is."""
    loader = _loader(workload, kind, options, dtype, views)

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        try:
            for epoch in itertools.count(1):
                yield from loader.epoch(epoch)
        finally:
            loader.close()

    return endless(), f"{loader.name}: {loader.reason}"


def _loader(workload: Workload, kind: str, options: Options, dtype: torch.dtype, views: int) -> Loader:
    return make_loader(
        kind,
        workload.table,
        batch_size=workload.batch_size,
        mean=workload.mean,
        std=workload.std,
        device=options.device,
        augmentation=workload.augmentation,
        shuffle=True,
        drop_last=True,
        threads=options.threads,
        views=views,
        dtype=dtype,
    )


def build(name: str, workload: Workload, options: Options) -> Side:
    """A side, warmed up. FastnoiseError where it cannot be had here."""
    road, _, kind = name.partition("@")
    if road not in ROADS or (kind and kind not in LOADERS):
        named = [*ROADS, *(f"{side}@{loader}" for side in ROADS for loader in LOADERS)]
        raise ConfigError(f"unknown side {name!r}; {nearest(name, named)}")
    on_gpu = options.device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(options.device)
        before = torch.cuda.memory_reserved(options.device)
    details: dict[str, Any] = {}
    if road in OWN:
        changes = dict(OWN[road])
        method = changes.pop("method", options.method)
        options = replace(options, engine=replace(options.engine, **changes))
        call: Callable[..., object]
        call, step = fastnoise_step(workload, method, options)
        together, words = options.engine.steps_per_graph, (workload, kind or options.loader, options)
        stream: Iterator[tuple[Tensor, ...]]
        dtype = step.amp or torch.float32
        if isinstance(together, int) and together > 1:
            found = _loader(*words, dtype, step.method.views)
            call, stream = steps_together(step, found, together)
            loader = f"{found.name}: {together} batches at a time, inside the step"
        else:
            stream, loader = fastnoise_batches(*words, dtype, step.method.views)
        details |= {"loader": loader, "gear": step.gear.reason, "amp": step.amp_reason}
        side = Side(name, stream, call, AHEAD, details, together if isinstance(together, int) else 1)
    else:
        side = _baseline(name, road, kind, workload, options)
    start = time.perf_counter()
    for count in range(1 + WARM_UP[options.device.type]):
        side.step(*next(side.batches))
        if count == 0:
            _synchronize(options.device)
            side.details["first_step_s"] = round(time.perf_counter() - start, 3)
    if on_gpu:
        torch.cuda.synchronize(options.device)
        side.details["peak_memory_gib"] = (torch.cuda.max_memory_reserved(options.device) - before) / 2**30
    return side


def _baseline(name: str, road: str, kind: str, workload: Workload, options: Options) -> Side:
    device = options.device
    amp: torch.dtype | None = None
    details: dict[str, Any] = {"amp": "fp32"}
    if road != "ordinary":
        if device.type == "cuda":
            amp, details["amp"] = choose_amp("auto", device)
        elif native_bf16():
            amp, details["amp"] = torch.bfloat16, "bf16: the CPU has it"
        else:
            details["amp"] = "fp32 in channels_last: without bf16 in the CPU, autocast would slow it down"
    step = OrdinaryStep(workload, device, amp=amp, channels_last=road != "ordinary", compiled=road == "compile")
    if not kind:
        details["loader"] = f"PIL images in a DataLoader with {options.workers} workers"
        stream = batches(workload, options.workers, device)
        return Side(name, stream, step, PREFETCH * options.workers, details)
    pairs, details["loader"] = fastnoise_batches(workload, kind, options, torch.float32)
    labels = torch.from_numpy(workload.labels).to(device)

    def with_labels() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for images, index in pairs:
            yield images, labels[index], index

    return Side(name, with_labels(), step, AHEAD, details)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def drain(side: Side, device: torch.device) -> None:
    """Use up what was prepared while the side was waiting, or what a second allows; at least one step."""
    start = time.perf_counter()
    for _ in range(max(1, side.ahead)):
        side.step(*next(side.batches))
        _synchronize(device)
        if time.perf_counter() - start > 1:
            break


def take_turn(side: Side, steps: int, batch_size: int, device: torch.device) -> Turn:
    """So many steps, timed."""
    if device.type == "cuda":
        return _gpu_turn(side, steps, batch_size)
    waiting, start = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(side.batches)
        waiting += time.perf_counter() - asked
        side.step(*batch)
    seconds = time.perf_counter() - start
    return Turn(steps * batch_size / seconds, waiting / seconds)


def _gpu_turn(side: Side, steps: int, batch_size: int) -> Turn:
    """Times on the device: what lies between the events around `next` is time without a step, the loader's own kernels
    included."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2 * steps + 1)]
    torch.cuda.synchronize()
    events[0].record()
    for number in range(steps):
        batch = next(side.batches)
        events[2 * number + 1].record()
        side.step(*batch)
        events[2 * number + 2].record()
    torch.cuda.synchronize()
    total = events[0].elapsed_time(events[-1])
    waiting = sum(events[2 * number].elapsed_time(events[2 * number + 1]) for number in range(steps))
    return Turn(1e3 * steps * batch_size / total, waiting / total)


class Contest:
    """Sides that train one workload, each measured as soon as it is built, then in turn.

    Args:
        workload, options: what all sides share.
        say: takes lines about what is built.
    """

    def __init__(self, workload: Workload, options: Options, say: Callable[[str], None] = print):
        self.workload, self.options, self.say = workload, options, say
        device = options.device
        torch.backends.cudnn.benchmark = True  # as in training: shapes are fixed, so the search for kernels pays once
        say(
            f"{workload.key}: {workload.source}, {len(workload.table):,} images of "
            f"{workload.shape[1]} x {workload.shape[2]}; device {device}, {torch.get_num_threads()} torch threads"
        )
        dtype = choose_amp(options.engine.amp, device)[0] or torch.float32
        counted = counting.count(
            workload.model, workload.batch_size, workload.shape, workload.num_classes, workload.width
        )
        machine = counting.this_machine(device, dtype)
        self.ceiling = counted.ceiling(machine, dtype.itemsize)
        say(
            f"counted: {counting.human(counted.flops_per_image, 'FLOP')} and "
            f"{counting.human(counted.bytes_per_image(dtype.itemsize), 'B')} an image; "
            f"{counting.human(machine.flops, 'FLOP/s')}, {counting.human(machine.bandwidth, 'B/s')} ({machine.words}): "
            f"ceiling {self.ceiling:,.0f} images/s"
        )
        self.sides: dict[str, Side] = {}
        self.turns: dict[str, list[Turn]] = {}
        self.steps: dict[str, int] = {}
        self.common = {
            "source": workload.source,
            "gflop_per_image": counted.flops_per_image / 1e9,
            "mb_per_image": counted.bytes_per_image(dtype.itemsize) / 1e6,
            "ceiling_images_per_s": self.ceiling,
            "ceiling_from": machine.words,
            "torch_threads": torch.get_num_threads(),
        }

    def enter(self, name: str) -> None:
        """Build a side and let it have its first turn. FastnoiseError where it cannot be had here."""
        side = build(name, self.workload, self.options)
        try:
            details = side.details
            words = "; ".join(str(details[key]) for key in ("gear", "amp", "loader") if key in details)
            self.say(f"  {name}: {words}; first step {details['first_step_s']:.2f} s")
            once = take_turn(side, 2 * side.together, self.workload.batch_size, self.options.device)
            per_step = self.workload.batch_size / once.images_per_second
            turns = max(1, min(2000, round(self.options.seconds / per_step)) // side.together)
            self.steps[name] = turns * side.together
            self.turns[name] = [self._turn(name, side)]
        except BaseException:
            side.batches.close()  # type: ignore[attr-defined]
            raise
        self.sides[name] = side

    def round(self) -> None:
        """A turn of every side."""
        for name, side in self.sides.items():
            self.turns[name].append(self._turn(name, side))

    def _turn(self, name: str, side: Side) -> Turn:
        drain(side, self.options.device)
        return take_turn(side, self.steps[name], self.workload.batch_size, self.options.device)

    def figures(self) -> list[Figure]:
        """Images/s of every side so far, and how many times each baseline's the sides of fastnoise reach; a ratio is of
        the turns that both have had since the later came in."""
        key, figures = f"train/{self.workload.key}", []
        for name, side in self.sides.items():
            turns = self.turns[name]
            rates = spread([turn.images_per_second for turn in turns])
            own = {
                **side.details,
                "data_wait": spread([turn.waiting for turn in turns]).median,
                "ceiling_share": rates.median / self.ceiling,
                "steps": self.steps[name],
            }
            figures.append(Figure.of(f"{key}/{name}", rates, "images/s", "higher", len(turns), **own, **self.common))
        for ours, other in _ratios(list(self.sides)):
            count = min(len(self.turns[ours]), len(self.turns[other]))
            ratios = [
                first.images_per_second / second.images_per_second
                for first, second in zip(self.turns[ours][-count:], self.turns[other][-count:], strict=True)
            ]
            figures.append(Figure.of(f"{key}/{ours}:{other}", spread(ratios), "times", "higher", count))
        return figures

    def close(self) -> None:
        """Let go of the sides and what they hold."""
        for side in self.sides.values():
            side.batches.close()  # type: ignore[attr-defined]
        self.sides.clear()


def measure(
    workload: Workload,
    options: Options,
    sides: Sequence[str] = SIDES,
    say: Callable[[str], None] = print,
    keep: Callable[[list[Figure]], None] = lambda figures: None,
) -> list[Figure]:
    """Images/s of every side, and how many times each baseline's the first side of fastnoise reaches.

    `keep` is called with the figures so far, whenever a side has had its first turn and after every further round.
    """
    contest = Contest(workload, options, say)
    try:
        for name in sides:
            try:
                contest.enter(name)
            except FastnoiseError as error:
                if name in SIDES:
                    raise
                say(f"  {name}: not measured: {error}")
                continue
            keep(contest.figures())
        for _ in range(options.rounds - 1):
            contest.round()
            keep(contest.figures())
        return contest.figures()
    finally:
        contest.close()


def _ratios(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Which sides are set against each other: fastnoise against all, fastnoise@LOADER against those fed alike, from
    DALI against synthetic batches. The sides with a fixed choice are set against all but each other's loaders."""
    for ours in names:
        road, _, kind = ours.partition("@")
        if road in OWN and road != "cross_entropy":
            yield from ((ours, other) for other in names if other != ours and kind in ("", other.partition("@")[2]))
        if kind == "dali" and f"{road}@synthetic" in names:
            yield ours, f"{road}@synthetic"


def describe(figures: Sequence[Figure]) -> list[str]:
    """A line per side and per ratio."""
    lines = []
    for figure in figures:
        extra = ""
        if figure.unit == "images/s":
            shares = figure.details
            extra = f"  waiting {shares['data_wait']:.1%}, {shares['ceiling_share']:.1%} of the ceiling"
            if "peak_memory_gib" in shares:
                extra += f", {shares['peak_memory_gib']:.2f} GiB"
        lines.append(figure.line() + extra)
    return lines


def default_workers() -> int:
    """Of the baseline's DataLoader: 8 as in ELR's repository, or as many as there are cores."""
    return min(8, os.cpu_count() or 1)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--model")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--method", default="elr")
    parser.add_argument("--sides", nargs="+", default=list(SIDES), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--workers", type=int, help="of the DataLoader; default: 8, or the number of cores")
    arguments = parser.parse_args(words)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = replace(
        Options(device, arguments.method, rounds=arguments.rounds, seconds=arguments.seconds),
        workers=default_workers() if arguments.workers is None else arguments.workers,
    )
    workload = make_workload(
        arguments.dataset, arguments.data_root, model=arguments.model, batch_size=arguments.batch_size,
        width=arguments.width,
    )  # fmt: skip
    print("\n".join(describe(measure(workload, options, arguments.sides))))


if __name__ == "__main__":
    main()
