"""Loaders alone in images/s: each kind of fastnoise's, and PIL images in a DataLoader.

    python -m benchmarks.loader [--dataset cifar10] [--batch-size 128] [--seconds 1] [--rounds 9]
    python -m benchmarks.loader --augment resize:256,crop:224,flip [--side 224] [--files 2048] [--batch-size 64]

Every side makes training batches of the same images: shuffled, cropped out of the padded image and flipped for images
in colour, normalised, float32. Nobody trains: a batch is taken and dropped, on a GPU once it is there. Sides take
turns, and batches made while others had theirs are used up first.

With --augment the images are JPEG files, written for it, and torchvision's transforms have the spec's words with the
same antialiased, bilinear resize.

Without a GPU `resident.host` stands for the resident loader on one: the Python that a batch takes there, by the same
lines with the kernel left out, in bfloat16. It bounds its images/s from above.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastnoise.data import LOADERS, Augmentation, make_loader
from fastnoise.errors import FastnoiseError

from . import report
from .ordinary import PREFETCH, batches
from .report import Figure
from .timing import spread
from .train import AHEAD, Options, default_workers, fastnoise_batches
from .workload import Workload, images_workload, jpeg_folder, make_workload

KINDS = tuple(kind for kind in LOADERS if kind != "auto")

WAIT = 64
"""Batches between two waits for a GPU: a wait takes longer than the resident loader's Python for a batch."""


@dataclass
class _Source:
    batches: Iterator[tuple[Tensor, ...]]
    ahead: int
    details: dict[str, Any]


def measure(
    workload: Workload,
    options: Options,
    say: Callable[[str], None] = print,
    *,
    dtype: torch.dtype = torch.float32,
    keep: Callable[[list[Figure]], None] = lambda figures: None,
    attempt: Callable[[str, Callable[[], None]], object] | None = None,
    kinds: Sequence[str] = KINDS,
) -> list[Figure]:
    """Images/s of every loader that serves the device, and how many times the fastest DataLoader's.

    `keep` is called with the figures so far, whenever a loader has had its first turn and after every further round.
    `attempt` is given the key of a loader and what builds it and gives it that turn; by default a loader that cannot be
    had here is said.
    """
    device = options.device
    key = f"{workload.name}-b{workload.batch_size}"
    say(f"{key}: {workload.source}; device {device}, {options.threads} loader threads")
    sources: dict[str, _Source] = {}
    rates: dict[str, list[float]] = {}

    def take(source: _Source) -> None:
        for tensor in next(source.batches):
            tensor.to(device, non_blocking=True)

    def turn(source: _Source) -> float:
        start = time.perf_counter()
        for _ in range(source.ahead + 1):
            take(source)
            if time.perf_counter() - start > options.seconds:
                break
        if device.type == "cuda":
            torch.cuda.synchronize()
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < options.seconds:
            take(source)
            count += 1
            if device.type == "cuda" and count % WAIT == 0:  # the host must not run away from the device
                torch.cuda.synchronize()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return count * workload.batch_size / (time.perf_counter() - start)

    def figures() -> list[Figure]:
        found = [
            Figure.of(
                f"loader/{key}/{name}", spread(rates[name]), "images/s", "higher", len(rates[name]),
                source=workload.source, threads=options.threads, torch_threads=torch.get_num_threads(),
                **source.details,
            )
            for name, source in sources.items()
        ]  # fmt: skip
        rivals = [name for name in sources if name.startswith("pil")]
        if rivals:
            fastest = max(rivals, key=lambda name: spread(rates[name]).median)
            for name in sources:
                if name not in rivals:
                    count = min(len(rates[name]), len(rates[fastest]))
                    ratios = [
                        own / other for own, other in zip(rates[name][-count:], rates[fastest][-count:], strict=True)
                    ]
                    ratio_key = f"loader/{key}/{name}:pil"
                    found.append(Figure.of(ratio_key, spread(ratios), "times", "higher", count, rival=fastest))
        return found

    def enter(name: str, make: Callable[[], _Source]) -> None:
        source = make()
        try:
            turn(source)  # warms up
            rates[name] = [turn(source)]
        except BaseException:
            source.batches.close()  # type: ignore[attr-defined]
            raise
        sources[name] = source
        keep(figures())

    makers: dict[str, Callable[[], _Source]] = {}
    for kind in kinds:
        makers[kind] = partial(_of_fastnoise, kind, workload, options, dtype)
    for workers in sorted({0, options.workers}):
        makers[f"pil{workers}"] = partial(_of_pil, workers, workload, device)
    try:
        for name, make in makers.items():
            (attempt or _said(say))(f"loader/{key}/{name}", partial(enter, name, make))
        for _ in range(options.rounds - 1):
            for name, source in sources.items():
                rates[name].append(turn(source))
            keep(figures())
    finally:
        for source in sources.values():
            source.batches.close()  # type: ignore[attr-defined]
    found = figures()
    if device.type == "cpu" and "resident" in kinds and find_spec("triton") is not None:
        found.append(host_time(workload, options.rounds))
        keep(found)
    return found


