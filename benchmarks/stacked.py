"""Stacked runs against separate ones, in images/s: K networks trained as one computation, and one after another.

    python -m benchmarks.stacked [--counts 8 32 128] [--method ce] [--batch-size 128] [--seconds 2] [--rounds 9]
        [--forms grouped channels_last products]

LeNet-5 on MNIST, or on generated images of its form, on the GPU where there is one, else on the CPU. A stack's figure
counts the images of all its runs. Runs that are trained one after another go through as many images a second as one of
them, whose step is `fastnoise train`'s own, with the gear and the loader that it chooses: the speed-up is the quotient.
The two take turns in one process. With --forms the stack is measured with its convolutions in each of them; by default
in the one that training takes. Writes benchmarks/results/stacked.csv, one row per K and form.
"""

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console
from torch import Tensor

from fastnoise.data import ImageDataset
from fastnoise.engine.stacked import Form, Stack
from fastnoise.recipes import recipe

from . import record
from .report import short
from .timing import spread
from .train import AHEAD, WARM_UP, Options, Side, build, drain, take_turn
from .workload import Workload, make_workload

RESULTS = record.RESULTS / "stacked.csv"
KEY = ("workload", "method", "runs", "form", "gear", "machine", "gpu", "date")
GOAL = 8
"""Times at K = 32 on a GPU."""


def make_stack(workload: Workload, count: int, method: str, device: torch.device, compile: str = "auto") -> Stack:
    """A stack of `count` runs that differ in their seeds and in their labels, 40 % of which are wrong."""
    dataset = ImageDataset(
        workload.name,
        workload.table,
        workload.table,
        tuple(str(label) for label in range(workload.num_classes)),
        workload.mean,
        workload.std,
    )
    base = recipe(method, "mnist").replace(
        {
            "model": workload.model,
            "width": workload.width,
            "batch_size": workload.batch_size,
            "drop_last": True,
            "crop_padding": workload.augmentation.crop_padding,
            "flip": workload.augmentation.flip,
            "device": device.type,
            "compile": compile,
        }
    )
    configs = [base.replace({"seed": seed, "noise_seed": seed}) for seed in range(count)]
    return Stack(configs, dataset, device, Console(quiet=True))


def stacked_side(stack: Stack) -> Side:
    """The stack's steps, warmed up, in the form that its convolutions have at present."""
    stack.step.recapture()
    stack.method.start_epoch(1)
    stack.networks.train()

    def batches() -> Iterator[tuple[Tensor, ...]]:
        for epoch in itertools.count(1):
            for number, batch in enumerate(stack.loaders.train.epoch(epoch)):
                stack.method.before_step(epoch, number, 0)
                yield batch

    side = Side(f"{stack.count} stacked, {stack.network.form}", batches(), stack.step.train, AHEAD, {})
    for _ in range(1 + WARM_UP[stack.device.type]):
        side.step(*next(side.batches))
    return side


def measure(workload: Workload, count: int, form: Form | None, options: Options) -> record.Row:
    """A row of figures for K = `count`."""
    device, size = options.device, workload.batch_size
    separate = build("fastnoise", workload, options)
    stack = make_stack(workload, count, options.method, device, options.engine.compile)
    if form is not None:
        stack.network.use(form)
    sides = (separate, size), (stacked_side(stack), count * size)
    rates: dict[str, list[float]] = {side.name: [] for side, _ in sides}
    try:
        steps = {}
        for side, images in sides:
            rate = take_turn(side, 2, images, device).images_per_second
            steps[side.name] = max(2, min(2000, round(options.seconds * rate / images)))
        for _ in range(options.rounds):
            for side, images in sides:
                drain(side, device)
                rates[side.name].append(take_turn(side, steps[side.name], images, device).images_per_second)
    finally:
        for side, _ in sides:
            side.batches.close()  # type: ignore[attr-defined]
        stack.loaders.close()
    one, many = rates.values()
    gain = spread([two / first for first, two in zip(one, many, strict=True)])
    first, second = spread(one), spread(many)
    print(
        f"K = {count:3} {stack.network.form:14} separate {short(first.median):>9} images/s, stacked "
        f"{short(second.median):>9} images/s: {short(gain.median)} times ({short(gain.low)} to {short(gain.high)})"
    )
    if device.type == "cuda" and count == 32:
        print(f"{'':8}goal on a GPU at K = 32: {GOAL} times")
    return {
        "workload": workload.key,
        "source": workload.source,
        "method": options.method,
        "runs": str(count),
        "form": stack.network.form,
        "gear": stack.step.gear.name,
        "separate_images_per_s": f"{first.median:.1f}",
        "stacked_images_per_s": f"{second.median:.1f}",
        "speed_up": f"{gain.median:.3f}",
        "speed_up_low": f"{gain.low:.3f}",
        "speed_up_high": f"{gain.high:.3f}",
        "rounds": str(options.rounds),
        **record.stamp(),
    }


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--counts", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--method", default="ce")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--forms", nargs="+", choices=get_args(Form), default=[None])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file; default: %(default)s")
    arguments = parser.parse_args(words)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True  # as in training: shapes are fixed, so the search for kernels pays once
    options = replace(Options(device, arguments.method), rounds=arguments.rounds, seconds=arguments.seconds)
    workload = make_workload("mnist", arguments.data_root, batch_size=arguments.batch_size)
    print(f"{workload.key}: {workload.source}; device {device}, {torch.get_num_threads()} torch threads")
    for count, form in itertools.product(arguments.counts, arguments.forms):
        row = measure(workload, count, form, options)
        record.append(arguments.output, [row], KEY)


if __name__ == "__main__":
    main()
