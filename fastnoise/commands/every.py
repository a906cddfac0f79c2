"""The options of every command, for shell completion and `fastnoise help options`. Imports no torch."""

import importlib
from types import ModuleType
from typing import Any

from .. import helptext
from ..helptext import Option
from ..methods import options_of
from ..methods.options import OPTIONS
from ..recipes import recipe
from ..studies import STUDIES
from ..words import TrainCommand
from .clean import CleanCommand
from .study import options_type

PLAIN = (
    *("features", "review", "sweep", "leaderboard", "predict", "evaluate", "export", "report", "check", "corrupt"),
    *("inspect", "bench"),
)
"""The commands whose module has their name, a dataclass NAMECommand, and a function `run`."""

TRAINING = ("train", "pretrain", "posteriors", "clean")
"""The commands that take the options of `fastnoise train`."""


NAMES = (*TRAINING, *PLAIN, "study", "env", "methods", "datasets", "models", "completion", "help")
"""All commands."""


def module(command: str) -> ModuleType:
    """The module of a command in PLAIN."""
    return importlib.import_module(f"{__package__}.{command}")


def dataclass_of(command: str) -> Any:
    """The dataclass with the options of a command in PLAIN."""
    return getattr(module(command), f"{command.capitalize()}Command")


def commands() -> tuple[str, ...]:
    """All commands that have options; a study is a command of two words."""
    return (*TRAINING, *PLAIN, *(f"study {name}" for name in STUDIES))


def options(command: str) -> dict[str, list[Option]]:
    """Whose options -> the options of one of `commands()`.

    Those of the training commands are of all runs (""), and of each method that has some.
    """
    if command in PLAIN:
        return {"": helptext.options(dataclass_of(command))}
    if command not in TRAINING:
        return {"": helptext.options(options_type(command.removeprefix("study ")))}
    run = recipe("ce")
    found = {"": helptext.options(TrainCommand, TrainCommand(run=run))}
    if command == "clean":
        found[""] += helptext.options(CleanCommand)
    elif command != "train":
        found[""].append(Option("out", ("--out",), "FILE", "The file to write.", required=True))
    kinds = {"pretrain": ("simclr",), "posteriors": ("posteriors",)}.get(command, tuple(OPTIONS))
    for method in kinds:
        kind = options_of(method)
        found[method] = [option for option in helptext.options(kind, kind(method)) if option.name != "method"]
    return found
