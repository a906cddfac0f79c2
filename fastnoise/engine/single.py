"""A run by itself, from a configuration to a run folder."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from .. import own
from ..config import RunConfig
from ..data import ImageDataset, Loader
from ..data.names import short
from ..errors import ConfigError, TrainingError
from ..losses.tables import readable
from ..methods import Method
from ..methods.scan import Kept, keep
from ..models import Network, Outputs
from ..models.sync_norm import each_by_itself, synchronise
from ..ops.looks import new_looks
from ..recipes.rates import settle_rate
from ..tasks.names import DEFAULT
from ..texts import counted
from .checkpoint import fitted, place_of
from .display import how_to_resume, make_console, result_table
from .distributed import World, note_folder, require_together, restarted, together
from .environment import describe_environment
from .fitting import fit_networks
from .folder import ReadFolder, RunFolder
from .gradients import require_gradients
from .growth import smallest_size
from .metrics import EpochStatistics
from .prepare import (
    RunData,
    check_last_batch,
    create_parts,
    image_dtype,
    least_batch,
    load_data,
    make_loaders,
    settle_normalisation,
)
from .record import Record, open_folder
from .step import choose_amp, choose_device
from .threads import step_threads
from .trainer import Training
from .witness import Witness


def train(
    config: RunConfig,
    *,
    dataset: ImageDataset | None = None,
    resume: bool = False,
    console: Console | None = None,
    notes: Sequence[str] = (),
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run the training that `config` describes and write its run folder.

    Several processes that torchrun has started call it alike and train the run together, as `engine.distributed` says.

    Args:
        config: the full configuration, for example `fastnoise.recipes.recipe("nal", dataset.name)`. With `resume` it
            must be that of the run in `config.run_dir`.
        dataset: images and labels in memory (`ImageDataset.from_arrays`), instead of the data set that `config` names.
            `config.data.dataset` must be its name. Its labels are corrupted only if the configuration has a noise.
        resume: continue the run in `config.run_dir` from its last checkpoint.
        console: where progress and the final table go; standard output by default.
        notes: lines that the run shows when it starts, and keeps in environment.json.
        details: what it keeps there besides, in JSON's types (`RunFolder.detail`).

    Returns:
        The content of summary.json. "run_dir" is the run folder; accuracies are shares, from 0 to 1.

    Raises:
        FastnoiseError: for anything that the user can correct, before or during training; ConfigError, which is one, if
            it is in the configuration.
        Interrupted: after Ctrl-C or SIGTERM, when the state has been saved.
    """
    if not isinstance(config, RunConfig):
        raise ConfigError(f"the configuration must be a RunConfig, such as recipe(METHOD), not {type(config).__name__}")
    with together(config.engine.device) as world:
        config, resume = restarted(config, resume, world)
        data = world.main_first(lambda: load_data(config, dataset))
        data = replace(data, notes=(*data.notes, *notes), details=details or {})
        return train_on(config, data, resume=resume, console=console, world=world)


def train_on(
    config: RunConfig,
    data: RunData,
    *,
    resume: bool = False,
    console: Console | None = None,
    witness: Witness | None = None,
    world: World | None = None,
) -> dict[str, Any]:
    """`train` for data that is loaded already, such as a part of a data set.

    Args:
        witness: sees the outputs for the test images after each epoch. Its buffers are saved with the run.
        world: the processes that train the run together. None: this one alone, and ConfigError if it is one of several.
    """
    world = world or World.alone()
    console = (console or make_console()) if world.main else Console(quiet=True)
    device = choose_device(config.engine.device if world.size == 1 else world.device)
    require_together(config, data, world)
    config, rate_note = settle_rate(config, known=config.noise.noise != "none" or data.noisy.requested_rate == 0)
    config = settle_normalisation(config, data)
    if rate_note is not None:
        data = replace(data, notes=(*data.notes, rate_note))
    folder = open_folder(config, data, writes=world.main) if resume else None
    try:
        with step_threads(config, data, device):
            return _train(config, data, device, console, folder, witness, world)
    finally:
        if folder is not None:
            folder.release()


