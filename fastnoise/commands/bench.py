"""fastnoise bench: figures of this machine, in a file that later ones are compared with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..config import EngineConfig
from ..errors import ConfigError, DataError, nearest
from ..helptext import REQUIRED
from ..models.names import check_model
from ..recipes import recipe

PARTS = ("losses", "noise", "consensus", "loader", "train")
"""What can be measured, in the order of `all`."""


@dataclass(frozen=True)
class BenchCommand:
    """Measure fastnoise against its alternatives, in turn, in one process.

    PART is losses, noise, consensus, loader, train or all. Examples:
      fastnoise bench all --quick --json today.json
      fastnoise bench train --dataset cifar10 --model resnet18 --data-root data
      fastnoise bench all --quick --compare before.json

    Threads on a CPU: the network computes on --threads, one per core by default (or OMP_NUM_THREADS in the
    environment), fastnoise's loader decodes on --loader-threads of its own, and each of the baseline's --workers is a
    process with one thread. Threads that find no free core make every step wait for the slowest: on a busy or shared
    machine give --threads 1, for all sides alike.
    """

    part: Annotated[str | None, REQUIRED, tyro.conf.Positional, tyro.conf.arg(metavar="PART")] = None
    """losses, noise, consensus, loader, train or all."""
    quick: bool = False
    """Few sizes and rounds: all parts in under five minutes on two cores."""
    json: str | None = None
    """File for the figures, with machine, versions, commit and date. It is written after each part."""
    compare: str | None = None
    """Earlier file of --json to compare with. Figures outside both spreads are marked."""
    data_root: str = "data"
    """Folder that holds the data sets. Nothing is downloaded. Generated images replace a data set that is missing."""
    dataset: str | None = None
    """Images of loader and train: digits, mnist, cifar10 or cifar100; by default mnist and cifar10."""
    model: str | None = None
    """Network of train."""
    method: str = "elr"
    """Method of train's fastnoise sides."""
    batch_size: int | None = None
    """Images per step of loader and train; 128 by default."""
    sides: tuple[str, ...] | None = None
    """Sides of train: ordinary, amp, compile, fastnoise, cross_entropy, each also @LOADER (as in amp@resident)."""
    loader: str = "auto"
    """Loader of the fastnoise sides."""
    gear: str = "auto"
    """Gear of the fastnoise sides: auto, eager, compiled, graphed or compiled_graphed."""
    rounds: int = 9
    """Number of turns of each side of loader and train."""
    seconds: float = 2.0
    """Length of a turn in seconds."""
    workers: int | None = None
    """Processes of the baseline's DataLoader; 8 by default, or the number of cores."""
    loader_threads: int = 2
    """CPU threads of fastnoise's loaders."""
    threads: int | None = None
    """CPU threads that compute; by default one per core."""
    device: str = "auto"
    """Device: auto, cpu, cuda or cuda:N. Losses are measured on the GPU where there is one."""


def run(command: BenchCommand) -> int:
    """Measure, print, write and compare; ConfigError and DataError in one line."""
    parts = [*PARTS, "all"]
    if command.part not in parts:
        what = "give a part" if command.part is None else f"unknown part {command.part!r}"
        raise ConfigError(f"fastnoise bench: {what}; {nearest(command.part or '', parts)}")
    for flag in ("rounds", "seconds", "loader_threads"):
        if not getattr(command, flag) > 0:
            raise ConfigError(f"--{flag.replace('_', '-')} must be positive, not {getattr(command, flag)}")
    for flag in ("workers", "batch_size", "threads"):
        value = getattr(command, flag)
        if value is not None and value < (0 if flag == "workers" else 1):
            raise ConfigError(f"--{flag.replace('_', '-')} must be {'0' if flag == 'workers' else '1'} or more")
    gears = ("auto", "eager", "compiled", "graphed", "compiled_graphed")
    if command.gear not in gears:
        raise ConfigError(f"--gear {command.gear}: valid: {', '.join(gears)}")
    recipe(command.method)
    if command.model is not None:
        check_model(command.model)
    import torch

    from ..benchmarks import report, suite, train
    from ..engine.step import choose_device

    old = None if command.compare is None else report.read(Path(command.compare))
    output = None if command.json is None else Path(command.json)
    if output is not None and not output.absolute().parent.is_dir():
        raise DataError(f"--json {output}: no such folder; create it")
    if command.threads is not None:
        torch.set_num_threads(command.threads)
    device = choose_device(command.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    options = train.Options(
        device,
        command.method,
        EngineConfig(gear=command.gear),  # type: ignore[arg-type]
        command.loader,
        train.default_workers() if command.workers is None else command.workers,
        command.loader_threads,
        command.rounds,
        command.seconds,
    )
    settings = suite.Settings(
        options,
        Path(command.data_root),
        command.quick,
        command.dataset,
        command.model,
        command.batch_size,
        command.sides,
    )
    figures: list[report.Figure] = []
    measured = PARTS if command.part == "all" else (command.part,)
    for part in measured:
        print(f"-- {part}", flush=True)
        figures += suite.PARTS[part](settings)
        if output is not None:
            report.write(output, figures)
    if output is not None:
        print(f"written: {output}, {len(figures)} figures")
    if old is not None:
        stamp, before = old
        before = [figure for figure in before if figure.key.partition("/")[0] in measured]
        print(f"-- against {command.compare}: {stamp['machine']}, {stamp['commit'][:12]}, {stamp['date']}")
        print("\n".join(report.compare(before, figures)))
    return 0