def _said(say: Callable[[str], None]) -> Callable[[str, Callable[[], None]], None]:
    def attempt(key: str, enter: Callable[[], None]) -> None:
        try:
            enter()
        except FastnoiseError as error:
            say(f"  {key.rpartition('/')[2]}: not measured: {error}")

    return attempt


def _of_fastnoise(kind: str, workload: Workload, options: Options, dtype: torch.dtype) -> _Source:
    stream, words = fastnoise_batches(workload, kind, options, dtype)
    next(stream)
    return _Source(stream, AHEAD, {"loader": words})


def _of_pil(workers: int, workload: Workload, device: torch.device) -> _Source:
    loop = batches(workload, workers, device)
    next(loop)
    return _Source(loop, PREFETCH * workers, {"workers": workers})


def host_time(workload: Workload, rounds: int) -> Figure:
    """Microseconds of Python for a batch of the resident loader on CUDA, over whole epochs; nothing is launched."""
    from fastnoise.kernels import augment

    loader: Any = make_loader(
        "resident",
        workload.table,
        batch_size=workload.batch_size,
        mean=workload.mean,
        std=workload.std,
        device="cpu",
        augmentation=workload.augmentation,
        shuffle=True,
        drop_last=True,
        dtype=torch.bfloat16,
    )
    loader._images = torch.from_numpy(workload.table.images)
    loader._produce = loader._on_device
    kernel = augment.augment_images
    augment.augment_images = _Nothing()
    whole, following = [], []
    try:
        for epoch in range(rounds + 1):
            start = time.perf_counter()
            batches = loader.epoch(epoch)
            next(batches)
            first = time.perf_counter()
            for _ in batches:
                pass
            end = time.perf_counter()
            if epoch:
                whole.append(1e6 * (end - start) / loader.num_batches)
                following.append(1e6 * (end - first) / max(1, loader.num_batches - 1))
    finally:
        augment.augment_images = kernel
        loader.close()
    key = f"loader/{workload.name}-b{workload.batch_size}/resident.host"
    details = {"source": workload.source, "us_of_a_later_batch": round(spread(following).median, 3)}
    return Figure.of(key, spread(whole), "us", "lower", rounds, **details)


class _Nothing:
    """A kernel that isn't launched."""

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return lambda *inputs, **words: None


def describe(figures: Sequence[Figure]) -> list[str]:
    return [
        figure.line() + (f"  of {figure.details['rival']}" if "rival" in figure.details else "") for figure in figures
    ]


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, help="of the DataLoader; default: 8, or the number of cores")
    parser.add_argument("--threads", type=int, default=2, help="of fastnoise's loaders; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--augment", help="a spec, on JPEG files instead of a data set")
    parser.add_argument("--side", type=int, default=224, help="of the JPEG files; default: %(default)s")
    parser.add_argument("--files", type=int, default=2048, help="JPEG files; default: %(default)s")
    parser.add_argument("--output", type=Path, help="JSON file whose figures of the same keys are replaced")
    arguments = parser.parse_args(words)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = Options(
        device,
        workers=default_workers() if arguments.workers is None else arguments.workers,
        threads=arguments.threads,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
    )
    if arguments.augment is None:
        workload = make_workload(arguments.dataset, arguments.data_root, batch_size=arguments.batch_size)
        figures = measure(workload, options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            workload = jpeg_workload(Path(folder), arguments)
            figures = measure(workload, options, kinds=("dali", "torch"))
    print("\n".join(describe(figures)))
    if arguments.output is not None:
        kept = report.read(arguments.output)[1] if arguments.output.exists() else []
        measured = {figure.key for figure in figures}
        report.write(arguments.output, [*(figure for figure in kept if figure.key not in measured), *figures])


def jpeg_workload(folder: Path, arguments: argparse.Namespace) -> Workload:
    """A folder of JPEG files and the augmentation that `--augment` names."""
    side, spec = arguments.side, arguments.augment
    table = jpeg_folder(folder / "images", arguments.files, side, 10)
    source = f"{arguments.files} smooth random JPEG files of {side} x {side} pixels"
    name = f"jpeg{side}-{spec.replace(':', '').replace(',', '-')}"
    workload = images_workload(table, source, name, "resnet18", arguments.batch_size, 10)
    return replace(workload, augmentation=Augmentation.parse(spec))


if __name__ == "__main__":
    main()