def _train(
    config: RunConfig,
    data: RunData,
    device: torch.device,
    console: Console,
    folder: RunFolder | None,
    witness: Witness | None,
    world: World,
) -> dict[str, Any]:
    """`train_on` in a folder that is locked, or in a new one."""
    checkpoint = None if folder is None else folder.read_checkpoint(device)
    run = Single(config, data, device, console, checkpoint, witness, world)
    if checkpoint is not None:
        run.lengthened(checkpoint)  # refuses what cannot be made longer before anything is written
    for name in [] if folder is None else folder.changed_code(config):
        console.print(f"warning: {name} has changed since the run was last started", soft_wrap=True, markup=False)
    try:
        note = partial(note_folder, world=world)
        path = world.first(lambda: run.record.begin(folder, describe_environment(), lock=True, made=note))
        if not world.main:
            run.record.folder = folder or ReadFolder(path)
        note(path)
        if checkpoint is not None:
            run.load([fitted(checkpoint, run.record, world)])
        return run.train(*place_of(checkpoint))[0]
    finally:
        run.loaders.close()
        if folder is None and run.record.folder is not None:
            run.record.folder.release()


class Single(Training):
    """A run by itself.

    Args:
        config: of the run.
        data: its data.
        device: to train on.
        console: where progress and the final table go.
        checkpoint: that the run is to go on from; `load` takes it up once the run has its folder.
        witness: as `train_on` takes it. It becomes a part of the method, whose buffers are in checkpoints.
        world: the processes that train the run together; by default this one alone.
    """

    def __init__(
        self,
        config: RunConfig,
        data: RunData,
        device: torch.device,
        console: Console,
        checkpoint: dict[str, Any] | None = None,
        witness: Witness | None = None,
        world: World | None = None,
    ):
        world = world or World()
        method, networks = create_parts(config, data, device, fresh=checkpoint is None, shards=world)
        own = len(data.given) // world.size
        ordered = type(method).order is not Method.order
        synced = config.model.batch_norm == "sync" and world.size > 1
        tried = ordered or own % config.data.batch_size == 1  # else no epoch can end in one image
        smallest = smallest_size(config, data.image_size)
        least = least_batch(data, networks, smallest) if tried and not synced else 1
        if (method.whole_batches or not method.shares) and config.data.epoch_batches is None:
            check_last_batch(config, data, least, world.size)
        require_gradients(config, data, method)
        if synced:
            synchronise(networks, world)
        if witness is not None:
            method.add_module("witness", witness.to(device))
        amp, _ = choose_amp(config.engine.amp, device)
        loaders = make_loaders(
            config,
            data,
            device,
            method.views,
            method.weak_views,
            image_dtype(method, amp),
            (world.rank, world.size),
            share_batches=method.shares > 0,
        )
        if checkpoint is None:
            fit_networks(config, networks, loaders.train_in_order)
        method.attach(list(networks))  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        if world.rank:  # dropout and whatever else a network draws: other numbers in each process
            torch.manual_seed((config.engine.seed + world.rank) % 2**63)
        labels = torch.from_numpy(data.task.table(data.given)).to(
            device, copy=True
        )  # which methods may change, unlike what is given
        statistics = EpochStatistics(
            len(data.given),
            method.attention,
            device,
            answers=data.task.unseen(len(data.given), device),
            looks=new_looks(labels) if data.task.name == DEFAULT else None,
            skips=amp == torch.float16,
            anywhere=method.shares > 0 and world.size > 1,
        )
        self.record = Record(config, data, method, statistics, labels)
        batch_size = min(config.data.batch_size, own)
        super().__init__(
            [self.record],
            method,
            networks,
            loaders,
            labels,
            statistics,
            device,
            console,
            batch_size,
            (batch_size, data.channels, *data.image_size),
            amp,
            place_of(checkpoint),
            witness=witness,
            world=world,
        )
        self.least = least * max(1, method.shares)

    def describe(self) -> list[str]:
        config, data, loader = self.config, self.record.data, self.loaders.train
        what, form = "image", "x".join(str(side) for side in data.image_size)
        if data.train.is_features:
            what, form = "feature", f"of {data.channels} numbers"
        lines = [
            f"{own.short(config.method.method)} on {short(config.data.dataset)}: "
            f"{counted(len(data.train), f'training {what}')} {form}, {counted(len(data.test), f'test {what}')}, "
            + "".join(f"{len(table)} of {name}, " for name, table in data.second_tests.items())
            + data.task.describe(),
            f"labels: {data.noisy.describe()}",
            *data.notes,
            *getattr(getattr(self.networks[0], "backbone", None), "notes", ()),
            f"network: {'' if len(self.networks) == 1 else f'{len(self.networks)} x '}{config.model.model}, "
            f"{sum(p.numel() for p in self.networks[0].parameters()):,} parameters; "
            f"device: {self.device}; {self.step.gear.reason}; {self.step.amp_reason}",
            f"loader: {loader.name}: {loader.reason}; "
            f"{counted(self.num_batches, 'batch', 'batches')} of {loader.batch_size} an epoch"
            + (f"; {self.stepping.together} steps at a time" if self.stepping.together > 1 else ""),
            *self.course.describe(),
            *self.growth.describe(),
            f"run folder: {self.record.folder.path}",
        ]
        if config.engine.target_place == "host":
            lines.insert(-1, _about_host_tables(self.method, self.device))
        if config.data.balance != "none":
            counts = np.bincount(data.given, minlength=len(data.class_names))
            few, many = int(np.where(counts > 0, counts, len(data.given) + 1).argmin()), int(counts.argmax())
            least, most = (f"{counts[label]} ({data.class_names[label]})" for label in (few, many))
            lines.append(f"balance: {config.data.balance}; classes have {least} to {most} training images")
        if data.validation is not None:
            lines[0] += f", {len(data.validation)} held out for validation"
        if (size := self.world.size) > 1:
            lines.insert(
                -1,
                f"processes: {size} ({self.world.backend}), each with batches of {loader.batch_size}: {size} x "
                f"{loader.batch_size} = {size * loader.batch_size} images a step; the learning rate stays as given",
            )
        return lines

    def how_to_go_on(self) -> str:
        processes = "" if self.world.size == 1 else f" --gpus {self.world.size}, or by torchrun with as many processes"
        return f"go on with: {how_to_resume(self.record.folder.path, self.config.flat())}{processes}"

    def fail(self, record: Record, error: TrainingError) -> None:
        raise error

    def networks_of(self, record: Record) -> list[Network]:
        return list(self.networks)  # type: ignore[arg-type]

    def shown(self, figures: list[dict[str, Any]]) -> dict[str, Any]:
        return figures[0]

    def finish(self, summaries: list[dict[str, Any]]) -> None:
        self.console.print(result_table(summaries[0]))
        self._say(f"run folder: {self.record.folder.path}")

    def settle(self) -> None:
        """Nothing is shared: the method has seen its own steps."""

    def weights_of(self, record: Record) -> MutableMapping[str, Any]:
        return self.networks.state_dict()

    def load_weights(self, record: Record, weights: Mapping[str, Any]) -> None:
        self.networks.load_state_dict(weights)

    def part_of(self, record: Record, tensor: Tensor) -> Tensor:
        return tensor

    def answers(self, loader: Loader) -> Iterator[tuple[Outputs, Tensor]]:
        self.networks.eval()
        self.method.eval()
        count = loader.num_samples
        order = None if self.world.size == 1 else self.world.padded(count)
        batches = loader.epoch(0, order=order)
        found = ((self.step.evaluate(images, loader.batch_size), index) for images, index in batches)
        yield from found if self.world.size == 1 else self.world.interleaved(found, count)

    @torch.no_grad()
    def scan(
        self,
        record: Record,
        of: Callable[[Sequence[Outputs], Tensor], Kept],
        *,
        batch_statistics: bool = False,
        samples: NDArray[np.int64] | None = None,
    ) -> Kept:
        if batch_statistics:  # the processes have parts of the samples, not batches that go together
            with each_by_itself(self.networks):
                return self._scanned(record, of, True, samples)
        return self._scanned(record, of, False, samples)

    def _scanned(
        self,
        record: Record,
        of: Callable[[Sequence[Outputs], Tensor], Kept],
        batch_statistics: bool,
        samples: NDArray[np.int64] | None,
    ) -> Kept:
        self.networks.train(batch_statistics)
        self.method.eval()
        running = [buffer.clone() for buffer in self.networks.buffers()] if batch_statistics else []
        count, world = len(record.given), self.world
        order, divided = samples, world.size > 1
        if divided:
            everyone = np.arange(count) if samples is None else samples
            of_each = np.bincount(everyone % world.size, minlength=world.size)
            if divided := bool(of_each.all()):  # else a process would have nothing to share, and all pass over all
                order = everyone[everyone % world.size == world.rank]
        batches = self.loaders.train_in_order.epoch(0, 0, order)
        found = keep(((index, of(self.step.evaluate_each(images), index)) for images, index in batches), count)
        for table in () if found is None or not divided else (found,) if isinstance(found, Tensor) else found:
            world.share_(table)
        if batch_statistics:
            for buffer, before in zip(self.networks.buffers(), running, strict=True):
                buffer.copy_(before)
        self.networks.train()
        self.method.train()
        return found


def _about_host_tables(method: Method, device: torch.device) -> str:
    tables = method.state_dict()
    size = readable(sum(tables[name].nbytes for name in method.sharded()))
    if device.type == "cpu":
        return f"targets: {size} in host memory, where they are anyhow on a CPU"
    return f"targets: {size} in page-locked host memory, of which a step reads and writes the rows of its batch"
