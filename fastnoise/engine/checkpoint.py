"""Checkpoints: everything that the rest of a run depends on. They are taken from a training and loaded into it.

A checkpoint has the same content for a single run and for one of several stacked runs, so that either can continue from
it. Tensors that stacked runs share are split by run when saved, and joined when loaded.
"""

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..checks import shown
from ..errors import CheckpointError
from ..files import write_atomically
from .background import Background, Copies
from .distributed import World, kept_apart
from .folder import CHECKPOINT_FORMAT, STATE, read_stored
from .optimizer import LRScheduler, load_optimizer
from .record import Record
from .saves import SaveClock
from .step import Step

WRITERS = 8
"""Files that are written at a time."""

APART = 256_000_000
"""Bytes of a process's tables above which they are files of their own, written in the background."""


class Resumable(Protocol):
    """The training of one or more runs from which a checkpoint is taken."""

    world: World
    device: torch.device
    networks: nn.ModuleList
    optimizer: torch.optim.Optimizer
    second: torch.optim.Optimizer | None
    schedule: LRScheduler
    step: Step

    def weights_of(self, record: Record) -> MutableMapping[str, Any]:
        """The state of a run's networks, with the names of a single run."""

    def load_weights(self, record: Record, weights: Mapping[str, Any]) -> None:
        """Load what `weights_of` gave; RuntimeError or KeyError if it doesn't fit."""

    def part_of(self, record: Record, tensor: Tensor) -> Tensor:
        """A run's part of a tensor of the optimiser, as a view."""


def place_of(checkpoint: dict[str, Any] | None) -> tuple[int, int]:
    """Epoch (from 1) and batch (from 0) with which training continues; (1, 0) without a checkpoint."""
    if checkpoint is None:
        return (1, 0)
    epoch, batch = checkpoint.get("epoch"), checkpoint.get("batch")
    if type(epoch) is not int or type(batch) is not int or not (1 <= epoch < 2**31 and 0 <= batch < 2**31):
        said = f"epoch {shown(epoch)}, batch {shown(batch)}"
        raise CheckpointError(f"the checkpoint does not say how far it is ({said}); start the run anew")
    return epoch, batch


def state_of(training: Resumable, record: Record, epoch: int, batch: int) -> dict[str, Any]:
    """A run's checkpoint before batch `batch` (from 0) of `epoch`.

    The pipelines' random numbers depend only on (seed, epoch, sample), so (epoch, batch) is their whole state.
    """
    optimizer = training.optimizer.state_dict()
    moments = {
        position: {
            name: _alone(training.part_of(record, value)) if isinstance(value, Tensor) else value
            for name, value in moment.items()
        }
        for position, moment in optimizer["state"].items()
    }
    return {
        "format": CHECKPOINT_FORMAT,
        "epoch": epoch,
        "batch": batch,
        "epochs": record.config.optim.epochs,
        "networks": _all_alone(training.weights_of(record)),
        "method": _all_alone(record.method.state_dict()),
        "labels": _alone(record.labels),
        "optimizer": {**optimizer, "state": moments},
        **({} if training.second is None else {"second_optimizer": training.second.state_dict()}),
        "schedule": training.schedule.state_dict(),
        "scaler": training.step.scaler.state_dict(),
        "statistics": _all_alone(record.statistics.state_dict()),
        **rng_of(training),
        "history": record.history,
        "first_step_seconds": record.first_step_seconds,
    }


def rng_of(training: Resumable) -> dict[str, Any]:
    """The states of torch's random numbers, of all GPUs if one process has them."""
    if training.device.type != "cuda":
        states = []
    elif training.world.size > 1:
        states = [torch.cuda.get_rng_state(training.device)]
    else:
        states = torch.cuda.get_rng_state_all()
    return {"rng_cpu": torch.get_rng_state(), "rng_cuda": states}


