"""Several runs of a small network trained as one, each as `train` would train it alone.

A small network leaves a GPU waiting for launches. Here the layers of K networks are joined: activations have the
channels of all runs side by side, [B, K * channels, H, W], so that a convolution becomes one of K groups, batch norm
takes each run's own statistics as it is, a linear layer is one batched product, and everything that works on each
channel by itself is unchanged. Every parameter is the K runs' own, one after the other in its first dimension: what an
optimiser that works elementwise makes of it is what it makes of each. Runs see their own images in their own order, and
have their own labels, targets, figures and folders.
"""

import copy
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from .. import own
from ..checks import free_memory, require_memory
from ..config import FREE_ON_RESUME, Optimizer, RunConfig
from ..data import Augmentation, ImageDataset, ImageTable, Loader, make_loader
from ..data.base import aligned_part, upload
from ..data.plan import Batch, Plan, PlannedEpoch
from ..errors import CheckpointError, ConfigError, TrainingError
from ..methods import Forward, Method, create_method
from ..methods.options import NALOptions
from ..methods.scan import Kept, keep
from ..methods.single import NoiseAttention
from ..models import Network, Outputs
from ..options import MethodOptions
from .display import make_console, percent
from .environment import describe_environment
from .folder import CHECKPOINT_FORMAT, RunFolder
from .metrics import EpochStatistics, Evaluation
from .prepare import Loaders, Task, check_names, image_dtype, load_images, load_task
from .record import Part, Record
from .step import choose_amp, choose_device, load_optimizer
from .trainer import Training, begin, create_parts, open_folder, place_of

METHODS = (
    "apl", "bootstrap", "ce", "elr", "focal", "gce", "label_smoothing", "mae", "nal", "sce", "swce_loss",
)  # fmt: skip
"""Methods that train one network by a fused loss of each sample by itself."""

PER_RUN = frozenset({"seed", "noise", "noise_seed", "labels", "run_dir"})
"""Fields in which stacked runs may differ."""

PER_SAMPLE = ("criterion.targets", "kept")
"""Buffers of the methods with a row for each sample."""

WRITERS = 8
"""Checkpoints that are written at a time."""

Form = Literal["grouped", "channels_last", "products"]
"""How joined convolutions run: as grouped ones in either memory format, or as batched products of unfolded images."""


def stackable(configs: Sequence[RunConfig]) -> str | None:
    """Why these runs cannot be trained as one, in one line; None where they can.

    What only the data show is found by `train_stacked`.
    """
    if not configs:
        return "there is no run to train"
    first, *rest = configs
    if first.method.method not in METHODS:
        return f"method {first.method.method} trains in a way of its own; runs of {', '.join(METHODS)} can be stacked"
    if own.is_own(first.model.model):
        return f"model {first.model.model} is one of your own, whose layers may mix what belongs to different runs"
    if isinstance(first.method, NALOptions) and first.method.attention == "confidence":
        return "nal with --attention confidence has no attention branch whose weights are kept by run"
    if first.engine.amp == "fp16":
        return "fp16 loss scaling skips the steps of all runs where one overflows; take --amp bf16 or off"
    if first.engine.profile:
        return "a profile is of one run; drop --profile"
    common = first.flat()
    for config in rest:
        for name, value in config.flat().items():
            if name not in PER_RUN and value != common[name]:
                return f"{name} differs: {common[name]} and {value}; runs with one {name} can be stacked"
    folders = [config.run_dir for config in configs if config.run_dir is not None]
    if len(set(folders)) < len(folders):
        return f"two runs have the folder {next(name for name in folders if folders.count(name) > 1)}"
    return None


def train_stacked(configs: Sequence[RunConfig], *, console: Console | None = None) -> list[dict[str, Any]]:
    """Train several runs at once as one batched computation on one device; each writes its run folder as `train` does.

    Weights, batches and augmentation of a run are those that `train` gives it. What differs is rounding, and with
    dropout the masks, which all runs draw from one stream of random numbers. A run whose `run_dir` holds it already
    goes on from its checkpoint, or is only read if it is complete; those behind others catch up with them first. A
    checkpoint of a stacked run is one that `train` can resume, too.

    Where a run's loss is no finite number the others go on, and TrainingError is raised when they are done.

    Args:
        configs: equal but for PER_RUN (`stackable`).
        console: where progress and a final table go; standard output by default.

    Returns:
        What each run's summary.json holds, in the order of `configs`. In "throughput", stacked_runs says how many runs
        were trained at once, images_per_second is the run's own share, and seconds and memory are the stack's.

    Raises:
        ConfigError: `stackable` gives a reason, the memory does not suffice, or the runs' training sets are cut into
            different numbers of batches and the optimiser is not SGD.
        FastnoiseError: for anything else that the user can mend.
        Interrupted: after Ctrl-C or SIGTERM, once the states are saved.
    """
    obstacle = stackable(configs)
    if obstacle is not None:
        raise ConfigError(f"these runs cannot be stacked: {obstacle}")
    console = console or make_console()
    device = choose_device(configs[0].engine.device)
    if choose_amp(configs[0].engine.amp, device)[0] == torch.float16:
        raise ConfigError("runs are not stacked in fp16, whose loss scaling is of all at once; give --amp off")
    for config in configs:
        check_names(config)
    dataset = load_images(configs[0])
    summaries: dict[int, dict[str, Any]] = {}
    failures: list[str] = []
    places: dict[tuple[int, int], dict[int, RunConfig]] = {}
    for number, config in enumerate(configs):
        folder = _own_folder(config)
        if folder is not None and folder.summary.exists():
            summaries[number] = json.loads(folder.summary.read_text())
        else:
            places.setdefault(place_of(_checkpoint(config)), {})[number] = config
    while places:
        here = min(places)
        members = places.pop(here)
        # Runs that a kill left behind others, which had been saved already, catch up with them.
        ahead = min((place for place in places if place[1] == 0), default=None)
        last = None if ahead is None else ahead[0] - 1
        stack = Stack(list(members.values()), dataset, device, console, last)
        try:
            stack.begin()
            found = stack.train(*here, last)
        except TrainingError:
            if stack.records:
                raise
            found = []
        finally:
            stack.loaders.close()
        failures += stack.failures
        number_of = dict(zip(stack.members, members, strict=True))
        if ahead is None:
            summaries |= {number_of[record]: summary for record, summary in zip(stack.records, found, strict=True)}
        else:
            for record in stack.records:
                places[ahead][number_of[record]] = record.config.replace({"run_dir": str(record.folder.path)})
            places[ahead] = dict(sorted(places[ahead].items()))
    if failures:
        others = f", the other {len(summaries)} are complete" if summaries else ""
        raise TrainingError(f"{len(failures)} of {len(configs)} runs failed{others}; {failures[0]}")
    return [summaries[number] for number in range(len(configs))]


