"""Checkpoints: everything that the rest of a run depends on. They are taken from a training and loaded into it.

A checkpoint has the same content for a single run and for one of several stacked runs, so that either can continue from
it. Tensors that stacked runs share are split by run when saved, and joined when loaded.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor

from ..checks import shown
from ..errors import CheckpointError
from .folder import CHECKPOINT_FORMAT
from .record import Record
from .step import LRScheduler, Step, load_optimizer

WRITERS = 8
"""Files that are written at a time."""


class Resumable(Protocol):
    """The training of one or more runs from which a checkpoint is taken."""

    device: torch.device
    optimizer: torch.optim.Optimizer
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
        "schedule": training.schedule.state_dict(),
        "scaler": training.step.scaler.state_dict(),
        "statistics": _all_alone(record.statistics.state_dict()),
        "rng_cpu": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state_all() if training.device.type == "cuda" else [],
        "history": record.history,
        "first_step_seconds": record.first_step_seconds,
    }


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
        load_optimizer(training.optimizer, training.schedule, optimizer, first["schedule"])
        _check_optimizer(training.optimizer, kinds)
        training.step.scaler.load_state_dict(first["scaler"])
        torch.set_rng_state(first["rng_cpu"].cpu())
        if training.device.type == "cuda" and first["rng_cuda"]:
            present = first["rng_cuda"][: torch.cuda.device_count()]  # there may be fewer than when it was saved
            torch.cuda.set_rng_state_all([rng.cpu() for rng in present])
    except Exception as error:  # torch raises errors of any kind where a value is of another type than its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{record.folder.checkpoint} does not fit the run's configuration: {reason}") from error


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


def save(training: Resumable, records: Sequence[Record], epoch: int, batch: int) -> None:
    """Write the checkpoints of `records`, before batch `batch` of `epoch`; CheckpointError if there is no room."""

    def write(record: Record) -> None:
        record.folder.write_checkpoint(state_of(training, record, epoch, batch))

    for_each(write, records)


def for_each(write: Callable[[Record], None], records: Sequence[Record]) -> None:
    """Call `write` for each record, several at a time where there are several."""
    if len(records) < 2:
        for record in records:
            write(record)
        return
    with ThreadPoolExecutor(WRITERS) as pool:  # what takes time is to wait until the disk has each file
        list(pool.map(write, records))
