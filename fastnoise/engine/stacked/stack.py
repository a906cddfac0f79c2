"""Several runs in one training."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ...checks import free_memory, require_memory
from ...config import Optimizer, RunConfig, Schedule
from ...data import ImageDataset, Loader
from ...errors import ConfigError, TrainingError
from ...methods import create_method
from ...methods.scan import Kept, keep
from ...models import Network, Outputs
from ...ops.looks import new_looks
from ...tasks.names import DEFAULT
from ...texts import counted
from ..checkpoint import place_of
from ..display import LABELS_ARE, mean_of_last, percent
from ..environment import describe_environment
from ..folder import RunFolder
from ..prepare import RunData, create_parts, image_dtype, load_data
from ..record import Record, open_folder
from ..step import choose_amp
from ..trainer import Training
from .batches import StackedLoader, StackedPlan, stacked_loaders
from .layers import StackedNetwork, fastest_form
from .method import StackedMethod, StackedStatistics


def own_folder(config: RunConfig) -> RunFolder | None:
    """The folder of the run, or None if the run has not begun. CheckpointError if the folder holds another run."""
    folder = RunFolder(Path(config.run_dir or ""))
    if config.run_dir is None or not folder.config.exists():
        return None
    folder.require(config)
    return folder


def own_checkpoint(config: RunConfig) -> dict[str, Any] | None:
    """The run's checkpoint on the CPU, None if there is none."""
    folder = own_folder(config)
    return None if folder is None else folder.read_checkpoint(torch.device("cpu"))