def _own_folder(config: RunConfig) -> RunFolder | None:
    """The folder of the run, None where it is yet to begin; CheckpointError where the folder holds another run."""
    folder = RunFolder(Path(config.run_dir or ""))
    if config.run_dir is None or not folder.config.exists():
        return None
    stored, wanted = folder.read_config().flat(), config.flat()
    for name, value in wanted.items():
        if name not in FREE_ON_RESUME and stored[name] != value:
            raise CheckpointError(
                f"{folder.path} holds another run: its {name} is {stored[name]}, not {value}; choose another folder"
            )
    return folder


def _checkpoint(config: RunConfig) -> dict[str, Any] | None:
    """The run's checkpoint on the CPU, None where there is none."""
    folder = _own_folder(config)
    return None if folder is None else folder.read_checkpoint(torch.device("cpu"))


# -- joined layers -------------------------------------------------------------------------------------------


class JoinedConv2d(nn.Conv2d):
    """Convolutions of K runs as one: x [B, K * channels, H, W], weight [K * out, channels, kh, kw], bias [K * out].

    In the form "products" images are unfolded to patches, and the convolution is a matrix product for each image and
    run. That takes kh * kw times the memory, and doesn't depend on how well convolutions of small groups are made.
    """

    form: Form = "grouped"

    def __init__(self, layers: Sequence[nn.Conv2d]):
        first, count = layers[0], len(layers)
        super().__init__(
            count * first.in_channels,
            count * first.out_channels,
            first.kernel_size,  # type: ignore[arg-type]
            first.stride,  # type: ignore[arg-type]
            first.padding,  # type: ignore[arg-type]
            first.dilation,  # type: ignore[arg-type]
            count * first.groups,
            first.bias is not None,
            first.padding_mode,
            device="meta",
        )
        assert not isinstance(first.padding, str)
        self.sides: tuple[int, ...] = first.padding
        _join_tensors(self, layers)

    def forward(self, x: Tensor) -> Tensor:
        if self.form != "products":
            return super().forward(x)
        batch, _, *sides = x.shape
        if torch.is_autocast_enabled(x.device.type):  # the patches should not be made in full precision
            x = x.to(torch.get_autocast_dtype(x.device.type))
        patches = nn.functional.unfold(
            x.reshape(batch * self.groups, -1, *sides),
            self.kernel_size,
            self.dilation,
            self.sides,
            self.stride,
        ).unflatten(0, (batch, self.groups))
        weight = self.weight.reshape(1, self.groups, self.out_channels // self.groups, -1)
        height, breadth = (
            (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for side, padding, dilation, kernel, stride in zip(
                sides, self.sides, self.dilation, self.kernel_size, self.stride, strict=True
            )
        )
        out = torch.matmul(weight, patches).reshape(batch, self.out_channels, height, breadth)
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)


class JoinedLinear(nn.Linear):
    """Linear layers of K runs as one batched product: x [B, K * in], weight [K * out, in], bias [K * out]."""

    def __init__(self, layers: Sequence[nn.Linear]):
        first, self.count = layers[0], len(layers)
        super().__init__(first.in_features, self.count * first.out_features, first.bias is not None, device="meta")
        _join_tensors(self, layers)

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.unflatten(1, (self.count, -1)).transpose(0, 1)
        weight = self.weight.unflatten(0, (self.count, -1)).transpose(1, 2)
        if self.bias is None:
            out = torch.bmm(inputs, weight)
        else:
            out = torch.baddbmm(self.bias.unflatten(0, (self.count, 1, -1)), inputs, weight)
        return out.transpose(0, 1).flatten(1)


def _join_tensors(joined: nn.Module, layers: Sequence[nn.Module]) -> None:
    """Give a layer the tensors of its K originals: in the first dimension one after the other, counters as they are."""
    states = [layer.state_dict() for layer in layers]
    for name, tensor in states[0].items():
        whole = torch.cat([state[name] for state in states]) if tensor.dim() else tensor.clone()
        if name in joined._parameters:
            joined._parameters[name] = nn.Parameter(whole)
        else:
            joined._buffers[name] = whole


def join(modules: Sequence[nn.Module]) -> nn.Module:
    """K modules of one form as one that works on activations with the channels of all K side by side.

    Its tensors have the names of the originals'. ConfigError for a layer that works otherwise than channel by channel
    and has no joined form.
    """
    first = modules[0]
    if isinstance(first, nn.Conv2d) and first.padding_mode == "zeros" and not isinstance(first.padding, str):
        return JoinedConv2d(modules)  # type: ignore[arg-type]
    if isinstance(first, nn.Linear):
        return JoinedLinear(modules)  # type: ignore[arg-type]
    joined = copy.copy(first)
    joined.__dict__.update(_parameters={}, _buffers={}, _modules={})
    if isinstance(first, nn.BatchNorm2d):
        joined.__dict__.update(
            num_features=len(modules) * first.num_features,
            _parameters=dict.fromkeys(first._parameters),
            _buffers=dict.fromkeys(first._buffers),  # the models' own batch norm has no counter: it stays None
        )
        _join_tensors(joined, modules)
    elif first._parameters or first._buffers or isinstance(first, (nn.LayerNorm, nn.GroupNorm, nn.Softmax)):
        raise ConfigError(f"networks with a layer of type {type(first).__name__} cannot be stacked")
    joined._modules = {
        name: None if child is None else join([module._modules[name] for module in modules])  # type: ignore[misc]
        for name, child in first._modules.items()
    }
    return joined


class StackedNetwork(nn.Module):
    """K networks of one form as one; each tensor holds theirs one after the other in its first dimension."""

    def __init__(self, networks: Sequence[Network]):
        super().__init__()
        self.count = len(networks)
        self.body = join(networks)
        self.form: Form = "grouped"
        self._one = (networks[0],)  # in a tuple, so that its weights are not among this module's

    def use(self, form: Form) -> None:
        """Run convolutions in this form; parameters stay the tensors that they are."""
        self.form = form
        layout = torch.channels_last if form == "channels_last" else torch.contiguous_format
        self.body.to(memory_format=layout)
        for module in self.modules():
            if isinstance(module, JoinedConv2d):
                module.form = form

    def forward(self, images: Tensor) -> Outputs:
        """Logits [B, K, C], attention [B, K] and features [B, K, F] for images [B, K, channels, H, W], or for
        [B, 1, ...] that all runs get."""
        x = images.expand(-1, self.count, -1, -1, -1).flatten(1, 2)
        if self.form == "channels_last":
            x = x.contiguous(memory_format=torch.channels_last)
        logits, attention, features = self.body(x)
        attention = None if attention is None else attention.reshape(-1, self.count)  # [B] where K is 1
        features = None if features is None else features.unflatten(1, (self.count, -1))
        return Outputs(logits.unflatten(1, (self.count, -1)), attention, features)

    def each(self, images: Tensor, sizes: Sequence[int]) -> Outputs:
        """The runs one by one, for batches of unequal size: logits [R, C], attention [R] and features [R, F] of images
        [R, ...].

        Args:
            images: of the first run, then of the second, and so on.
            sizes: R as a sum over the runs; a run with 0 is left out.
        """
        network = self._one[0].train(self.training)
        found = []
        for number, part in enumerate(images.split(list(sizes))):
            if len(part):
                weights = {name: self.part(tensor, number) for name, tensor in self.body.named_parameters()}
                running = {name: self.part(tensor, number) for name, tensor in self.body.named_buffers()}
                # The counters, which the runs share, would count the runs.
                running = {name: tensor if tensor.dim() else tensor.clone() for name, tensor in running.items()}
                found.append(torch.func.functional_call(network, {**weights, **running}, (part,)))
        if self.training:
            for module in self.body.modules():
                if isinstance(module, nn.BatchNorm2d) and module.num_batches_tracked is not None:
                    module.num_batches_tracked += 1
        attention = None if found[0].attention is None else torch.cat([outputs.attention for outputs in found])
        features = None if found[0].features is None else torch.cat([outputs.features for outputs in found])
        return Outputs(torch.cat([outputs.logits for outputs in found]), attention, features)

    def part(self, tensor: Tensor, number: int) -> Tensor:
        """Run `number`'s part of a parameter, a buffer or an optimiser's state: a view; what has no dimensions is
        common to all."""
        return tensor.chunk(self.count)[number] if tensor.dim() else tensor


# -- batches -------------------------------------------------------------------------------------------------


class StackedPlan(Plan):
    """The plans of several runs over one table, step by step.

    A step in which every run has as many samples takes them in turn: sample 0 of each run, sample 1 of each, ... In
    others, at the end of epochs of unequal length, each run's samples come together.

    Args:
        plans: of the runs, alike but for the number of samples and the seed.
        positions: for each run the places in the table of its samples.
    """

    def __init__(self, plans: Sequence[Plan], positions: Sequence[NDArray[np.int64]]):
        vars(self).update(vars(plans[0]))  # what loaders ask of augmentation
        self.plans, self.positions = plans, positions
        counts = [plan.num_samples for plan in plans]
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        """Of each run's samples among those of all; the last is their number."""
        self.num_samples = int(self.starts[-1])
        self.num_batches = max(plan.num_batches for plan in plans)
        size = plans[0].batch_size
        self.sizes = [
            tuple(0 if step >= plan.num_batches else min(size, plan.num_samples - step * size) for plan in plans)
            for step in range(self.num_batches)
        ]
        """Of each step: each run's samples."""
        self.batch_size = sum(self.sizes[0])
        places = []
        for step, sizes in enumerate(self.sizes):
            first = self.starts[:-1] + step * size
            if len(set(sizes)) == 1:
                places.append((np.arange(sizes[0])[:, None] + first).ravel())
            else:
                places += [np.arange(begin, begin + count) for begin, count in zip(first, sizes, strict=True)]
        self.places = np.concatenate(places)
        """Which of all runs' samples of an epoch, one run after the other, come in turn."""
        self._last: StackedEpoch | None = None

    def batches(self, epoch: int, start_batch: int = 0, order: np.ndarray | None = None) -> "StackedEpoch":
        """The epoch from `start_batch` on; the same object where it is asked for again, so that it is drawn once."""
        if self._last is None or (self._last.epoch, self._last.start_batch) != (epoch, start_batch):
            self._last = StackedEpoch(self, epoch, start_batch, None)
        return self._last


@dataclass(frozen=True, eq=False)
class StackedEpoch(PlannedEpoch):
    """An epoch of a StackedPlan."""

    plan: StackedPlan

    def spans(self) -> Iterator[tuple[int, int]]:
        ends = np.cumsum([sum(sizes) for sizes in self.plan.sizes]).tolist()
        yield from itertools.islice(zip([0, *ends], ends, strict=False), self.start_batch, None)

    @cached_property
    def drawn(self) -> tuple[Batch, NDArray[np.int64]]:
        """The epoch as `draw` gives it, and for each of its samples the place among those of all runs."""
        plan = self.plan
        parts = [own.batches(self.epoch).draw() for own in plan.plans]

        def joined(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
            given = [array for array in arrays if array is not None]
            return np.concatenate(given, axis=1)[:, plan.places] if given else None

        tables = [positions[part.index] for positions, part in zip(plan.positions, parts, strict=True)]
        samples = [start + part.index for start, part in zip(plan.starts[:-1], parts, strict=True)]
        whole = Batch(
            index=np.concatenate(tables)[plan.places],
            corner=joined([part.corner for part in parts]),
            flip=joined([part.flip for part in parts]),
        )
        return whole, np.concatenate(samples)[plan.places]

    def draw(self) -> Batch:
        return self.drawn[0]


class StackedLoader:
    """A loader for K runs over one table; a Loader, but for what `epoch` gives.

    Args:
        loader: over the table, of any kind, for batches as large as the stack's.
        plan: of the runs.
    """

    def __init__(self, loader: Any, plan: StackedPlan, device: torch.device):
        loader.spec = replace(loader.spec, plan=plan)
        self.loader, self.plan, self.device = loader, plan, device
        self.name, self.reason = loader.name, loader.reason
        self.num_samples, self.batch_size, self.num_batches = plan.num_samples, plan.batch_size, plan.num_batches

    def count_batches(self, order: np.ndarray | None = None) -> int:
        return self.num_batches

    def epoch(
        self, epoch: int, start_batch: int = 0, order: np.ndarray | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, index): images [B, K, channels, H, W] and index int64 [B * K] of steps in which the runs have as
        many samples, images [R, channels, H, W] and index [R] run by run in others. The index counts the samples of
        all runs, one run after the other."""
        planned = self.plan.batches(epoch, start_batch)
        index = upload(planned.drawn[1], self.device)
        steps = zip(self.plan.sizes[start_batch:], planned.spans(), self.loader.epoch(epoch, start_batch), strict=True)
        for sizes, (first, last), (images, _) in steps:
            even = len(set(sizes)) == 1
            yield images.unflatten(0, (-1, len(sizes))) if even else images, aligned_part(index, first, last)

    def close(self) -> None:
        self.loader.close()


def _stacked_loaders(
    configs: Sequence[RunConfig], tasks: Sequence[Task], device: torch.device, dtype: torch.dtype
) -> Loaders:
    """The loaders of a stack, whose tasks share their tables. What every run reads alike has an ordinary loader."""
    config, task = configs[0], tasks[0]
    settings = config.data
    size = (settings.image_size,) * 2 if settings.image_size else task.train.shape[1:]

    def loader(table: ImageTable, batch_size: int, augmentation: Augmentation | None = None) -> Loader:
        return make_loader(
            settings.loader,
            table,
            batch_size=batch_size,
            mean=task.mean,
            std=task.std,
            device=device,
            seed=config.engine.seed,
            augmentation=augmentation,
            image_size=settings.image_size,
            threads=settings.loader_threads,
            dtype=dtype,
        )

    def plan(number: int, seed: int, augmentation: Augmentation | None = None, **options: Any) -> Plan:
        return Plan(number, settings.batch_size, seed=seed, augmentation=augmentation, size=size, **options)

    def in_order(positions: Sequence[NDArray[np.int64]]) -> Loader:
        if all(np.array_equal(places, np.arange(len(task.train))) for places in positions):
            return loader(task.train, min(settings.batch_size, len(task.train)))
        plans = StackedPlan([plan(len(places), 0) for places in positions], positions)
        return StackedLoader(loader(task.train, plans.batch_size), plans, device)

    augmentation = Augmentation(settings.crop_padding, settings.flip)
    positions = [each.positions for each in tasks]
    plans = StackedPlan(
        [
            plan(len(places), one.engine.seed, augmentation, shuffle=True, drop_last=settings.drop_last)
            for places, one in zip(positions, configs, strict=True)
        ],
        positions,
    )
    validation = None
    if task.validation is not None:
        held = [np.setdiff1d(np.arange(len(each.noisy.labels)), each.positions) for each in tasks]
        validation = in_order(held)
    return Loaders(
        StackedLoader(loader(task.train, plans.batch_size, augmentation), plans, device),
        in_order(positions),
        validation,
        loader(task.test, min(settings.batch_size, len(task.test))),
    )


# -- steps ---------------------------------------------------------------------------------------------------


class StackedMethod(Method):
    """K methods of one kind as one, which makes the steps of a stack.

    Args:
        lead: the method for the samples of all runs together, with one table; its `loss` is taken of all at once.
        members: each run's own; their tables are parts of the lead's.
        network: the runs'.
        plan: of the training batches.
    """

    name = "stack"
    losses: Tensor

    def __init__(self, lead: Method, members: Sequence[Method], network: StackedNetwork, plan: StackedPlan):
        super().__init__(MethodOptions(), plan.num_samples, 0)
        self.lead, self.attention = lead, lead.attention
        self._members, self.count, self._network = tuple(members), len(members), (network,)
        self.steps = plan.sizes
        self.sizes: tuple[int, ...] = ()
        """Samples of each run in the batch at hand, where they may be unequal."""
        self.optimizer: torch.optim.Optimizer | None = None
        self._held: list[tuple[Tensor, Tensor]] = []
        for method in (lead, *members):
            method.criterion.reduction = "none"  # type: ignore[assignment]
        for name, table in lead.named_buffers():
            if name in PER_SAMPLE:
                path, _, leaf = name.rpartition(".")
                for number, method in enumerate(members):
                    rows = table[plan.starts[number] : plan.starts[number + 1]]
                    method.get_submodule(path)._buffers[leaf] = rows
        self.starts = plan.starts.tolist()
        self.register_buffer("losses", torch.zeros(self.count))  # of the last step, by run

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        """As Method's: images and index as StackedLoader gives them. The loss is the sum over the runs of each one's
        mean, so that each has the gradient of its own; theirs are left in `losses` [K]."""
        even = images.dim() == 5
        network = networks[0]
        outputs = network(images) if even else self._unequal(network, images)  # type: ignore[arg-type]
        if even:
            outputs = Outputs(*(None if part is None else part.flatten(0, 1) for part in outputs))  # type: ignore[arg-type]
        if self.program == 0:
            losses = self.lead.loss(outputs, labels, index)
        else:
            losses = self._each_loss(outputs, labels, index, even)
        if even:
            means = losses.unflatten(0, (-1, self.count)).mean(0)
        else:
            means = torch.stack([part.sum() / max(1, len(part)) for part in losses.split(list(self.sizes))])
        self.losses.copy_(means.detach())
        attention = None if outputs.attention is None else outputs.attention.detach().float().sigmoid()
        return Forward(means.sum(), outputs.logits.detach().argmax(1), attention)

    def _each_loss(self, outputs: Outputs, labels: Tensor, index: Tensor, even: bool) -> Tensor:
        """Losses [R] by each run's own method, for runs whose options have come to differ."""
        rows = torch.arange(len(index), device=index.device)
        parts = list(rows.view(-1, self.count).T) if even else list(rows.split(list(self.sizes)))
        losses = torch.zeros(len(index), device=index.device)
        for start, method, part in zip(self.starts[:-1], self._members, parts, strict=True):
            if len(part):
                own = Outputs(*(None if each is None else each[part] for each in outputs))  # type: ignore[arg-type]
                losses = losses.index_copy(0, part, method.loss(own, labels[part], index[part] - start))
        return losses

    def _unequal(self, network: StackedNetwork, images: Tensor) -> Outputs:
        """A step in which runs without samples stand still: what the optimiser changes of theirs is kept aside."""
        for number, size in enumerate(self.sizes):
            if size == 0:
                assert self.optimizer is not None
                for parameter in network.parameters():
                    moments = [each for each in self.optimizer.state[parameter].values() if isinstance(each, Tensor)]
                    parts = [network.part(tensor, number) for tensor in (parameter.detach(), *moments)]
                    self._held += [(part, part.clone()) for part in parts]
        return network.each(images, self.sizes)

    def after_update(self, networks: Sequence[Network]) -> None:
        for part, before in self._held:
            part.copy_(before)
        self._held = []

    def predict(self, networks: Sequence[Network], images: Tensor) -> Outputs:
        """Logits [B, K, C] and attention [B, K] of images [B, K or 1, ...]; [R, C] and [R] of images run by run."""
        network: StackedNetwork = networks[0]  # type: ignore[assignment]
        outputs: Outputs = network(images) if images.dim() == 5 else network.each(images, self.sizes)
        return outputs

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        self.sizes = self.steps[batch]

    def start_epoch(self, epoch: int) -> None:
        for method in self._members:
            method.start_epoch(epoch)
        knobs = [method.criterion.knobs for method in self._members if hasattr(method.criterion, "knobs")]
        if knobs:
            self.lead.criterion.knobs.copy_(knobs[0])  # type: ignore[operator,arg-type]
            self.program = int(any(not torch.equal(each, knobs[0]) for each in knobs[1:]))  # type: ignore[arg-type]


class StackedStatistics(EpochStatistics):
    """EpochStatistics of K runs: each sum is [K], each table has the samples of one run after the other."""

    def __init__(self, method: StackedMethod, device: torch.device):
        super().__init__(method.starts[-1], method.attention, device, (method.count,))
        self.method = method
        self._shares: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}
        """Samples of each run in a step -> the same as weights float64 [K], what the step adds to `counts`, and
        float64 [K] that is 0 for the runs that take part in it and 1 for the others."""

    def part(self, number: int) -> EpochStatistics:
        """Run `number`'s own, which follow these."""
        own = copy.copy(self)
        own.__class__ = EpochStatistics  # type: ignore[assignment]
        del own.method, own._shares
        rows = slice(*self.method.starts[number : number + 2])
        own.loss_sum, own.counts = self.loss_sum[number], self.counts[:, number]
        own.predictions = self.predictions[rows]
        own.attention = None if self.attention is None else self.attention[rows]
        return own

    @torch.no_grad()
    def update(self, result: Forward, index: Tensor) -> None:
        count = self.method.count
        uneven = len(set(self.method.sizes)) > 1
        sizes = self.method.sizes if uneven else (len(index) // count,) * count
        if sizes not in self._shares:
            taking = np.sign(sizes)
            parts = (np.array(sizes, np.float64), np.stack([sizes, taking, taking]), 1.0 - taking)
            self._shares[sizes] = tuple(upload(part, self.loss_sum.device) for part in parts)  # type: ignore[assignment]
        weights, added, standing = self._shares[sizes]
        self.loss_sum.addcmul_(self.method.losses, weights)
        self._count(added, standing)
        self._keep(result, index)


def fastest_form(network: StackedNetwork, images: Tensor, amp: torch.dtype | None) -> Form:
    """The form of the convolutions with the fastest forward and backward pass on a GPU, by trial on [B, K, ...] images.

    Which it is depends on the GPU, cuDNN and the channels: cuDNN's grouped convolutions of a few channels may fall back
    on kernels that are slower than a product of unfolded images with its several times larger traffic.
    """
    trial = copy.deepcopy(network)
    times: dict[Form, float] = {}
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    with torch.random.fork_rng(devices=[images.device]):
        form: Form
        for form in ("grouped", "channels_last", "products"):
            trial.use(form)
            for timed in (False, True):
                events[0].record()
                for _ in range(5):
                    with torch.autocast("cuda", amp or torch.bfloat16, enabled=amp is not None):
                        logits = trial(images).logits
                    logits.float().square().mean().backward()
                events[1].record()
                torch.cuda.synchronize(images.device)
                if timed:
                    times[form] = events[0].elapsed_time(events[1])
    return min(times, key=times.__getitem__)


# -- the stack -----------------------------------------------------------------------------------------------


class Stack(Training):
    """K runs, trained as one.

    Args:
        configs: as `stackable` takes them, of runs that stand at one place in training.
        dataset: the images that the configurations name.
        last: epoch that training is to end after; None: the runs' last.
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        dataset: ImageDataset,
        device: torch.device,
        console: Console,
        last: int | None = None,
    ):
        self.count = len(configs)
        self._states = [_checkpoint(config) for config in configs]
        self.failures: list[str] = []
        self._found: list[Outputs] | None = None
        tasks = [_shared(load_task(config, dataset), dataset) for config in configs]
        parts = [
            create_parts(config, task, device, fresh=state is None)
            for config, task, state in zip(configs, tasks, self._states, strict=True)
        ]
        members, networks = [method for method, _ in parts], [each[0] for _, each in parts]
        _require_room(configs[0], tasks, networks[0], device)  # type: ignore[arg-type]
        torch.manual_seed(configs[0].engine.seed)
        network = StackedNetwork(networks).to(device)  # type: ignore[arg-type]
        amp, _ = choose_amp(configs[0].engine.amp, device)
        dtype = image_dtype(members[0], amp)
        loaders = _stacked_loaders(configs, tasks, device, dtype)
        plan: StackedPlan = loaders.train.plan  # type: ignore[attr-defined]
        batches = {own.num_batches for own in plan.plans}
        if len(batches) > 1 and Optimizer.parse(configs[0].optim.optimizer).name != "sgd":
            raise ConfigError(
                f"these runs cannot be stacked: their epochs have {min(batches)} to {max(batches)} batches, and "
                f"{configs[0].optim.optimizer} counts the steps of all alike; take --drop-last or --optimizer sgd"
            )
        lead = create_method(configs[0].method, num_samples=plan.num_samples, num_classes=tasks[0].num_classes)
        method = StackedMethod(lead.to(device), members, network, plan).to(device)
        statistics = StackedStatistics(method, device)
        labels = torch.from_numpy(np.concatenate([task.given for task in tasks])).to(device)
        self.members = [
            Record(config, task, own, statistics.part(number), labels[slice(*method.starts[number : number + 2])])
            for number, (config, task, own) in enumerate(zip(configs, tasks, members, strict=True))
        ]
        super().__init__(
            list(self.members),
            method,
            nn.ModuleList([network]),
            loaders,
            labels,
            statistics,
            device,
            console,
            plan.batch_size,
            shape := (plan.batch_size // self.count, self.count, tasks[0].channels, *tasks[0].image_size),
            amp,
            place_of(self._states[0]),
            last,
        )
        method.optimizer = self.optimizer
        self.network, self.stacked = network, method
        if device.type == "cuda":
            network.use(fastest_form(network, torch.zeros(shape, dtype=dtype, device=device), amp))

    def begin(self) -> None:
        """Make the runs' folders, or take those that they have, and take up their checkpoints."""
        environment = describe_environment()
        for record in self.members:
            held = _own_folder(record.config) is not None
            begin(record, open_folder(record.config, record.task) if held else None, environment)
        states = [state for state in self._states if state is not None]
        if states:
            self._load(states)
        self._states = []

    def state(self, number: int, epoch: int, batch: int) -> dict[str, Any]:
        """Run `number`'s checkpoint, as `train` writes and reads it."""
        record = self.members[number]

        def own(tensor: Tensor) -> Tensor:
            return self.network.part(tensor, number).clone()  # a view would be saved with all that it is a part of

        optimizer = self.optimizer.state_dict()
        moments = {
            position: {name: own(value) if isinstance(value, Tensor) else value for name, value in moment.items()}
            for position, moment in optimizer["state"].items()
        }
        return {
            "format": CHECKPOINT_FORMAT,
            "epoch": epoch,
            "batch": batch,
            "networks": {f"0.{name}": own(tensor) for name, tensor in self.network.body.state_dict().items()},
            "method": {name: tensor.clone() for name, tensor in record.method.state_dict().items()},
            "labels": record.labels.clone(),
            "optimizer": {**optimizer, "state": moments},
            "schedule": self.schedule.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "statistics": {
                name: None if tensor is None else tensor.clone()
                for name, tensor in record.statistics.state_dict().items()
            },
            "rng_cpu": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "history": record.history,
            "first_step_seconds": record.first_step_seconds,
        }

    def _load(self, states: Sequence[dict[str, Any]]) -> None:
        first, tensors = states[0], self.network.body.state_dict()
        try:
            for number, (record, state) in enumerate(zip(self.members, states, strict=True)):
                for name, tensor in tensors.items():
                    self.network.part(tensor, number).copy_(state["networks"][f"0.{name}"])
                record.method.load_state_dict(state["method"])
                record.labels.copy_(state["labels"])
                record.statistics.load_state_dict(state["statistics"])
                record.history, record.first_step_seconds = state["history"], state["first_step_seconds"]
            moments: dict[int, dict[str, Any]] = {}
            for position, moment in first["optimizer"]["state"].items():
                moments[position] = {}
                for name, value in moment.items():
                    if isinstance(value, Tensor) and value.dim():
                        value = torch.cat([state["optimizer"]["state"][position][name] for state in states])
                    moments[position][name] = value
            load_optimizer(self.optimizer, self.schedule, {**first["optimizer"], "state": moments}, first["schedule"])
            torch.set_rng_state(first["rng_cpu"])
            if self.device.type == "cuda" and first["rng_cuda"]:
                torch.cuda.set_rng_state_all(first["rng_cuda"][: torch.cuda.device_count()])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{record.folder.checkpoint} does not fit the run's configuration: {reason}"
            ) from error

    def save(self, epoch: int, batch: int) -> None:
        if batch > 0:  # at the end of an epoch the methods have dealt with theirs
            self._settle()
        with ThreadPoolExecutor(WRITERS) as pool:  # what takes time is to wait until the disk has each file
            list(pool.map(lambda record: self._write(record, epoch, batch), self.records))

    def _write(self, record: Record, epoch: int, batch: int) -> None:
        record.folder.write_checkpoint(self.state(self.members.index(record), epoch, batch))

    def _settle(self) -> None:
        """Give NAL's members the sums of their attention weights, which the lead's loss adds up over all runs."""
        for record in self.records:
            weights = record.statistics.attention
            if isinstance(record.method, NoiseAttention) and weights is not None:
                seen = ~weights.isnan()
                record.method.weights.copy_(torch.stack((weights.nansum(), seen.sum())))

    def end_epoch(self, epoch: int) -> None:
        self._found = None
        self._settle()
        super().end_epoch(epoch)
        self._found = None

    def describe(self) -> list[str]:
        config, task = self.config, self.members[0].task
        size = "x".join(str(side) for side in task.image_size)
        width = max(len(str(record.folder.path)) for record in self.members)
        return [
            f"{self.count} runs at once of {config.method.method} on {config.data.dataset}: images {size}, "
            f"{len(task.test)} test images, {task.num_classes} classes",
            f"networks: {self.count} x {config.model.model}, "
            f"{sum(p.numel() for p in self.network.parameters()) // self.count:,} parameters each; "
            f"convolutions: {self.network.form}; device: {self.device}; {self.step.gear.reason}; "
            f"{self.step.amp_reason}",
            f"loader: {self.loaders.train.reason}; {self.loaders.train.num_batches} batches of "
            f"{config.data.batch_size} for each run an epoch",
            *(
                f"run folder: {record.folder.path!s:<{width}}  seed {record.config.engine.seed}, "
                f"{len(record.given)} training samples, {record.task.noisy.describe()}"
                for record in self.members
            ),
        ]

    def how_to_go_on(self) -> str:
        return "start the same runs again to go on"

    def fail(self, record: Record, error: TrainingError) -> None:
        """Go on without the run, whose weights are set to 0 so that nothing of it can spread."""
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

    def _answers(self, loader: Loader) -> Iterator[tuple[Outputs, Tensor]]:
        """Each run's answers in evaluation mode: logits [R, C] and attention [R], and whose they are.

        The index [R] counts the images of `loader` for the first run, then for the second, and so on.
        """
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
                outputs = Outputs(*(None if part is None else part.flatten(0, 1) for part in outputs))  # type: ignore[arg-type]
            yield outputs, index

    @torch.no_grad()
    def evaluate(self, part: Part) -> dict[Record, Evaluation]:
        truths = [record.truth(part) for record in self.members]
        truth = torch.from_numpy(np.concatenate(truths)).to(self.device)
        predictions, among = torch.empty_like(truth), torch.empty_like(truth, dtype=torch.bool)
        losses = torch.empty(len(truth), device=self.device)
        attention = torch.empty_like(losses) if self.method.attention else None
        many = self.members[0].task.num_classes > 5
        for (logits, weights, _), index in self._answers(getattr(self.loaders, part)):
            predictions[index] = logits.argmax(1)
            losses[index] = nn.functional.cross_entropy(logits, truth[index], reduction="none")
            if many:
                among[index] = (logits.topk(5).indices == truth[index, None]).any(1)
            if attention is not None and weights is not None:
                attention[index] = weights
        sizes = [len(each) for each in truths]
        tables = [
            [None] * self.count if table is None else table.cpu().split(sizes)
            for table in (predictions, attention, among, losses)
        ]
        return {
            record: Evaluation(
                answers.numpy(),
                None if weights is None else weights.numpy(),
                float(best.double().mean()) if many else np.nan,
                float(loss.double().mean()),
            )
            for record, answers, weights, best, loss in zip(self.members, *tables, strict=True)
            if record in self.records
        }

    def networks_of(self, record: Record) -> list[Network]:
        """None: the methods that are stacked ask for `scan` alone."""
        return []

    @torch.no_grad()
    def scan(
        self, record: Record, of: Callable[[Sequence[Outputs], Tensor], Kept], *, batch_statistics: bool = False
    ) -> Kept:
        """Of one pass for all runs, whose logits and attention are kept until the epoch has ended: what a run's method
        asks for is not known before the one before it was answered. `_require_room` counts them."""
        assert not batch_statistics
        if self._found is None:
            total = self.stacked.starts[-1]
            whole: list[Tensor | None] = []
            for outputs, index in self._answers(self.loaders.train_in_order):
                whole = whole or [None if part is None else part.new_empty(total, *part.shape[1:]) for part in outputs]
                for table, part in zip(whole, outputs, strict=True):
                    if table is not None and part is not None:
                        table[index] = part
            sizes = [len(each.given) for each in self.members]
            tables = [[None] * self.count if table is None else table.split(sizes) for table in whole]
            self._found = [Outputs(*parts) for parts in zip(*tables, strict=True)]
        own, count = self._found[self.members.index(record)], len(record.given)
        batches = torch.arange(count, device=self.device).split(self.config.data.batch_size)
        cut = ((index, Outputs(*(None if part is None else part[index] for part in own))) for index in batches)  # type: ignore[arg-type]
        return keep(((index, of([outputs], index)) for index, outputs in cut), count)

    def shown(self, figures: list[dict[str, Any]]) -> dict[str, Any]:
        """Means over the runs, and the images per second of all together."""
        mean = {
            name: float(np.mean([each[name] for each in figures])) if isinstance(value, float) else value
            for name, value in figures[0].items()
        }
        return mean | {"images_per_second": mean["images_per_second"] * self.count}

    def finish(self, summaries: list[dict[str, Any]]) -> None:
        table = Table(title=f"{len(summaries)} runs: test accuracy")
        for name in ("run folder", "noise", "seed", "last epoch", "mean of the last ten"):
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


def _shared(task: Task, dataset: ImageDataset) -> Task:
    """A task with the data set's own tables in place of copies of its parts: `positions` says which its samples are."""
    return replace(task, train=dataset.train, validation=None if task.validation is None else dataset.train)


def _require_room(config: RunConfig, tasks: Sequence[Task], network: Network, device: torch.device) -> None:
    """Refuse a stack that does not fit into memory, counted from one network's step; ConfigError or DataError."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    training = network.training
    images = torch.zeros((config.data.batch_size, tasks[0].channels, *tasks[0].image_size), device=device)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network.eval()(images)  # so that batch norm's statistics stay as they are
    network.train(training)
    weights = 4 * sum(parameter.numel() for parameter in network.parameters())  # with gradient and two moments
    samples = sum(len(task.given) for task in tasks)
    size = len(tasks) * (4 * weights + sum(kept.values())) + samples * (4 * tasks[0].num_classes + 64)
    what = f"a stack of {len(tasks)} runs, of which fewer would fit"
    free = free_memory(device)
    if device.type == "cpu":
        require_memory(what, size)
    elif free is not None and size > free:
        raise ConfigError(
            f"{what}: this takes {size / 1e9:.1f} GB of memory on {device}, where {free / 1e9:.1f} are free"
        )
