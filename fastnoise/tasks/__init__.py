"""What is learnt: the task of a data set.

A task says how many outputs the network has, which form labels have, which noise applies to them, what the loss is,
what is kept of a sample's outputs, and which figures are made of that. The engine asks it for all of these, and methods
say which tasks they serve.

Importing this package imports no torch: `TASKS` is a table of names, and the rest is loaded where it is used.
"""

from typing import TYPE_CHECKING

from .. import lazy
from .names import TASKS

if TYPE_CHECKING:
    from .base import Answers, Evaluation, Task, find_task

__getattr__ = lazy.attributes(__name__, dict.fromkeys(("Answers", "Evaluation", "Task", "find_task"), "base"))

__all__ = ["TASKS", "Answers", "Evaluation", "Task", "find_task"]
