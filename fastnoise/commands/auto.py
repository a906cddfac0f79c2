"""`fastnoise train --method auto`: the words of the run by the method that is chosen."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config import RunConfig
from ..errors import ConfigError
from ..lazy import uncollected

if TYPE_CHECKING:
    from ..auto import Choice


def decided(config: RunConfig, arguments: Sequence[str], parallel: bool) -> "tuple[Choice, list[str]]":
    """Look at the labels, and return the choice with the words after `fastnoise train` that ask for it.

    Args:
        config: what the words say, of method auto.
        arguments: the words.
        parallel: whether several processes are to train the run together.

    ConfigError where it cannot be chosen; Interrupted after Ctrl-C or SIGTERM, before the run has a folder.
    """
    if "WORLD_SIZE" in os.environ:
        raise ConfigError(
            "--method auto looks at the labels in one process before the others start: give --gpus N in place of "
            "torchrun, or name the method"
        )
    with uncollected():
        from ..auto import choose
        from ..engine import Interrupted
        from ..engine.display import make_console
    console = make_console()
    try:
        choice = choose(config, console=console, parallel=parallel)
    except Interrupted as stop:
        raise Interrupted(
            "stopped while a method was being chosen; nothing is kept, and the same command begins again",
            stop.signal_number,
        ) from None
    return choice, [*without_method(arguments), *choice.words()]


def without_method(arguments: Sequence[str]) -> list[str]:
    """The words without --method and its value."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--method":
            next(words, None)
        elif not word.startswith("--method="):
            kept.append(word)
    return kept
