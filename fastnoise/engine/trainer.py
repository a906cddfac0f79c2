"""The training loop over epochs, interruptible and resumable at any moment."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from signal import SIGPIPE
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from ..data import Loader
from ..data.balance import drawn_order, filled
from ..errors import TrainingError
from ..methods import Forward, Method, Run
from ..methods.scan import Kept
from ..models import Network, Outputs
from ..schedules import SaveEvery
from ..tasks import Evaluation
from ..texts import counted
from . import checkpoint
from .clipping import takes_norms
from .course import StepCourse, round_length
from .display import Display, output_lost
from .distributed import Votes, World, equalise, share
from .evaluate import evaluate
from .gradient_mean import GradientMean
from .gradients import add_gradients
from .growth import GrowingSize
from .kept_models import KeptModels
from .layer_rates import follow
from .loggers import RunLoggers
from .longer import epochs_before, lengthen
from .measured import MeasuredSteps
from .metrics import EpochStatistics
from .optimizer import choose_optimizer_kernel, create_optimizer, create_schedule
from .payback import StepTimes
from .phases import begin_epoch, second_optimizer
from .prepare import Loaders
from .record import Part, Record
from .saves import SaveClock
from .several import Stepping, choose_steps_per_graph
from .signals import Interrupted, deferred_signals
from .step import Step, choose_gear
from .stopping import EarlyStop
from .witness import Witness


class Training(MeasuredSteps, ABC):
    """The loop over epochs, for one run or for several stacked runs.

    What differs between the two are the hooks at the end, which a subclass fills in.

    Attributes:
        members: the records of all runs, in their order.
        records: of the runs that go on; those that fail leave this list.

    Args:
        members: their configurations agree in all that the loop reads.
        method: makes the steps.
        networks: on `device`; one, or as many as the method trains.
        loaders: `train` gives the batches of the steps.
        labels: int64, the label table that the steps read.
        statistics: what the steps add to; the records' are parts of it.
        batch_size: samples in a full batch.
        shape: of the images of a full batch of one view, as the networks take them.
        amp: the autocast dtype.
        start: epoch and batch that training begins before, in a resumed run others than (1, 0).
        last: epoch that training ends after; None: the run's last.
        witness: sees the outputs for the test images after each epoch.
        world: the processes that train the run together; by default this one alone.
    """

    def __init__(
        self,
        members: Sequence[Record],
        method: Method,
        networks: torch.nn.ModuleList,
        loaders: Loaders,
        labels: Tensor,
        statistics: EpochStatistics,
        device: torch.device,
        console: Console,
        batch_size: int,
        shape: Sequence[int],
        amp: torch.dtype | None,
        start: tuple[int, int] = (1, 0),
        last: int | None = None,
        witness: Witness | None = None,
        world: World | None = None,
    ):
        config = members[0].config
        self.witness, self.world = witness, world or World()
        self.members, self.records = tuple(members), list(members)
        self.config, self.device, self.console = config, device, console
        self.method, self.networks, self.loaders, self.statistics = method, networks, loaders, statistics
        self.times, self.shape, self.amp = StepTimes(), shape, amp
        cost = self._compile_cost()
        self.num_batches = config.data.epoch_batches or loaders.train.num_batches
        """Batches of an epoch, unless the method orders it."""
        steps = max(0, ((last or config.optim.epochs) - start[0] + 1) * self.num_batches - start[1])
        together = choose_steps_per_graph(config, method, loaders.train, len(members), self.world.size)
        gear = self.world.first(lambda: choose_gear(config.engine, device, amp, steps, cost))
        kernel = choose_optimizer_kernel(config.engine, device)
        self.optimizer = create_optimizer(config.optim, networks, capturable=gear.graphed, kernel=kernel)
        self.second = second_optimizer(config.optim, method, networks, capturable=gear.graphed, kernel=kernel)
        lengths = method.rounds(config.optim.epochs)
        self.rounds = {1 + sum(lengths[:number]): length for number, length in enumerate(lengths)}
        """First epoch of each round -> its length."""
        self.stop = EarlyStop(config, members[0].data.task.score, max(self.rounds))
        self.least = 1
        """Samples that the last batch of an epoch which the method orders has at least."""
        # That of the last step's round, to which `load` gives its place. A round makes its own in its first epoch.
        length = round_length(self.rounds, max(1, start[0] - (start[1] == 0)))
        self.schedule = create_schedule(replace(config.optim, epochs=length), self.optimizer)
        self.gradients = GradientMean.of(networks.parameters(), self.world, overlapped=not gear.graphed)
        self.step = Step(
            list(networks),  # type: ignore[arg-type]
            method,
            self.optimizer,
            labels,
            batch_size=batch_size,
            config=config.engine,
            device=device,
            gear=gear,
            clip_norm=config.optim.clip_norm,
            norms=statistics.note_norm if takes_norms(config) else None,
            observe=self._observe,
            looks=statistics.looks,
            mirrored=config.data.eval_mirror,
            gradients=self.gradients,
        )
        data = members[0].data
        self.growth = GrowingSize(config, data.image_size, data.channels, list(networks))
        self.course = StepCourse(config.optim, networks, self.rounds)
        if members[0].method is method:  # of a run by itself: its checkpoints hold the course's weights
            method.add_module("step_course", self.course)
        self.models = KeptModels(self._answering_weights, self._say, writes=self.world.main)
        self.stepping = Stepping(self.step, self.course, loaders.train, together, config.engine.seed)
        self.saves, self.votes = SaveClock(SaveEvery.parse(config.engine.save_every)), Votes(self.world)
        self.checkpoints = checkpoint.Checkpoints(self, self.saves, config.engine.save_tables_every)
        self.step_seconds: list[float] = []
        """What a step took on the mean of each epoch of this process but the first, which compiles and captures."""
        self.warm = False  # whether this process has made a step: the first compiles and fills caches
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # shapes are fixed, so the search for kernels pays once

    # -- the loop ------------------------------------------------------------------------------------------

    def train(self, epoch: int, batch: int, last: int | None = None) -> list[dict[str, Any]]:
        """Go on from batch `batch` (from 0) of `epoch` to the end; returns what each run's summary.json holds.

        With `last` training stops after that epoch, with checkpoints but without summaries.
        """
        if len(self.records) == 1 and (obstacle := self.checkpoints.prepare(self.records[0])):
            self._say(f"training waits while a checkpoint is written: {obstacle}")
        with RunLoggers(self.members if self.world.main else (), self._say) as loggers, closing(self.checkpoints):
            return self._train(epoch, batch, last, loggers)

    def _train(self, epoch: int, batch: int, last: int | None, loggers: RunLoggers) -> list[dict[str, Any]]:
        config = self.config
        for record in self.records:
            record.folder.write_metrics(record.history)
        self._begin_profile(self.records[0])
        self.course.take_up(epoch - 1, self.step)
        lines = self.describe()
        if (epoch, batch) != (1, 0):
            done = epoch > config.optim.epochs or self._stopped()
            lines.append(
                f"resumed: {'the run is complete' if done else f'going on in epoch {epoch}, batch {batch + 1}'}"
            )
        for line in lines:
            self._say(line)
        if (epoch, batch) == (1, 0):
            self.end_epoch(0)
        epochs, batches = config.optim.epochs, self.num_batches
        with (
            deferred_signals() as signals,
            self.profiler or nullcontext(),
            Display(self.console, epochs, batches, config.engine.log_every, self.members[0].data.task.score) as display,
        ):
            while epoch <= (last or epochs) and not self._stopped():
                figures = self._epoch(epoch, batch, display, signals)
                for record, found in figures.items():
                    record.history.append(found)
                self.models.take_best(figures)
                epoch, batch = epoch + 1, 0
                ended = epoch > (last or epochs) or self._stopped()
                if self.votes.after_epoch(signals, self.saves.due_after(epoch - 1) or ended):
                    self._save(epoch, 0, last=ended or self.votes.stop)
                else:
                    self.checkpoints.settle_if_written()
                for record, found in figures.items():
                    record.folder.append_metrics(found)
                    loggers.epoch(record, found)
                display.epoch(self.shown(list(figures.values())))
                if not self.votes.stop and self.world.largest(output_lost(self.console) is not None):
                    signals.append(SIGPIPE)
                    self.votes.stop = True
                    if not ended and last is None:
                        self._save(epoch, 0, last=True)
                if self.votes.stop and epoch <= epochs and not self._stopped():
                    raise self._interrupted(epoch, 0, signals)
        if self._stopped() and epoch <= epochs:
            self._say(self.stop.line(self.records[0].history))
        if self.profiler is not None:
            self.console.print(self.profiler.report(), highlight=False, soft_wrap=True, markup=False)
        if self.step_seconds:
            name = "compiled_step" if self.step.gear.compiled else "plain_step"
            self._keep_times(**{name: float(np.median(self.step_seconds))})
        if last is not None:
            return []
        self.models.write_last(self.records)
        final, task = self.evaluate("train_in_order"), self.members[0].data.task
        test = self.evaluate("test") if task.keeps_answers else {}
        summaries = []
        for record in self.records:
            if record in test:
                record.folder.write_answers(task.kept(test[record], record.truth("test")))
            summary = record.summary(final[record], self._view(record, len(record.history)))
            summary |= self.stop.figures(record.history)
            summary["throughput"]["gear"] = self.step.gear.name
            if self.step_seconds:
                summary["throughput"]["step_seconds"] = float(np.median(self.step_seconds))
            if self.count > 1:
                summary["throughput"]["stacked_runs"] = self.count
            if self.device.type == "cuda":
                summary["throughput"]["peak_memory_gib"] = torch.cuda.max_memory_reserved(self.device) / 2**30
            record.folder.write_summary(summary)
            loggers.end(record, summary)
            summaries.append(summary)
        self.finish(summaries)
        return summaries

    def _stopped(self) -> bool:
        """Whether the run, which is by itself if it has patience, has ended early."""
        return self.stop.reached(self.members[0].history)

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)

    def _save(self, epoch: int, batch: int, *, last: bool) -> None:
        with self.saves.writing():
            if batch > 0:  # at the end of an epoch the methods have dealt with theirs
                self.settle()
            self.models.write_best()
            self.checkpoints.save(self.records, epoch, batch, last=last)

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Take up a checkpoint of each run, all of one place; CheckpointError for one of another run."""
        checkpoint.load_states(self, dict(zip(self.members, states, strict=True)))
        if (before := self.lengthened(states[0])) is not None:
            done = checkpoint.place_of(states[0])[0] - 1
            self._say(lengthen(self.schedule, self.optimizer, self.config.optim, before, done))

    def lengthened(self, state: dict[str, Any]) -> int | None:
        """The epochs that a checkpoint's run had, if this one has more; else None. ConfigError as `epochs_before`."""
        return epochs_before(state, self.config, self.method)

    def _interrupted(self, epoch: int, batch: int, signals: list[int]) -> Interrupted:
        why = f"nobody takes the output ({lost}): " if (lost := output_lost(self.console)) else ""
        text = f"{why}stopped in epoch {epoch} after {counted(batch, 'batch', 'batches')}, saved; {self.how_to_go_on()}"
        return Interrupted(text, signals[0])

    def _epoch(self, epoch: int, start: int, display: Display, signals: list[int]) -> dict[Record, dict[str, Any]]:
        """Train and evaluate one epoch from batch `start` on; returns each run's figures."""
        if start == 0:
            self.statistics.reset()
        self.method.start_epoch(epoch)
        self.networks.train()
        self.method.train()
        rate, schedule = begin_epoch(self, epoch, start)
        self.method.at_rate(rate)
        self.course.begin(epoch, start, self.step)
        self.step.train_on(self.growth.size(epoch))
        order = self._order(epoch)
        batches = self.loaders.train.count_batches(order)
        images_seen, timed_images, timed_steps, waiting, saving, first = 0, 0, 0, 0.0, 0.0, 0.0
        cold = not self.warm
        self.world.took()  # what was sent since the last epoch's steps
        began = tick = time.perf_counter()
        for number, steps, samples, make in self.stepping.epoch(epoch, start, order, schedule, self.profiler):
            arrived = time.perf_counter()
            waiting += arrived - tick
            make()
            if self.profiler is not None:
                self.profiler.step()
            images_seen += samples
            if not self.warm:  # left out of the epoch's rate, which it would spoil
                self._synchronize()
                self.warm = True
                for record in self.records:
                    record.first_step_seconds = record.first_step_seconds or time.perf_counter() - arrived
                first, waiting = time.perf_counter() - began, 0.0
                if self.step.gear.compiled:
                    compiling = time.perf_counter() - arrived
                    self._say(f"first step, with compilation: {compiling:.1f} s")
                    self._keep_times(compiling=compiling)
            else:
                timed_images += samples
                timed_steps += steps
            tick = time.perf_counter()
            display.batch(epoch, number, images_seen, tick - began, self._mean_loss, steps)
            if number < batches and self.votes.inside(number, signals, self.saves.due):
                self._check_finite(epoch)  # reads the device: what it still had to do is the steps' time
                tick = time.perf_counter()
                self._save(epoch, number, last=self.votes.stop)
                if self.votes.stop:
                    raise self._interrupted(epoch, number, signals)
                saving += time.perf_counter() - tick
                tick = time.perf_counter()
        self._check_finite(epoch)  # reads the device, so that the clock below stops after the last step
        seconds = time.perf_counter() - began
        if schedule is not None:
            schedule.step()
            follow(self.optimizer)
        self.statistics.end_epoch(epoch)
        communicated = None if self.gradients is None else self.gradients.seconds_of(batches - start)
        share(self.world, self.networks, self.records)
        training_figures = {record: record.training_figures() for record in self.records}
        add_gradients(training_figures, self.scan)
        self.end_epoch(epoch)
        tests = {"test": self.evaluate("test", self.witness)}
        self._check_finite(epoch, tests["test"])
        tests |= {part: self.evaluate(part) for part in self.members[0].tests[1:]}
        validation = self.evaluate("validation") if self.loaders.validation is not None else {}
        timed = max(seconds - first - saving, 1e-9)
        if not cold and timed_steps:
            self.step_seconds.append(timed / timed_steps)
        reserved = {"memory_gib": torch.cuda.memory_reserved(self.device) / 2**30} if self.device.type == "cuda" else {}
        rate_of_images = (timed_images or images_seen) / (timed if timed_images else seconds)
        return {
            record: {
                "epoch": epoch,
                "learning_rate": rate,
                **training_figures[record],
                **record.method.report(),
                **record.selections(),
                **record.test_figures({part: of[record] for part, of in tests.items()}, validation.get(record)),
                "images_per_second": self.world.size * rate_of_images / self.count,
                "data_wait": min(1.0, waiting / timed),
                **({} if communicated is None else {"collectives": min(1.0, communicated / seconds)}),
                **reserved,
                "seconds": seconds,
                "epoch_seconds": time.perf_counter() - began,
            }
            for record in self.records
        }

    def _observe(self, result: Forward, index: Tensor) -> None:
        self.statistics.update(result, index)
        self.course.observe()

    def _answering_weights(self, record: Record) -> MutableMapping[str, Any]:
        return self.course.weights() or self.weights_of(record)

    def _order(self, epoch: int) -> NDArray[np.int64] | None:
        """The samples of an epoch in order; None: each once, as the loader shuffles them."""
        settings, seed = self.config.data, self.config.engine.seed
        order = self.method.order(epoch, seed)
        if order is not None:
            return filled(order, settings.batch_size, 1 if settings.drop_last else self.least)
        given, batches = self.members[0].data.given, settings.epoch_batches
        return drawn_order(settings.balance, given, settings.batch_size, batches, seed, epoch, self.world.size)

    def end_epoch(self, epoch: int) -> None:
        """Let the methods do what they do after an epoch, or before the first (0)."""
        self.settle()
        for record in self.records:
            record.method.end_epoch(self._view(record, epoch))
        equalise(self.world, self.networks, self.records)

    def _view(self, record: Record, epoch: int) -> Run:
        """A run as its method sees it after `epoch`."""
        return Run(
            epoch=epoch,
            epochs=self.config.optim.epochs,
            seed=record.config.engine.seed,
            networks=self.networks_of(record),
            given=record.given,
            labels=record.labels,
            scan=partial(self.scan, record),
            warn=lambda message: self._say(f"warning: {message}"),
            scores=record.scores,
        )

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _mean_loss(self) -> float:
        return float(self.statistics.loss_sum.sum()) / max(1, int(self.statistics.samples.sum()))

    def _check_finite(self, epoch: int, tests: Mapping[Record, Evaluation] | None = None) -> None:
        for record in list(self.records):
            bad = self.world.earliest(int(record.statistics.bad_step))
            if bad < 0 and (tests is None or np.isfinite(tests[record].loss)):
                continue
            self.checkpoints.settle()
            where = f"at step {bad} of epoch {epoch}" if bad >= 0 else f"on the test set after epoch {epoch}"
            kept = (
                f"the last good checkpoint is kept in {kept_in}"
                if (kept_in := record.folder.last_checkpoint()) is not None
                else "there is no checkpoint yet"
            )
            message = f"the loss became NaN or infinite {where}; {kept}; try a lower --learning-rate"
            self.fail(record, TrainingError(message))

    def evaluate(self, part: Part, witness: Witness | None = None) -> dict[Record, Evaluation]:
        """The answers of each run that goes on for the images of `part`, which `witness` sees too."""
        truths = [record.truth(part) for record in self.members]
        answers = self.members[0].data.task.collect(truths, self.device)
        batches = self.answers(self.loaders.of(part))
        found = evaluate(answers, batches if witness is None else witness.watch(batches))
        return {record: own for record, own in zip(self.members, found, strict=True) if record in self.records}

    # -- what one run and several do each in its way ----------------------------------------------------------

    @property
    def count(self) -> int:
        """Runs that share the steps."""
        return len(self.members)

    @abstractmethod
    def describe(self) -> list[str]:
        """Lines to begin with."""

    @abstractmethod
    def how_to_go_on(self) -> str:
        """The line that says how to continue after an interruption."""

    @abstractmethod
    def fail(self, record: Record, error: TrainingError) -> None:
        """Called when a run's loss has become NaN or infinite."""

    @abstractmethod
    def settle(self) -> None:
        """Called before methods are saved inside an epoch, or see its end: what their steps have in common is shared
        out."""

    @abstractmethod
    def weights_of(self, record: Record) -> MutableMapping[str, Any]:
        """The state of a run's networks, with the names of a single run."""

    @abstractmethod
    def load_weights(self, record: Record, weights: Mapping[str, Any]) -> None:
        """Load what `weights_of` gave; RuntimeError or KeyError if it doesn't fit."""

    @abstractmethod
    def part_of(self, record: Record, tensor: Tensor) -> Tensor:
        """A run's part of a tensor of the optimiser, as a view."""

    @abstractmethod
    def answers(self, loader: Loader) -> Iterator[tuple[Outputs, Tensor]]:
        """What the runs answer in evaluation mode for the images of `loader`: a pass, as `evaluate` takes it."""

    @abstractmethod
    def networks_of(self, record: Record) -> list[Network]:
        """The networks that a method sees of its run."""

    @abstractmethod
    def scan(
        self,
        record: Record,
        of: Callable[[Sequence[Outputs], Tensor], Kept],
        *,
        batch_statistics: bool = False,
        samples: NDArray[np.int64] | None = None,
    ) -> Kept:
        """A run's pass over its training set, as Run.scan says."""

    @abstractmethod
    def shown(self, figures: list[dict[str, Any]]) -> dict[str, Any]:
        """What the display shows of the figures of an epoch."""

    @abstractmethod
    def finish(self, summaries: list[dict[str, Any]]) -> None:
        """Called after everything is written; shows the last lines."""
