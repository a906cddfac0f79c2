"""How many threads of torch the steps of a run take."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..config import RunConfig
from .prepare import RunData

FEW_PRODUCTS = 2**28
"""Products of a step on features up to which it takes one thread: the time of a thread or two to wake up."""


@contextmanager
def step_threads(config: RunConfig, data: RunData, device: torch.device) -> Iterator[None]:
    """One thread of torch for steps on frozen features that are too small for several; else as many as there are."""
    products = 3 * config.data.batch_size * data.channels * data.task.num_outputs
    before = torch.get_num_threads()
    small = data.train.is_features and config.model.model == "linear" and products <= FEW_PRODUCTS
    if small and device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
