"""fastnoise train --gpus N: the processes that train one run together, on this machine."""

import json
import os
from collections.abc import Sequence
from typing import Any

from ..config import RunConfig
from ..errors import ConfigError
from ..words import Processes

HANDED_ON = "FASTNOISE_TOLD"
"""The variable of the environment by which the processes get what `train` is told of the choice of their method."""


def start(asked: Processes, words: Sequence[str], config: RunConfig, told: dict[str, Any]) -> int:
    """Start `fastnoise train` with `words` in several processes, as torchrun does, and wait for their end.

    Args:
        asked: how many, and how often they may start again.
        words: of each process, those after `fastnoise train`.
        config: what the words say.
        told: further arguments of `train`.

    Returns the exit code of the process that failed first, 0 if none did; 130 or 143 after Ctrl-C or SIGTERM.
    ConfigError if there are too few GPUs, or this process is one of several itself.
    """
    import torch

    from ..engine.launch import launch

    if "WORLD_SIZE" in os.environ:
        raise ConfigError("--gpus starts processes of its own, and this is one of torchrun's; drop one of the two")
    count, gpus = asked.gpus, torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.engine.device != "cpu" and gpus < count and (gpus or config.engine.device != "auto"):
        raise ConfigError(f"--gpus {count}: PyTorch sees {gpus} GPU(s); give a smaller number, or --device cpu")
    os.environ[HANDED_ON] = json.dumps(told)
    try:
        codes = launch(count, ["-m", "fastnoise.cli", "train", *words], max_restarts=asked.max_restarts)
    finally:
        del os.environ[HANDED_ON]
    return 0 if not codes else codes[0] if codes[0] > 0 else 128 - codes[0]


def handed_on() -> dict[str, Any]:
    """What `start` gave this process as `told`, if it is one of its own."""
    told: dict[str, Any] = json.loads(os.environ.get(HANDED_ON, "{}"))
    return told
