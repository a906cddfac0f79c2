"""The parts of `fastnoise bench`, each a function from settings to figures."""

import contextlib
import io
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch

from . import consensus, loader, losses, noise, record, train
from .report import Figure
from .timing import Spread
from .workload import make_workload

GPU_SIDES = (
    "ordinary",
    "amp",
    "compile",
    "fastnoise",
    "cross_entropy",
    "fastnoise@synthetic",
    "amp@resident",
    "compile@resident",
)


@dataclass(frozen=True)
class Settings:
    options: train.Options
    data_root: Path = Path("data")
    quick: bool = False
    dataset: str | None = None
    model: str | None = None
    batch_size: int | None = None
    sides: tuple[str, ...] | None = None
    say: Callable[[str], None] = print


def _recorded(main: Callable[[list[str]], None], words: list[str]) -> list[record.Row]:
    """The rows that a benchmark with a CSV file of its own appends; what it prints is left out."""
    threads = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            main([*words, "--output", f"{folder}/rows.csv"])
            return record.read(Path(folder) / "rows.csv")
    finally:
        torch.set_num_threads(threads)  # the losses' benchmark sets them to one on a CPU


def _losses(settings: Settings) -> list[Figure]:
    rows = _recorded(losses.main, ["--quick", "--seconds", "1"] if settings.quick else [])
    return _said(settings, [losses.figure(row) for row in rows])


def _said(settings: Settings, figures: list[Figure]) -> list[Figure]:
    for figure in figures:
        settings.say(figure.line())
    return figures


REPEATS = 3


def _repeated(module: ModuleType, unit: str, quick: bool) -> list[Figure]:
    """Medians of REPEATS runs of a benchmark of the C++ core, which are the samples here."""
    words = ["--samples", "100000" if quick else "1000000", "--rounds", "3" if quick else "5"]
    name, values = module.__name__.rpartition(".")[2], dict[str, list[float]]()
    for _ in range(REPEATS):
        for row in _recorded(module.main, words):
            columns = [row[column] for column in module.COLUMNS if column != "isa"]
            key = "/".join((name, *columns)).replace(", ", "-").replace(" ", "-")
            values.setdefault(key, []).append(float(row[unit]))
    spreads = {key: Spread(min(each), statistics.median(each), max(each)) for key, each in values.items()}
    return [Figure.of(key, each, unit.replace("_per_", "/"), "lower", REPEATS) for key, each in spreads.items()]


def _noise(settings: Settings) -> list[Figure]:
    return _said(settings, _repeated(noise, "ns_per_label", settings.quick))


def _consensus(settings: Settings) -> list[Figure]:
    return _said(settings, _repeated(consensus, "ns_per_sample", settings.quick))


def _loader(settings: Settings) -> list[Figure]:
    options = settings.options
    options = replace(options, rounds=3, seconds=0.3) if settings.quick else replace(options, seconds=1.0)
    workload = make_workload(settings.dataset or "cifar10", settings.data_root, batch_size=settings.batch_size or 128)
    figures = loader.measure(workload, options, settings.say)
    for line in loader.describe(figures):
        settings.say(line)
    return figures


def _train(settings: Settings) -> list[Figure]:
    """On a CPU LeNet-5 on MNIST, where loading counts, and ResNet-18 on CIFAR-10, which is arithmetic alone; on a GPU
    ResNet-34 on CIFAR-10 at three batch sizes."""
    options = settings.options
    on_gpu = options.device.type == "cuda"
    sides = settings.sides or (GPU_SIDES if on_gpu else train.SIDES)
    if settings.dataset or settings.model or settings.batch_size:
        dataset = settings.dataset or "cifar10"
        cases = [(dataset, settings.model, settings.batch_size or 128, sides)]
    elif on_gpu:
        cases = [("cifar10", "resnet34", batch, sides) for batch in ((128,) if settings.quick else (64, 128, 512))]
    else:
        few = settings.sides or ("ordinary", "fastnoise")
        small = ("cifar10", "resnet18", 16, few) if settings.quick else ("cifar10", "resnet18", 128, sides)
        cases = [("mnist", "lenet5", 128, sides), small]
    if settings.quick:
        options = replace(options, rounds=5, seconds=0.5)
    figures = []
    for dataset, model, batch, names in cases:
        torch.compiler.reset()  # or the networks of earlier cases count against the limit on recompilation
        workload = make_workload(dataset, settings.data_root, model=model, batch_size=batch)
        here = train.measure(workload, options, names, settings.say)
        for line in train.describe(here):
            settings.say(line)
        figures += here
    return figures


PARTS: dict[str, Callable[[Settings], list[Figure]]] = {
    "losses": _losses,
    "noise": _noise,
    "consensus": _consensus,
    "loader": _loader,
    "train": _train,
}
