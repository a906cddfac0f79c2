"""`fastnoise train --method auto`: the words of the run by the method that is chosen."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..errors import ConfigError
from ..lazy import uncollected


def decided(
    config: RunConfig, arguments: Sequence[str], *, parallel: bool, named: bool
) -> tuple[list[str], dict[str, Any]]:
    """Look at the labels, and return the words after `fastnoise train` that ask for the choice, and what `train` is
    told of it (`Choice.told`).

    Args:
        config: what the words say, of method auto.
        arguments: the words.
        parallel: whether several processes are to train the run together.
        named: whether the user has named auto, and wants no other method if there is too little for a look.

    ConfigError where it cannot be chosen; CheckpointError if `--run-dir` is taken; Interrupted after Ctrl-C or SIGTERM,
    before the run has a folder.
    """
    if "WORLD_SIZE" in os.environ:
        raise ConfigError(
            "--method auto looks at the labels in one process before the others start: give --gpus N in place of "
            "torchrun, or name the method"
        )
    with uncollected():
        from ..auto import choose
        from ..engine import Interrupted, RunFolder
        from ..engine.display import make_console
    if config.run_dir is not None:
        RunFolder.require_free(Path(config.run_dir))
    try:
        choice = choose(config, console=make_console(), parallel=parallel, fall_back=not named)
    except Interrupted as stop:
        raise Interrupted(
            "stopped while a method was being chosen; nothing is kept, and the same command begins again",
            stop.signal_number,
        ) from None
    return [*without_method(arguments), *choice.words()], choice.told()


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
