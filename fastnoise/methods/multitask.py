"""Several tasks with a network that they share, fed in turn."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..models import Network
from ..tasks.multitask import MultiTask
from .base import Forward, Method, Setting, random_numbers

PURPOSE = 48
"""Of the random numbers that shuffle the first task; those of the others follow."""


class SharedNetwork(Method):
    """A batch of each task in each step, and the sum of their cross-entropies (Khanal and Kanan 2021, section 3.2).

    A step's --batch-size images are shared out evenly. Each task's go through the network by themselves, so that batch
    norm sees one task at a time. An epoch is one of the first task, whose last, smaller batch is left out; the others
    run on through epochs of their own.
    """

    name = "multitask"
    parallel = True
    shares = 1
    tasks = ("multitask",)

    @property
    def _sizes(self) -> tuple[int, ...]:
        assert isinstance(self.task, MultiTask)
        return self.task.sizes

    def configure(self, setting: Setting) -> None:
        count = len(self._sizes)
        if setting.batch_size % count:
            raise ConfigError(
                f"--batch-size {setting.batch_size}: {count} tasks share a batch evenly; give a multiple of {count}"
            )
        self.rows = setting.batch_size // count
        if setting.given is None:
            return
        assert isinstance(self.task, MultiTask)
        groups = self.task.group_of(torch.from_numpy(setting.given)).numpy()
        self.members = [np.flatnonzero(groups == number) for number in range(count)]
        for number, members in enumerate(self.members, 1):
            if len(members) < self.rows:
                raise ConfigError(
                    f"task {number} has {len(members)} training images, and a step takes {self.rows}; give a smaller "
                    "--batch-size"
                )

    def order(self, epoch: int, seed: int) -> np.ndarray:
        members = self.members
        steps = len(members[0]) // self.rows
        first = (epoch - 1) * steps * self.rows
        parts = [_shuffled(members[0], epoch, seed, 0)[: steps * self.rows]]
        for number, positions in enumerate(members[1:], 1):
            start, offset = divmod(first, len(positions))
            rounds = range(start, start + 1 + (offset + steps * self.rows) // len(positions))
            stream = np.concatenate([_shuffled(positions, each, seed, number) for each in rounds])
            parts.append(stream[offset : offset + steps * self.rows])
        return np.concatenate([part.reshape(steps, self.rows) for part in parts], 1).ravel()

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        count = len(self._sizes)
        parts = [networks[0](part).logits for part in images.chunk(count)]
        losses = [self.task.loss(*pair) for pair in zip(parts, labels.chunk(count), strict=True)]
        return Forward(torch.stack(losses).sum(), self.task.answer(torch.cat(parts).detach()))


def _shuffled(positions: np.ndarray, epoch: int, seed: int, task: int) -> np.ndarray:
    """The samples of a task in the order of one of its own epochs."""
    return np.asarray(random_numbers(seed, epoch, PURPOSE + task).permutation(positions))
