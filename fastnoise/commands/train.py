"""fastnoise train: one run, from the words of the command line to the final table."""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import RunConfig
from ..errors import ConfigError, TrainingError
from ..lazy import uncollected
from ..options import AUTO
from ..words import processes_asked, train_words
from .processes import handed_on, start

if TYPE_CHECKING:
    from ..engine import Interrupted


def run(
    arguments: Sequence[str],
    finish: Callable[[dict[str, Any]], None] | None = None,
    check: Callable[[RunConfig], None] | None = None,
    noise: str | None = None,
) -> int:
    """Train as the words say; returns 0, or 130 or 143 when stopped by a signal. FastnoiseError in one line.

    Args:
        arguments: the words after `fastnoise train`.
        finish: gets the summary of a run that went to its end.
        check: gets the configuration before anything else, and raises ConfigError if it refuses it.
        noise: what it is if neither the words nor their TOML file name one; None: what `fastnoise train` takes.
    """
    main = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun has started, else this one
    try:
        said = train_words(arguments, noise=noise)
    except ConfigError:
        if not main:  # the first one refuses the same words
            return 2
        raise
    if said.command.deviations:
        from ..recipes.deviations import listing

        print(listing(said.config))
        return 0
    if check is not None:
        check(said.config)
    processes, words = processes_asked(arguments)
    if said.command.dry_run:
        from .dry_run import listing as described

        if main:
            print(described(said))
        return 0
    told = handed_on()
    if said.config.method.method == AUTO:
        from ..engine.signals import Interrupted as Stopped
        from .auto import decided

        try:
            parallel, named = processes.gpus > 1, said.method_named
            arguments, told = decided(said.config, arguments, parallel=parallel, named=named)
        except Stopped as stop:
            return stopped(stop)
        said = train_words(arguments, noise=noise)
        _, words = processes_asked(arguments)
    config, resume = said.config, said.resuming
    if processes.gpus:
        if finish is not None:
            raise ConfigError("--gpus is an option of fastnoise train; start this command by torchrun, or drop it")
        return start(processes, words, config, told)
    with uncollected():
        import torch
        import torch._dynamo  # which torch's optimisers import when they are made

        from ..auto.check import doubts_of_run
        from ..engine import Interrupted, train

    try:
        summary = train(config, resume=resume, **told)
    except Interrupted as stop:
        return stopped(stop)
    except torch.OutOfMemoryError as error:
        raise TrainingError(f"{str(error).splitlines()[0]} Lower --batch-size or --width") from error
    if main:
        for line in doubts_of_run(Path(summary["run_dir"])):
            print(f"warning: {line}")
    if finish is not None and main:
        finish(summary)
    return 0


def stopped(stop: "Interrupted") -> int:
    """Say that a signal has ended the command, and return its exit code."""
    with contextlib.suppress(OSError):  # of a closed one
        print(f"fastnoise: {stop}", file=sys.stderr)
    return 128 + stop.signal_number
