"""A trial of a user's task: what a run asks of it is asked once before the run begins, so that mistakes show early."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import own
from ..data import ImageDataset
from ..errors import ConfigError
from ..models import Outputs
from .base import Evaluation, Labels, Task
from .names import Score

_MOST = 10_000  # samples that figures are tried on
_FEATURES = 8


def task_of(name: str, kind: type[Task], dataset: ImageDataset) -> Task:
    """The task that FILE.py:NAME makes for a data set; ConfigError in one line if it can't be used."""
    what = f"--task {own.short(name)}"
    for attribute, wanted in (("name", str), ("unit", str), ("score", Score), ("summarised", Mapping)):
        if not isinstance(getattr(kind, attribute, None), wanted):
            found = f"it is {type(getattr(kind, attribute)).__name__}" if hasattr(kind, attribute) else "it has none"
            raise ConfigError(f"{what}: its {attribute} must be a {wanted.__name__}, but {found}")
    task: Task = own.call(kind.of, f"{what}: of", dataset)
    if not isinstance(task, Task):
        raise ConfigError(f"{what}: of must return a task, not {type(task).__name__}")
    return task


def try_task(name: str, task: Task, given: Labels, clean: Labels | None, truth: Labels) -> None:
    """Ask a task for all that a run asks it for, with outputs at random. ConfigError in one line if an answer has
    another form than `Task` says, or if the task raises an error.

    Args:
        name: of the task as the user wrote it.
        task: the task.
        given: the given labels of the training set, [N, ...].
        clean: the true ones if they are known.
        truth: the labels of the test set, [n, ...].
    """
    what = f"--task {own.short(name)}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        count = _try_head(what, task)
        given, truth = given[:_MOST], truth[:_MOST]
        answers = _try_step(what, task, given, count)
        _try_figures(what, task, truth, torch.randn(len(truth), count))
    seen = answers.numpy()
    _numbers(f"{what}: training_figures", own.call(task.training_figures, f"{what}: training_figures", seen, given))
    if clean is not None:
        _numbers(f"{what}: shares", own.call(task.shares, f"{what}: shares", seen, given, clean[:_MOST]))


def _try_head(what: str, task: Task) -> int:
    """Columns of the logits."""
    count = own.call(lambda: task.num_outputs, f"{what}: num_outputs")
    if type(count) is not int or count < 1:
        raise ConfigError(f"{what}: num_outputs must be an integer of at least 1, not {count!r}")
    head = own.call(task.head, f"{what}: head", _FEATURES)
    if not isinstance(head, nn.Module):
        raise ConfigError(f"{what}: head must return a torch.nn.Module, not {type(head).__name__}")
    _require(f"{what}: the logits of head", own.call(head, f"{what}: head", torch.zeros(2, _FEATURES)), (2, count))
    return count


def _try_step(what: str, task: Task, given: Labels, count: int) -> Tensor:
    """The answers for the samples of `given`."""
    table = own.call(task.table, f"{what}: table", given)
    if not isinstance(table, np.ndarray) or len(table) != len(given):
        raise ConfigError(f"{what}: table must return an array of {len(given)} rows, one for each label")
    logits = torch.randn(len(given), count, requires_grad=True)
    loss = own.call(task.loss, f"{what}: loss", logits, torch.from_numpy(table))
    _require(f"{what}: loss", loss, ())
    if not loss.requires_grad:
        raise ConfigError(f"{what}: loss does not depend on the logits; compute it from them without detach()")
    unseen = own.call(task.unseen, f"{what}: unseen", len(given), torch.device("cpu"))
    if not isinstance(unseen, Tensor):
        raise ConfigError(f"{what}: unseen must return a tensor, not {type(unseen).__name__}")
    answers = own.call(task.answer, f"{what}: answer", logits.detach())
    _require(f"{what}: answer", answers, (len(given), *unseen.shape[1:]), unseen.dtype)
    _require(f"{what}: unseen", unseen, tuple(answers.shape))
    return answers


def _try_figures(what: str, task: Task, truth: Labels, logits: Tensor) -> None:
    def evaluated() -> Evaluation:
        answers = task.collect([truth], torch.device("cpu"))
        answers.add(Outputs(logits), torch.arange(len(truth)))
        return answers.evaluations()[0]

    with torch.no_grad():
        found = own.call(evaluated, f"{what}: collect")
    for function in (task.figures, task.validation_figures):
        said = f"{what}: {function.__name__}"
        figures = _numbers(said, own.call(function, said, found, truth))
        needed = {task.score.name, "loss"} if function.__name__ == "figures" else {task.score.name}
        if missing := needed - figures.keys():
            raise ConfigError(f"{said}: it has no {' and no '.join(sorted(missing))}; it has: {', '.join(figures)}")
    if task.keeps_answers:
        kept = own.call(task.kept, f"{what}: kept", found, truth)
        if not isinstance(kept, Mapping) or any(len(np.atleast_1d(rows)) != len(truth) for rows in kept.values()):
            raise ConfigError(f"{what}: kept must return arrays by name, with {len(truth)} rows each")


def _require(what: str, found: Any, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
    """ConfigError unless `found` is a tensor of this shape, and of this dtype if one is given."""
    form = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    if not isinstance(found, Tensor) or tuple(found.shape) != shape or dtype not in (None, found.dtype):
        kind = "" if dtype is None else f"{dtype} "
        raise ConfigError(f"{what} must be a tensor {kind}{list(shape)}, not {form}")


def _numbers(what: str, figures: Any) -> dict[str, Any]:
    """Figures by name, as a line of metrics.jsonl can hold them."""
    if not isinstance(figures, dict) or not all(isinstance(name, str) for name in figures):
        raise ConfigError(f"{what}: it must return a dictionary of figures by name, not {type(figures).__name__}")
    for name, value in figures.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise ConfigError(
                f"{what}: {name} is of type {type(value).__name__}; make it a Python number, as in float(value)"
            ) from None
    return figures