def _alone(tensor: Tensor) -> Tensor:
    """A copy if the tensor is a view, because torch.save would write the whole tensor behind it; else the tensor."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def _all_alone(state: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in state.items():
        if isinstance(value, Tensor):
            state[name] = _alone(value)  # in place: a module's state has its versions as an attribute
    return state


def load_states(training: Resumable, states: Mapping[Record, dict[str, Any]]) -> None:
    """Load a checkpoint of every run of a training, all at one place; CheckpointError for one of another run."""
    first = next(iter(states.values()))
    try:
        for record, state in states.items():
            _check(record, state)
            training.load_weights(record, state["networks"])
            record.method.load_state_dict(state["method"])
            record.labels.copy_(state["labels"])
            record.statistics.load_state_dict(state["statistics"])
            record.history, record.first_step_seconds = state["history"], state["first_step_seconds"]
        optimizer = _joined([state["optimizer"] for state in states.values()])
        if type(first["schedule"].get("last_epoch")) is not int:
            raise TypeError("its schedule does not say how far it is")
        kinds = [{key: type(value) for key, value in group.items()} for group in training.optimizer.param_groups]
        load_optimizer(training.optimizer, optimizer, training.schedule, first["schedule"])
        _check_optimizer(training.optimizer, kinds)
        if training.second is not None:
            kinds = [{key: type(value) for key, value in group.items()} for group in training.second.param_groups]
            load_optimizer(training.second, first["second_optimizer"])
            _check_optimizer(training.second, kinds)
        training.step.scaler.load_state_dict(first["scaler"])
        torch.set_rng_state(first["rng_cpu"].cpu())
        if training.device.type == "cuda" and first["rng_cuda"] and training.world.size > 1:
            torch.cuda.set_rng_state(first["rng_cuda"][0].cpu(), training.device)
        elif training.device.type == "cuda" and first["rng_cuda"]:
            present = first["rng_cuda"][: torch.cuda.device_count()]  # there may be fewer than when it was saved
            torch.cuda.set_rng_state_all([rng.cpu() for rng in present])
    except Exception as error:  # torch raises errors of any kind where a value is of another type than its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        place = record.folder.last_checkpoint() or record.folder.checkpoint
        raise CheckpointError(f"{place} does not fit the run's configuration: {reason}") from error


_FIGURES = ("learning_rate", "train_loss", "images_per_second", "data_wait", "seconds")
"""What every epoch's figures hold beside those of its task."""


def _check(record: Record, state: Mapping[str, Any]) -> None:
    """TypeError or ValueError unless what is not a tensor has the form that `state_of` gives it, and the labels are
    classes of the run."""
    history, seconds, score = state["history"], state["first_step_seconds"], record.data.task.score.name
    if not isinstance(history, list) or len(history) != state["epoch"] - 1:
        raise ValueError(f"its history must list {state['epoch'] - 1} epochs")
    for number, epoch in enumerate(history, 1):
        if not isinstance(epoch, dict) or epoch.get("epoch") != number:
            raise ValueError(f"entry {number} of its history is not epoch {number}")
        for name in (*_FIGURES, f"test_{score}"):
            if not _is_number(epoch.get(name)):
                raise TypeError(f"{name} of epoch {number} must be a number, not {shown(epoch.get(name))}")
    if not _is_number(seconds):
        raise TypeError(f"first_step_seconds must be a number, not {shown(seconds)}")
    labels = state["labels"]
    if labels.shape != record.labels.shape or labels.dtype != record.labels.dtype:
        raise ValueError(f"its labels are {labels.dtype} {list(labels.shape)}")
    if labels.dtype == torch.int64 and not (
        int(labels.min()) >= 0 and int(labels.max()) < record.data.noisy.num_classes
    ):
        raise ValueError("its labels are no classes of the run")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_optimizer(optimizer: torch.optim.Optimizer, kinds: Sequence[Mapping[str, type]]) -> None:
    """TypeError or ValueError if a loaded setting is of another type than before, or a moment not of its parameter's
    shape, which the optimiser would notice in its next step at best."""
    numbers = (int, float, bool)
    for group, kind in zip(optimizer.param_groups, kinds, strict=True):
        for key, before in kind.items():
            if before in numbers and not isinstance(group.get(key), numbers):
                raise TypeError(f"{key} of its optimizer must be a number, not {shown(group.get(key))}")
        for parameter in group["params"]:
            for name, moment in optimizer.state.get(parameter, {}).items():
                if isinstance(moment, Tensor) and moment.dim() and moment.shape != parameter.shape:
                    raise ValueError(f"{name} of its optimizer is {list(moment.shape)}, not {list(parameter.shape)}")


