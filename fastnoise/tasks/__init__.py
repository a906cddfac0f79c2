"""What is learnt: the task of a data set.

A task says how many outputs the network has, which form labels have, which noise applies to them, what the loss is,
what is kept of a sample's outputs, and which figures are made of that. The engine asks it for all of these, and methods
say which tasks they serve.

Importing this package imports no torch: `TASKS` is a table of names, and the rest is loaded where it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .names import TASKS

if TYPE_CHECKING:
    from .base import Answers, Evaluation, Task, find_task

_LAZY = dict.fromkeys(("Answers", "Evaluation", "Task", "find_task"), "base")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["TASKS", "Answers", "Evaluation", "Task", "find_task"]
