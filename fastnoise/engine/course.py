"""What changes from step to step beside the steps themselves: a cycle's rate, slow weights, averages of weights."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from ..config import Averaging, OptimConfig, Optimizer, Schedule
from ..methods import Method
from ..methods.averages import AveragedNetworks
from ..models import Network
from ..ops.optimizer import OneLaunch
from .layer_rates import set_rate
from .optimizer import LRScheduler
from .step import Step


def round_length(rounds: Mapping[int, int], epoch: int) -> int:
    """The epochs of the round that `epoch` lies in. `rounds`: the first epoch of each round -> its length."""
    return rounds[max(first for first in rounds if first <= epoch)]


class StepCourse(nn.Module):
    """The rates, slow weights and averaged weights of a run, step by step.

    The rate of a cycle is a function of the place in the course, and Lookahead's steps are counted in each epoch, whose
    last step is always one at which the slow weights move. So a resumed run goes on by the tensors of this module
    alone, which are a part of the method's state in checkpoints.

    Both kinds of weights cost the memory of the networks once more; the average has that of their buffers too.

    Args:
        config: of the run.
        networks: on their device.
        rounds: the first epoch of each round of training -> its length in epochs (`Method.rounds`).
    """

    slow: AveragedNetworks | None
    average: AveragedNetworks | None

    def __init__(self, config: OptimConfig, networks: nn.ModuleList, rounds: Mapping[int, int]):
        super().__init__()
        self._networks = cast(list[Network], list(networks))  # in a list, so that they are not among this module's
        self._rounds = dict(rounds)
        self._schedule = Schedule.parse(config.schedule)
        self._rate = config.learning_rate
        optimizer, averaging = Optimizer.parse(config.optimizer), Averaging.parse(config.average_weights)
        self._every = optimizer.lookahead
        self.slow = AveragedNetworks(self._networks, 1 - optimizer.alpha) if self._every else None
        self.average = None
        self._first = 0
        if averaging is not None:
            self._first = averaging.first(config.epochs)
            self.average = AveragedNetworks(self._networks, averaging.momentum, with_buffers=True)
        self.averaging = False
        """Whether the average follows the networks, and answers for them."""
        self._moved: set[Tensor] = set()
        """The tensors of the average that the optimiser's kernel moves."""
        self._ahead: list[float] | Tensor = []
        """The rates of steps that are made together: numbers, or float32 [K] on the device, where a captured graph
        reads them."""

    def describe(self) -> list[str]:
        """What a run says of its slow and averaged weights, with the memory that they take."""
        lines = []
        for what, kept in (("slow", self.slow), ("averaged", self.average)):
            if kept is not None:
                tensors = [*kept.copies.parameters(), *kept.copies.buffers()]
                size = sum(tensor.nbytes for tensor in tensors) / 1e6
                since = f"; they answer for the run from epoch {self._first} on" if kept is self.average else ""
                lines.append(f"{what} weights: a copy of the networks, {size:.1f} MB{since}")
        return lines

    def take_up(self, epoch: int, step: Step) -> None:
        """Let the average answer if it does after `epoch`, which is 0 before the first."""
        averaging = self.average is not None and epoch >= self._first
        if averaging == self.averaging:
            return
        self.averaging = averaging
        copies = self.average.copies if averaging and self.average is not None else self._networks
        step.answer_by(cast(list[Network], list(copies)))
        # A method that does something after the update may change the weights, which the average must see.
        if isinstance(step.optimizer, OneLaunch) and type(step.method).after_update is Method.after_update:
            assert self.average is not None
            pairs = self.average.pairs(self._networks) if averaging else []
            step.optimizer.keep_averages(pairs, self.average.momentum)
            self._moved = set(step.optimizer.averages.values())

    def begin(self, epoch: int, start: int, step: Step) -> None:
        """Called before the steps of `epoch` from batch `start` on."""
        if start == 0 and self.slow is not None:
            self.slow.begin(self._networks)
        if start == 0 and self.average is not None and (epoch == self._first or epoch in self._rounds):
            self.average.begin(self._networks)
        self.take_up(epoch, step)

    def before_step(
        self, optimizer: torch.optim.Optimizer, schedule: LRScheduler, epoch: int, batch: int, batches: int
    ) -> None:
        """Set the rate of a cycle for a step: that of the middle of its part of the course.

        Args:
            schedule: its `last_epoch` counts the epochs of the round that are over.
            batch: of the step, from 0, of `batches` of the epoch.
        """
        if self._schedule.by_step:
            set_rate(optimizer, self._rate_at(schedule, epoch, batch, batches))

    def _rate_at(self, schedule: LRScheduler, epoch: int, batch: int, batches: int) -> float:
        length = round_length(self._rounds, epoch)
        return self._rate * self._schedule.share((schedule.last_epoch + (batch + 0.5) / batches) / length)

    def observe(self) -> None:
        """Move the average; a part of each step."""
        if self.averaging and self.average is not None:
            self.average.follow(self._networks, self._moved)

    def after_step(self, number: int, batches: int) -> None:
        """Called after step `number`, from 1, of `batches` of an epoch: move the slow weights, if it is time."""
        if number % self.every == 0 or number == batches:
            self._move_slow()

    @torch.no_grad()
    def _move_slow(self) -> None:
        if self.slow is None:
            return
        self.slow.follow(self._networks)
        own: list[Tensor] = [parameter for network in self._networks for parameter in network.parameters()]
        torch._foreach_copy_(own, list(self.slow.copies.parameters()))

    # -- steps that are made together: K of them, the first after a multiple of `every` steps of the epoch -------------

    @property
    def every(self) -> int:
        """Steps between two moves of the slow weights, counted in each epoch; 1 if there are none."""
        return self._every or 1

    def rates(
        self, optimizer: torch.optim.Optimizer, schedule: LRScheduler | None, epoch: int, batches: int
    ) -> list[float] | Tensor | None:
        """The rates of all steps of an epoch, as `before_step` sets them: numbers, or float32 on the device if the
        optimiser has its rate there; None if they are the epoch's own. Without a schedule the rate stays as it is."""
        if not self._schedule.by_step:
            return None
        own = optimizer.param_groups[0]["lr"]
        if schedule is None:
            found = [float(own)] * batches
        else:
            found = [self._rate_at(schedule, epoch, batch, batches) for batch in range(batches)]
        return torch.tensor(found, device=own.device) if isinstance(own, Tensor) else found

    def before_joint(self, rates: list[float] | Tensor | None) -> None:
        """Called with their part of `rates` before K steps, outside of a graph."""
        if isinstance(rates, Tensor):
            if not isinstance(self._ahead, Tensor):
                self._ahead = torch.empty_like(rates)
            self._ahead.copy_(rates)
        elif rates is not None:
            self._ahead = rates

    def before_each(self, optimizer: torch.optim.Optimizer, place: int) -> None:
        """Called before each of them, from 0. Uses the device alone if the optimiser has its rate there."""
        if self._schedule.by_step:
            set_rate(optimizer, self._ahead[place])

    def after_each(self, place: int) -> None:
        """Called after each of them, from 0. Uses the device alone."""
        if (place + 1) % self.every == 0:
            self._move_slow()

    def weights(self) -> dict[str, Tensor] | None:
        """The state of the averaged networks, by the names in the networks' own; None if these answer themselves."""
        if not self.averaging or self.average is None:
            return None
        return cast(dict[str, Tensor], self.average.copies.state_dict())