def _joined(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The optimiser's state of all runs: tensors in the first dimension one after the other, what has no dimensions is
    common to all."""
    first = states[0]
    if len(states) == 1:
        return first
    moments: dict[int, dict[str, Any]] = {}
    for position, moment in first["state"].items():
        moments[position] = {}
        for name, value in moment.items():
            if isinstance(value, Tensor) and value.dim():
                value = torch.cat([state["state"][position][name] for state in states])
            moments[position][name] = value
    return {**first, "state": moments}


class Checkpoints:
    """Writes the checkpoints of a training.

    Of one run in one process the checkpoint is a file, unless its tables are large (APART): then it is a folder, as of
    several processes. Large ones are written in the background, from a copy of the state at their step.

    Args:
        training: whose state they hold.
        clock: learns how long they take.
        tables_every: tables are written with every checkpoint of this number; the others take the last ones written.
    """

    def __init__(self, training: Resumable, clock: SaveClock, tables_every: int = 1):
        self.training, self.clock, self.tables_every = training, clock, tables_every
        self._since = tables_every
        """Checkpoints since tables were written, the next one among them. An earlier start's do not count."""
        self._tables_in = ""
        self._background = Background()
        clock.occupied = lambda: self._background.busy
        self._copies: Copies | None = None
        self._due: Callable[[], None] | None = None
        """Lets the checkpoint count that is being written."""

    def prepare(self, record: Record) -> str:
        """Get memory for copies of a run's tables if they are large; returns why there is none, or nothing.

        All processes call it, and if one has too little memory, none writes in the background: they would wait for each
        other at different places.
        """
        if not self._large(record):
            return ""
        state, world = record.method.state_dict(), self.training.world
        copies = Copies({name: state[name] for name in record.method.sharded()}, world.neighbours)
        obstacle = next(filter(None, world.everyones(copies.obstacle)), "")
        if not obstacle:
            copies.make()
            self._copies = copies
        return obstacle

    def _large(self, record: Record) -> bool:
        """The same in all processes, whose numbers of rows differ by one."""
        state, count = record.method.state_dict(), len(record.given)
        whole = sum(
            state[name].nbytes // state[name].shape[dim] * count for name, dim in record.method.sharded().items()
        )
        return whole // self.training.world.size > APART

    def save(self, records: Sequence[Record], epoch: int, batch: int, *, last: bool = False) -> None:
        """Write the checkpoints of `records`, before batch `batch` of `epoch`; CheckpointError if there is no room.

        What goes wrong in the background is raised by a later call. With `last` the checkpoint holds all and is there
        when this returns.
        """
        self.settle()
        world, training = self.training.world, self.training
        large = len(records) == 1 and self._large(records[0])
        if world.size == 1 and not (large or (self.tables_every > 1 and len(records) == 1)):

            def write(record: Record) -> None:
                record.folder.write_checkpoint(state_of(training, record, epoch, batch))

            for_each(write, records)
            return
        (record,) = records
        parts = Path(world.first(lambda: str(record.folder.new_parts(epoch, batch))))
        if with_tables := last or self._since >= self.tables_every:
            self._since, self._tables_in = 0, parts.name
        self._since += 1
        files = files_of(training, record, epoch, batch, self._tables_in, with_tables=with_tables)
        due = partial(record.folder.keep_parts, parts, self._tables_in)
        if last or not large or self._copies is None:
            _write(parts, files)
            self._due = due
            self.settle()
            return
        files = {name: self._copies.of(content) for name, content in files.items()}
        self._due = due
        self._background.begin(partial(self._write_and_count, parts, files), self.clock.took)

    def _write_and_count(self, parts: Path, files: Mapping[str, Any]) -> None:
        _write(parts, files)
        if self.training.world.size == 1:
            self._agreed()

    def _agreed(self) -> None:
        due, self._due = self._due, None
        if due is not None and self.training.world.main:
            due()

    def settle(self) -> None:
        """Wait until what is being written is there, in all processes, and let it count.

        All processes call it alike. CheckpointError if it could not be written.
        """
        pending = self._background.begun or self._due is not None
        self._background.wait()
        if pending and self.training.world.size > 1:
            self.training.world.largest(0)  # all have written theirs
        self._agreed()

    def settle_if_written(self) -> None:
        """`settle` if nobody has to wait."""
        if self._background.begun and not self.training.world.largest(int(self._background.busy)):
            self.settle()

    def close(self) -> None:
        """Wait until nothing is being written."""
        if self._background.begun:
            self._background.wait()


# -- in a folder --------------------------------------------------------------------------------------------------


def files_of(
    training: Resumable, record: Record, epoch: int, batch: int, tables_in: str, *, with_tables: bool
) -> dict[str, dict[str, Any]]:
    """The files of a checkpoint that this process writes, by name: the first one also what is common to all, each what
    it has for itself.

    That is its random numbers, inside an epoch all that its steps have changed but the weights, and its tables.

    Args:
        tables_in: the folder that the tables of this checkpoint are in.
        with_tables: whether they are written with it.
    """
    world, method = training.world, record.method
    apart, state = kept_apart(method), method.state_dict()
    about = {"format": CHECKPOINT_FORMAT, "samples": len(record.given)}
    own: dict[str, Any] = {**about, **rng_of(training), "method": {}}
    if batch > 0:
        own["method"] = {name: buffer for name, buffer in method.named_buffers() if name in state and name not in apart}
        own["networks"] = _all_alone(dict(training.networks.named_buffers()))
        own["statistics"] = _all_alone(record.statistics.state_dict())
    own["method"] = _all_alone(own["method"])
    files = {part_name(world.rank, world.size): own}
    if with_tables and (tables := method.sharded()):
        files[tables_name(world.rank, world.size)] = {
            **about, "method": _all_alone({name: state[name] for name in tables})
        }  # fmt: skip
    if world.main:
        whole = state_of(training, record, epoch, batch) | {"processes": world.size, "tables": tables_in}
        whole["method"] = {name: value for name, value in whole["method"].items() if name not in apart}
        files[STATE] = whole
    return files


def _write(parts: Path, files: Mapping[str, Any]) -> None:
    for name, content in files.items():
        write_atomically(parts / name, partial(torch.save, content))


def part_name(rank: int, size: int) -> str:
    """The file of a process's part of a checkpoint."""
    return f"part-{rank}-of-{size}.pt"


def tables_name(rank: int, size: int) -> str:
    """The file of a process's tables."""
    return f"tables-{rank}-of-{size}.pt"


def _read_part(state: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The part of process `number` of a checkpoint, with its tables; tensors are read from files when they are used."""
    size, cpu = state.get("processes", 1), torch.device("cpu")
    if "parts" not in state:
        return {"method": state["method"]}
    folder = Path(state["parts"])
    part = read_stored(folder / part_name(number, size), cpu, mmap=True)
    name = state.get("tables", "")
    if not isinstance(name, str) or name != Path(name).name:
        raise CheckpointError(f"{folder / STATE} is damaged: its tables are in {shown(name)}; start the run anew")
    tables = folder.parent / name / tables_name(number, size)
    if name and tables.exists():  # else they are in the part, as before, or there are none
        part["method"] = {**part["method"], **read_stored(tables, cpu, mmap=True)["method"]}
    return part


def fitted(state: dict[str, Any], record: Record, world: World) -> dict[str, Any]:
    """A checkpoint as `load_states` takes it in this process, whatever the number of processes that wrote it.

    The rows of own samples are copied into the method's tables here, from files mapped into memory, so that there is
    never a second table. CheckpointError if the checkpoint is one inside an epoch, of another number of processes, or
    if a part of it is missing or damaged.
    """
    before = state.get("processes", 1)
    if before == world.size == 1 and "parts" not in state:
        return state
    epoch, batch = place_of(state)
    if batch > 0 and before != world.size:
        raise CheckpointError(
            f"the checkpoint lies inside epoch {epoch}, of {before} process(es); go on with as many, or let it come to "
            "the end of the epoch first"
        )
    method = record.method
    live, tables = method.state_dict(), method.sharded()
    state = {**state, "method": dict(state["method"])}
    count = len(record.given)
    for number in range(before):
        if before == world.size and number != world.rank:
            continue
        part = _read_part(state, number)
        for name, dim in tables.items():
            try:
                theirs = part["method"].pop(name)
                _copy_rows(theirs, live[name], dim, (number, before), (world.rank, world.size), count)
            except (KeyError, RuntimeError, AttributeError) as error:
                raise CheckpointError(f"part {number} of {before} of the checkpoint has no fitting {name}") from error
        if before == world.size:
            state["method"] |= part["method"]
            state |= {name: part[name] for name in ("rng_cpu", "rng_cuda", "statistics") if name in part}
            state["networks"] = {**state["networks"], **part.get("networks", {})}
    state["method"] |= {name: live[name] for name in kept_apart(method) if name in live}
    if before != world.size and world.rank > 0:  # the first one goes on with the saved random numbers
        state |= {"rng_cpu": torch.get_rng_state(), "rng_cuda": []}
    return state


def _copy_rows(
    theirs: Tensor, mine: Tensor, dim: int, their_shard: tuple[int, int], shard: tuple[int, int], count: int
) -> None:
    """Copy the rows of samples that a saved table and one's own both have: row i // W of shard i % W is sample i."""
    if theirs.shape[dim] != len(range(their_shard[0], count, their_shard[1])):
        raise RuntimeError("another number of rows")
    (other, before), (rank, size), step = their_shard, shard, math.lcm(their_shard[1], shard[1])
    both = range(rank, step, size)
    first = next((sample for sample in both if sample % before == other), None)
    if first is not None:
        here = (slice(None),) * dim
        source = theirs[(*here, slice(first // before, None, step // before))]
        mine[(*here, slice(first // size, None, step // size))].copy_(source)


def for_each(write: Callable[[Record], None], records: Sequence[Record]) -> None:
    """Call `write` for each record, several at a time where there are several."""
    if len(records) < 2:
        for record in records:
            write(record)
        return
    with ThreadPoolExecutor(WRITERS) as pool:  # what takes time is to wait until the disk has each file
        list(pool.map(write, records))