class Stack(Training):
    """K runs, trained as one.

    Args:
        configs: of `stackable` runs that have reached the same batch in training.
        dataset: the images that the configurations name.
        last: the epoch after which training ends. None: the runs' last epoch.
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        dataset: ImageDataset,
        device: torch.device,
        console: Console,
        last: int | None = None,
    ):
        self._states = [own_checkpoint(config) for config in configs]
        self.failures: list[str] = []
        self._found: list[Outputs] | None = None
        sets = [_shared(load_data(config, dataset), dataset) for config in configs]
        parts = [
            create_parts(config, data, device, fresh=state is None)
            for config, data, state in zip(configs, sets, self._states, strict=True)
        ]
        members, networks = [method for method, _ in parts], [each[0] for _, each in parts]
        _require_room(configs[0], sets, networks[0], device)  # type: ignore[arg-type]
        torch.manual_seed(configs[0].engine.seed)
        network = StackedNetwork(networks).to(device)  # type: ignore[arg-type]
        amp, _ = choose_amp(configs[0].engine.amp, device)
        dtype = image_dtype(members[0], amp)
        loaders = stacked_loaders(configs, sets, device, dtype)
        plan: StackedPlan = loaders.train.plan  # type: ignore[attr-defined]
        batches = {own.num_batches for own in plan.plans}
        if len(batches) > 1 and Optimizer.parse(configs[0].optim.optimizer).name != "sgd":
            raise ConfigError(
                f"these runs cannot be stacked: their epochs have {min(batches)} to {max(batches)} batches, and "
                f"{configs[0].optim.optimizer} counts steps for all runs together; take --drop-last or --optimizer sgd"
            )
        if len(batches) > 1 and Schedule.parse(configs[0].optim.schedule).by_step:
            raise ConfigError(
                f"these runs cannot be stacked: their epochs have {min(batches)} to {max(batches)} batches, and "
                f"{configs[0].optim.schedule} sets the rate of each step for all together; take --drop-last"
            )
        lead = create_method(configs[0].method, num_samples=plan.num_samples, num_classes=sets[0].task.num_outputs)
        method = StackedMethod(configs[0].method, lead.to(device), members, network, plan).to(device)
        labels = torch.from_numpy(np.concatenate([data.given for data in sets])).to(device)
        statistics = StackedStatistics(method, device, new_looks(labels) if sets[0].task.name == DEFAULT else None)
        records = [
            Record(config, data, own, statistics.part(number), labels[slice(*method.starts[number : number + 2])])
            for number, (config, data, own) in enumerate(zip(configs, sets, members, strict=True))
        ]
        super().__init__(
            records,
            method,
            nn.ModuleList([network]),
            loaders,
            labels,
            statistics,
            device,
            console,
            plan.batch_size,
            shape := (plan.batch_size // len(configs), len(configs), sets[0].channels, *sets[0].image_size),
            amp,
            place_of(self._states[0]),
            last,
        )
        method.optimizer = self.optimizer
        self.network, self.stacked = network, method
        if device.type == "cuda":
            network.use(fastest_form(network, torch.zeros(shape, dtype=dtype, device=device), amp))

    def begin(self) -> None:
        """Make the runs' folders, or use the existing ones, and load their checkpoints."""
        environment = describe_environment()
        for record in self.members:
            held = own_folder(record.config) is not None
            record.begin(open_folder(record.config, record.data) if held else None, environment, lock=True)
        if any(self._states):
            self.load([state for state in self._states if state is not None])
        self._states = []

    def settle(self) -> None:
        """Give each run's method the attention weights of its samples. The joint step records them for all runs at
        once."""
        for record in self.records:
            record.method.settle(record.statistics.attention)

    def end_epoch(self, epoch: int) -> None:
        self._found = None
        super().end_epoch(epoch)
        self._found = None

    def describe(self) -> list[str]:
        config, data = self.config, self.members[0].data
        size = "x".join(str(side) for side in data.image_size)
        width = max(len(str(record.folder.path)) for record in self.members)
        return [
            f"{self.count} runs at once of {config.method.method} on {config.data.dataset}: images {size}, "
            f"{len(data.test)} test images, {data.task.describe()}",
            f"networks: {self.count} x {config.model.model}, "
            f"{sum(p.numel() for p in self.network.parameters()) // self.count:,} parameters each; "
            f"convolutions: {self.network.form}; device: {self.device}; {self.step.gear.reason}; "
            f"{self.step.amp_reason}",
            f"loader: {self.loaders.train.name}: {self.loaders.train.reason}; "
            f"{counted(self.loaders.train.num_batches, 'batch', 'batches')} of "
            f"{config.data.batch_size} for each run an epoch",
            *(
                f"run folder: {record.folder.path!s:<{width}}  seed {record.config.engine.seed}, "
                f"{len(record.given)} training samples, {record.data.noisy.describe()}"
                for record in self.members
            ),
        ]

    def how_to_go_on(self) -> str:
        return "start the same runs again to continue"

    def fail(self, record: Record, error: TrainingError) -> None:
        """Continue without the run. Its weights become 0, so that its NaNs cannot spread to others."""
        self.records.remove(record)
        self.failures.append(f"{record.folder.path}: {error}")
        self._say(f"failed: {self.failures[-1]}")
        number = self.members.index(record)
        moments = [each for state in self.optimizer.state.values() for each in state.values()]
        with torch.no_grad():
            for tensor in (*self.network.parameters(), *self.network.buffers(), *moments):
                if isinstance(tensor, Tensor) and tensor.dim():
                    self.network.part(tensor, number).zero_()
        if not self.records:
            raise TrainingError(self.failures[0])

    def weights_of(self, record: Record) -> MutableMapping[str, Any]:
        return self.network.state_of(self.members.index(record))

    def load_weights(self, record: Record, weights: Mapping[str, Any]) -> None:
        self.network.load_state(self.members.index(record), weights)

    def part_of(self, record: Record, tensor: Tensor) -> Tensor:
        return self.network.part(tensor, self.members.index(record))

    def answers(self, loader: Loader) -> Iterator[tuple[Outputs, Tensor]]:
        self.networks.eval()
        self.method.eval()
        starts = torch.arange(self.count, device=self.device) * loader.num_samples
        for number, (images, index) in enumerate(loader.epoch(0)):
            if isinstance(loader, StackedLoader):
                self.stacked.sizes = loader.plan.sizes[number]
                outputs = self.step.evaluate(images, 0)  # batches of every size eagerly: only the test set is captured
            else:
                outputs = self.step.evaluate(images[:, None], loader.batch_size)
                index = (index[:, None] + starts).flatten()
            if outputs.logits.dim() == 3:
                outputs = outputs.map(lambda part: part.flatten(0, 1))
            yield outputs, index

    def networks_of(self, record: Record) -> list[Network]:
        """An empty list: stackable methods use only `scan`."""
        return []

    @torch.no_grad()
    def scan(
        self,
        record: Record,
        of: Callable[[Sequence[Outputs], Tensor], Kept],
        *,
        batch_statistics: bool = False,
        samples: NDArray[np.int64] | None = None,
    ) -> Kept:
        """Use one pass for all runs. Its logits and attention are kept until the epoch has ended, because the requests
        of the runs' methods come one after the other. `_require_room` counts this memory."""
        assert not batch_statistics
        assert samples is None
        if self._found is None:
            passed = self.answers(self.loaders.train_in_order)
            given = ((rows, tuple(part for part in outputs if part is not None)) for outputs, rows in passed)
            whole = keep(given, self.stacked.starts[-1])  # logits, and attention where the networks have the branch
            sizes = [len(each.given) for each in self.members]
            self._found = [Outputs(*parts) for parts in zip(*(table.split(sizes) for table in whole), strict=True)]
        own, count = self._found[self.members.index(record)], len(record.given)
        batches = torch.arange(count, device=self.device).split(self.config.data.batch_size)
        return keep(((index, of([own.take(index)], index)) for index in batches), count)

    def shown(self, figures: list[dict[str, Any]]) -> dict[str, Any]:
        """Means over the runs that have a figure, and the images per second of all runs together."""
        names = dict.fromkeys(name for each in figures for name in each)
        found = {name: [each[name] for each in figures if name in each] for name in names}
        mean = {
            name: float(np.mean(values)) if isinstance(values[0], float) else values[0]
            for name, values in found.items()
        }
        return mean | {"images_per_second": mean["images_per_second"] * self.count}

    def finish(self, summaries: list[dict[str, Any]]) -> None:
        given = f" {LABELS_ARE['given']}" * any("test_labels" in each for each in summaries)
        table = Table(title=f"{counted(len(summaries), 'run')}: test accuracy{given}")
        for name in ("run folder", "noise", "seed", "last epoch", mean_of_last(self.config.optim.epochs)):
            table.add_column(name)
        for record, summary in zip(self.records, summaries, strict=True):
            found = summary["test_accuracy"]
            table.add_row(
                summary["run_dir"],
                summary["noise"]["spec"],
                str(record.config.engine.seed),
                percent(found["last"]),
                percent(found["mean_last_10"]),
            )
        self.console.print(table)


def _shared(data: RunData, dataset: ImageDataset) -> RunData:
    """A run's data with the tables of the whole data set instead of copies of their parts. `positions` says which
    samples belong to the run."""
    return replace(data, train=dataset.train, validation=None if data.validation is None else dataset.train)


def _require_room(config: RunConfig, sets: Sequence[RunData], network: Network, device: torch.device) -> None:
    """Refuse a stack that does not fit into memory. The estimate is counted from one step. ConfigError or DataError."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    training = network.training
    images = torch.zeros((config.data.batch_size, sets[0].channels, *sets[0].image_size), device=device)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network.eval()(images)  # so that batch norm's statistics stay as they are
    network.train(training)
    weights = 4 * sum(parameter.numel() for parameter in network.parameters())  # with gradient and two moments
    samples = sum(len(data.given) for data in sets)
    size = len(sets) * (4 * weights + sum(kept.values())) + samples * (4 * sets[0].task.num_outputs + 64)
    what = f"a stack of {len(sets)} runs, of which fewer would fit"
    free = free_memory(device)
    if device.type == "cpu":
        require_memory(what, size)
    elif free is not None and size > free:
        raise ConfigError(
            f"{what}: this takes {size / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free on {device}"
        )
