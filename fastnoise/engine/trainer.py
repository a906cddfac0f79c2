"""Training from a configuration to a run folder, interruptible and resumable at any moment."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from .. import own
from ..config import RunConfig, SaveEvery, parse_compile_options
from ..data import ImageDataset
from ..data.names import is_named
from ..errors import CheckpointError, ConfigError, TrainingError
from ..files import write_json
from ..methods import Method, Run, Setting, create_method
from ..methods.scan import Kept, keep
from ..models import Network, Outputs, create_model
from ..models.encoder import load_encoder
from ..noise import NoisyLabels
from .display import Display, make_console, result_table
from .environment import describe_environment
from .folder import CHECKPOINT_FORMAT, RunFolder
from .metrics import EpochStatistics, Evaluation
from .payback import UNKNOWN_NETWORK, Cost, StepTimes, compile_cost
from .prepare import Loaders, Task, image_dtype, load_task, make_loaders
from .profile import StepProfiler
from .record import Part, Record, encoder_shape
from .saves import SaveClock
from .step import (
    Step,
    choose_amp,
    choose_device,
    choose_gear,
    create_optimizer,
    create_schedule,
    load_optimizer,
    reset_optimizer,
)


class Interrupted(Exception):
    """Ctrl-C or SIGTERM arrived; the run was saved and can be resumed. The message says how."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM for the training loop to act on; a second SIGINT interrupts at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, where signals belong to someone else
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def train(
    config: RunConfig,
    *,
    dataset: ImageDataset | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run the training that `config` describes and write its run folder.

    Args:
        config: the full configuration, such as `fastnoise.recipes.recipe("nal", dataset.name)` gives; with `resume`,
            that of the run in `config.run_dir`.
        dataset: images and labels in memory (`ImageDataset.from_arrays`), in place of those that `config` names; the
            configuration has its name. Its labels are taken as they are unless the configuration has a noise.
        resume: go on with the run in `config.run_dir` from its last checkpoint.
        console: where progress and the final table go; standard output by default.

    Returns:
        What summary.json holds, with the run folder under "run_dir".

    Raises:
        FastnoiseError: for anything the user can mend, before or during training.
        Interrupted: after Ctrl-C or SIGTERM, once the state is saved.
    """
    console = console or make_console()
    if not isinstance(config, RunConfig):
        raise ConfigError(f"the configuration must be a RunConfig, such as recipe(METHOD), not {type(config).__name__}")
    device = choose_device(config.engine.device)
    task = load_task(config, dataset)
    folder = open_folder(config, task) if resume else None
    checkpoint = None if folder is None else folder.read_checkpoint(device)
    run = _Run(config, task, device, console, checkpoint)
    for name in [] if folder is None else folder.changed_code(config):
        console.print(f"warning: {name} has changed since the run was last started", soft_wrap=True, markup=False)
    try:
        begin(run.records[0], folder, describe_environment())
        return run.train(*(1, 0) if checkpoint is None else run.load_state(checkpoint))[0]
    finally:
        run.loaders.close()


def open_folder(config: RunConfig, task: Task) -> RunFolder:
    """The folder of the run in `config.run_dir`; CheckpointError where its labels are not those of `task`."""
    folder = RunFolder.open(Path(config.run_dir or ""))
    if NoisyLabels.load(folder.labels).sha256 != task.noisy.sha256:
        raise CheckpointError(
            f"the labels of {config.data.dataset} under {config.data.data_root} are not those of the run "
            f"({folder.labels}); give the --data-root that the run was started with"
        )
    return folder


def begin(record: Record, folder: RunFolder | None, environment: dict[str, Any]) -> None:
    """Make a run's folder, or take the one that it has, and note this start in it."""
    if folder is None:
        folder = RunFolder.create(record.config)
        record.task.noisy.save(folder.labels)
        write_json(folder.classes, list(record.task.class_names))
    code = own.fingerprints(record.config.flat())
    folder.add_environment({**environment, **({"own_files": code} if code else {})})
    folder.write_config(record.config.replace({"run_dir": str(folder.path)}))
    record.folder = folder


def create_parts(
    config: RunConfig, task: Task, device: torch.device, *, fresh: bool
) -> tuple[Method, torch.nn.ModuleList]:
    """The method and the networks of a run on `device`, drawn from its seed.

    Without `fresh` the networks are to be given a checkpoint's weights, and don't begin from `config.model.encoder`.
    """
    torch.manual_seed(config.engine.seed)
    method = create_method(config.method, num_samples=len(task.given), num_classes=task.num_classes)
    method.configure(Setting(config.optim, task.mean, task.std, config.data.batch_size))
    networks = torch.nn.ModuleList(
        create_model(
            config.model.model,
            num_classes=task.num_classes,
            channels=task.channels,
            image_size=task.image_size,
            width=config.model.width,
            attention=method.attention,
            features=method.features or config.model.encoder is not None,
            dropout=config.model.dropout,
        )
        for _ in range(method.networks)
    ).to(device)
    if config.model.encoder is not None and fresh:  # before averaged copies are made; a checkpoint has its own
        shape = encoder_shape(config, task)
        for network in networks:
            load_encoder(Path(config.model.encoder), network, **shape)  # type: ignore[arg-type]
    return method.to(device), networks


def place_of(checkpoint: dict[str, Any] | None) -> tuple[int, int]:
    """Epoch and batch that training goes on before; (1, 0) without a checkpoint."""
    if checkpoint is None:
        return (1, 0)
    try:
        return int(checkpoint["epoch"]), int(checkpoint["batch"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint does not say where it stands ({error}); start the run anew") from error


class Training:
    """The loop over epochs, for one run or for several that are trained as one.

    What differs between the two are the hooks at the end, which a subclass fills in.

    Args:
        records: of the runs; their configurations agree in all that the loop reads. Runs that fail leave the list.
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
    """

    def __init__(
        self,
        records: list[Record],
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
    ):
        config = records[0].config
        self.records, self.config, self.device, self.console = records, config, device, console
        self.method, self.networks, self.loaders, self.statistics = method, networks, loaders, statistics
        self.times = StepTimes()
        self.shape, self.amp = shape, amp
        cost = self._compile_cost()
        steps = max(0, ((last or config.optim.epochs) - start[0] + 1) * loaders.train.num_batches - start[1])
        gear = choose_gear(config.engine, device, amp, steps, cost)
        self.optimizer = create_optimizer(config.optim, networks, capturable=gear.graphed)
        lengths = method.rounds(config.optim.epochs)
        self.rounds = {1 + sum(lengths[:number]): length for number, length in enumerate(lengths)}
        """First epoch of each round -> its length."""
        self.schedule = create_schedule(replace(config.optim, epochs=self.rounds[1]), self.optimizer)
        self.step = Step(
            list(networks),  # type: ignore[arg-type]
            method,
            self.optimizer,
            labels,
            batch_size=batch_size,
            config=config.engine,
            device=device,
            gear=gear,
            observe=statistics.update,
        )
        self.saves = SaveClock(SaveEvery.parse(config.engine.save_every))
        self.step_seconds: list[float] = []
        """What a step took on the mean of each epoch of this process but the first, which compiles and captures."""
        self.profiler: StepProfiler | None = None
        self.warm = False  # whether this process has made a step: the first compiles and fills caches
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # shapes are fixed, so the search for kernels pays once

    def _times_key(self, graphed: bool) -> str:
        """The words under which times of such steps on this device are kept."""
        config = self.config
        words = {
            "gpu": torch.cuda.get_device_name(self.device),
            "torch": torch.__version__,
            "method": config.method.method,
            "networks": self.method.networks,
            "model": config.model.model,
            "width": config.model.width,
            "images": "x".join(str(size) for size in self.shape),
            "views": self.method.views,
            "amp": "off" if self.amp is None else str(self.amp).removeprefix("torch."),
            "loader": self.loaders.train.name,
            "graphed": "yes" if graphed else "no",
            "options": ",".join(parse_compile_options(config.engine.compile_options)) or "none",
        }
        return ", ".join(f"{name} {value}" for name, value in words.items())

    def _compile_cost(self) -> Cost:
        engine = self.config.engine
        if self.device.type != "cuda" or engine.gear != "auto" or engine.compile != "auto":
            return UNKNOWN_NETWORK  # nobody asks for it
        times, note = self.times.read(self._times_key(self.amp != torch.float16))  # whose steps are not captured
        return compile_cost(list(self.networks), self.shape, self.amp, times, note)

    def _keep_times(self, **seconds: float) -> None:
        """Let later runs know what was measured; not on a CPU, where `auto` never compiles, and not of a profile, which
        takes time of its own."""
        if self.device.type == "cuda" and self.profiler is None:
            note = self.times.write(self._times_key(self.step.gear.graphed), **seconds)
            if note:
                self._say(f"warning: {note}")

    # -- the loop ------------------------------------------------------------------------------------------

    def train(self, epoch: int, batch: int, last: int | None = None) -> list[dict[str, Any]]:
        """Go on from batch `batch` (from 0) of `epoch` to the end; returns what each run's summary.json holds.

        With `last` training stops after that epoch, with checkpoints but without summaries.
        """
        config = self.config
        for record in self.records:
            record.folder.write_metrics(record.history)
        if config.engine.profile:
            targets = getattr(getattr(self.method, "criterion", None), "targets", None)
            self.profiler = StepProfiler(
                self.records[0].folder.profile,
                table_shape=None if targets is None else (targets.shape[0], targets.shape[1]),
            )
        lines = self.describe()
        if (epoch, batch) != (1, 0):
            done = epoch > config.optim.epochs
            lines.append(
                f"resumed: {'the run is complete' if done else f'going on in epoch {epoch}, batch {batch + 1}'}"
            )
        for line in lines:
            self._say(line)
        if (epoch, batch) == (1, 0):
            self.end_epoch(0)
        epochs = config.optim.epochs
        batches = self.loaders.train.num_batches
        with (
            deferred_signals() as signals,
            self.profiler or nullcontext(),
            Display(self.console, epochs, batches, config.engine.log_every) as display,
        ):
            while epoch <= (last or epochs):
                figures = self._epoch(epoch, batch, display, signals)
                for record, found in figures.items():
                    record.history.append(found)
                epoch, batch = epoch + 1, 0
                if self.saves.due_after(epoch - 1) or epoch > (last or epochs) or signals:
                    self._save(epoch, 0)
                for record, found in figures.items():
                    record.folder.append_metrics(found)
                display.epoch(self.shown(list(figures.values())))
                if signals and epoch <= epochs:
                    raise self._interrupted(epoch, 0, signals)
        if self.profiler is not None:
            self.console.print(self.profiler.report(), highlight=False, soft_wrap=True, markup=False)
        if self.step_seconds:
            name = "compiled_step" if self.step.gear.compiled else "plain_step"
            self._keep_times(**{name: float(np.median(self.step_seconds))})
        if last is not None:
            return []
        final = self.evaluate("train_in_order")
        summaries = []
        for record in self.records:
            summary = record.summary(final[record], self._view(record, epochs))
            summary["throughput"]["gear"] = self.step.gear.name
            if self.step_seconds:
                summary["throughput"]["step_seconds"] = float(np.median(self.step_seconds))
            if self.count > 1:
                summary["throughput"]["stacked_runs"] = self.count
            if self.device.type == "cuda":
                summary["throughput"]["peak_memory_gib"] = torch.cuda.max_memory_reserved(self.device) / 2**30
            write_json(record.folder.summary, summary)
            summaries.append(summary)
        self.finish(summaries)
        return summaries

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)

    def _save(self, epoch: int, batch: int) -> None:
        with self.saves.writing():
            self.save(epoch, batch)

    def _interrupted(self, epoch: int, batch: int, signals: list[int]) -> Interrupted:
        return Interrupted(f"stopped in epoch {epoch} after {batch} batches, saved; {self.how_to_go_on()}", signals[0])

    def _epoch(self, epoch: int, start: int, display: Display, signals: list[int]) -> dict[Record, dict[str, Any]]:
        """Train and evaluate one epoch from batch `start` on; returns each run's figures."""
        if start == 0:
            self.statistics.reset()
        self.method.start_epoch(epoch)
        self.networks.train()
        self.method.train()
        rate = self._optimise_as(epoch, start)
        seed = self.config.engine.seed
        loader, order = self.loaders.train, self.method.order(epoch, seed)
        batches = loader.count_batches(order)
        source = loader.epoch(epoch, start, order)
        if self.profiler is not None:
            source = self.profiler.batches(source)
        images_seen, timed_images, timed_steps, waiting, saving, first = 0, 0, 0, 0.0, 0.0, 0.0
        cold = not self.warm
        began = tick = time.perf_counter()
        for number, (images, index) in enumerate(source, start + 1):
            arrived = time.perf_counter()
            waiting += arrived - tick
            self.method.before_step(epoch, number - 1, seed)
            self.step.train(images, index)
            if self.profiler is not None:
                self.profiler.step()
            images_seen += len(index)
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
                timed_images += len(index)
                timed_steps += 1
            tick = time.perf_counter()
            display.batch(epoch, number, images_seen, tick - began, self._mean_loss)
            if number < batches and (signals or self.saves.due()):
                self._check_finite(epoch)  # reads the device: what it still had to do is the steps' time
                tick = time.perf_counter()
                self._save(epoch, number)
                if signals:
                    raise self._interrupted(epoch, number, signals)
                saving += time.perf_counter() - tick
                tick = time.perf_counter()
        self._check_finite(epoch)  # reads the device, so that the clock below stops after the last step
        seconds = time.perf_counter() - began
        if self.method.phase(epoch) is None:
            self.schedule.step()
        training_figures = {record: record.training_figures() for record in self.records}
        self.end_epoch(epoch)
        test = self.evaluate("test")
        self._check_finite(epoch, test)
        validation = self.evaluate("validation") if self.loaders.validation is not None else {}
        timed = max(seconds - first - saving, 1e-9)
        if not cold and timed_steps:
            self.step_seconds.append(timed / timed_steps)
        rate_of_images = (timed_images or images_seen) / (timed if timed_images else seconds)
        return {
            record: {
                "epoch": epoch,
                "learning_rate": rate,
                **training_figures[record],
                **record.method.report(),
                **record.selections(),
                **record.test_figures(test[record], validation.get(record)),
                "images_per_second": rate_of_images / self.count,
                "data_wait": min(1.0, waiting / timed),
                "seconds": seconds,
            }
            for record in self.records
        }

    def _optimise_as(self, epoch: int, start: int) -> float:
        """Set the optimiser for an epoch entered at batch `start`; returns the learning rate."""
        phase = self.method.phase(epoch)
        if phase is None:
            if start == 0 and epoch > 1 and epoch in self.rounds:
                reset_optimizer(self.optimizer)
                self._set_learning_rate(self.config.optim.learning_rate)
                self.schedule = create_schedule(replace(self.config.optim, epochs=self.rounds[epoch]), self.optimizer)
            rate = self.schedule.get_last_lr()[0]
            return float(f"{float(rate):.8g}") if isinstance(rate, Tensor) else float(rate)  # of float32: 0.1, as asked
        self._set_learning_rate(phase.learning_rate)
        for group in self.optimizer.param_groups:
            if group["weight_decay"] != phase.weight_decay:
                group["weight_decay"] = phase.weight_decay
                self.step.recapture()
        if phase.fresh and start == 0:
            reset_optimizer(self.optimizer)
        return phase.learning_rate

    def _set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)  # in place: a captured graph reads it there
            else:
                group["lr"] = rate

    def end_epoch(self, epoch: int) -> None:
        """Let the methods do what they do after an epoch, or before the first (0)."""
        for record in self.records:
            record.method.end_epoch(self._view(record, epoch))

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
        )

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _mean_loss(self) -> float:
        return float(self.statistics.loss_sum.sum()) / max(1, int(self.statistics.samples.sum()))

    def _check_finite(self, epoch: int, tests: Mapping[Record, Evaluation] | None = None) -> None:
        for record in list(self.records):
            bad = int(record.statistics.bad_step)
            if bad < 0 and (tests is None or np.isfinite(tests[record].loss)):
                continue
            where = f"at step {bad} of epoch {epoch}" if bad >= 0 else f"on the test set after epoch {epoch}"
            kept = (
                f"the last good checkpoint is kept in {record.folder.checkpoint}"
                if record.folder.checkpoint.exists()
                else "no checkpoint yet"
            )
            message = f"the loss is not a finite number {where}; {kept}; try a lower --learning-rate"
            self.fail(record, TrainingError(message))

    # -- what one run and several do each in its way ----------------------------------------------------------

    count: int
    """Runs that share the steps."""

    def describe(self) -> list[str]:
        """Lines to begin with."""
        raise NotImplementedError

    def save(self, epoch: int, batch: int) -> None:
        """Write the checkpoints, before batch `batch` of `epoch`."""
        raise NotImplementedError

    def how_to_go_on(self) -> str:
        """What the user can do after an interruption."""
        raise NotImplementedError

    def fail(self, record: Record, error: TrainingError) -> None:
        """Called where a run's loss is no number."""
        raise NotImplementedError

    def evaluate(self, part: Part) -> dict[Record, Evaluation]:
        """Each run's answers for the images of `part`."""
        raise NotImplementedError

    def networks_of(self, record: Record) -> list[Network]:
        """The networks that a method sees of its run."""
        raise NotImplementedError

    def scan(
        self, record: Record, of: Callable[[Sequence[Outputs], Tensor], Kept], *, batch_statistics: bool = False
    ) -> Kept:
        """A run's pass over its training set, as Run.scan says."""
        raise NotImplementedError

    def shown(self, figures: list[dict[str, Any]]) -> dict[str, Any]:
        """What the display shows of the figures of an epoch."""
        raise NotImplementedError

    def finish(self, summaries: list[dict[str, Any]]) -> None:
        """Called once all is written: the last thing shown."""
        raise NotImplementedError


class _Run(Training):
    """One run."""

    count = 1

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        device: torch.device,
        console: Console,
        checkpoint: dict[str, Any] | None = None,
    ):
        method, networks = create_parts(config, task, device, fresh=checkpoint is None)
        method.attach(list(networks))  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        amp, _ = choose_amp(config.engine.amp, device)
        loaders = make_loaders(config, task, device, method.views, image_dtype(method, amp))
        labels = torch.from_numpy(task.given).to(device, copy=True)  # which methods may change, unlike what is given
        statistics = EpochStatistics(len(task.given), method.attention, device)
        self.record = Record(config, task, method, statistics, labels)
        batch_size = min(config.data.batch_size, len(task.given))
        super().__init__(
            [self.record],
            method,
            networks,
            loaders,
            labels,
            statistics,
            device,
            console,
            batch_size,
            (batch_size, task.channels, *task.image_size),
            amp,
            place_of(checkpoint),
        )

    def state(self, epoch: int, batch: int) -> dict[str, Any]:
        """Everything that the rest of the run depends on, before batch `batch` (from 0) of `epoch`.

        The pipelines draw from (seed, epoch, sample) alone, so (epoch, batch) is their whole state.
        """
        return {
            "format": CHECKPOINT_FORMAT,
            "epoch": epoch,
            "batch": batch,
            "networks": self.networks.state_dict(),
            "method": self.method.state_dict(),
            "labels": self.record.labels,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "statistics": self.statistics.state_dict(),
            "rng_cpu": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "history": self.record.history,
            "first_step_seconds": self.record.first_step_seconds,
        }

    def load_state(self, state: dict[str, Any]) -> tuple[int, int]:
        """Take up a state; returns its epoch and batch. CheckpointError if it belongs to another run."""
        try:
            self.networks.load_state_dict(state["networks"])
            self.method.load_state_dict(state["method"])
            self.record.labels.copy_(state["labels"])
            load_optimizer(self.optimizer, self.schedule, state["optimizer"], state["schedule"])
            self.step.scaler.load_state_dict(state["scaler"])
            self.statistics.load_state_dict(state["statistics"])
            torch.set_rng_state(state["rng_cpu"].cpu())
            if self.device.type == "cuda" and state["rng_cuda"]:
                present = state["rng_cuda"][: torch.cuda.device_count()]  # there may be fewer than when it was saved
                torch.cuda.set_rng_state_all([rng.cpu() for rng in present])
            self.record.history, self.record.first_step_seconds = state["history"], state["first_step_seconds"]
            return state["epoch"], state["batch"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{self.record.folder.checkpoint} does not fit the run's configuration: {reason}"
            ) from error

    def save(self, epoch: int, batch: int) -> None:
        self.record.folder.write_checkpoint(self.state(epoch, batch))

    def describe(self) -> list[str]:
        config, task, loader = self.config, self.record.task, self.loaders.train
        size = "x".join(str(side) for side in task.image_size)
        lines = [
            f"{own.short(config.method.method)} on {own.short(config.data.dataset)}: {len(task.train)} training images "
            f"{size}, {len(task.test)} test images, {task.num_classes} classes",
            f"labels: {task.noisy.describe()}",
            f"network: {'' if len(self.networks) == 1 else f'{len(self.networks)} x '}{config.model.model}, "
            f"{sum(p.numel() for p in self.networks[0].parameters()):,} parameters; "
            f"device: {self.device}; {self.step.gear.reason}; {self.step.amp_reason}",
            f"loader: {loader.reason}; {loader.num_batches} batches of {loader.batch_size} an epoch",
            f"run folder: {self.record.folder.path}",
        ]
        if task.validation is not None:
            lines[0] += f", {len(task.validation)} held out for validation"
        return lines

    def how_to_go_on(self) -> str:
        if not is_named(self.config.data.dataset):
            place = f'config.replace({{"run_dir": "{self.record.folder.path}"}})'
            return f"go on with: fastnoise.train({place}, dataset=dataset, resume=True)"
        code = own.words_for(self.config.flat())
        return f"go on with: fastnoise train --resume {self.record.folder.path}{code}"

    def fail(self, record: Record, error: TrainingError) -> None:
        raise error

    def networks_of(self, record: Record) -> list[Network]:
        return list(self.networks)  # type: ignore[arg-type]

    def shown(self, figures: list[dict[str, Any]]) -> dict[str, Any]:
        return figures[0]

    def finish(self, summaries: list[dict[str, Any]]) -> None:
        self.console.print(result_table(summaries[0]))
        self._say(f"run folder: {self.record.folder.path}")

    @torch.no_grad()
    def scan(
        self, record: Record, of: Callable[[Sequence[Outputs], Tensor], Kept], *, batch_statistics: bool = False
    ) -> Kept:
        self.networks.train(batch_statistics)
        self.method.eval()
        running = [buffer.clone() for buffer in self.networks.buffers()] if batch_statistics else []
        batches = self.loaders.train_in_order.epoch(0)
        found = keep(
            ((index, of(self.step.evaluate_each(images), index)) for images, index in batches), len(record.given)
        )
        if batch_statistics:
            for buffer, before in zip(self.networks.buffers(), running, strict=True):
                buffer.copy_(before)
        self.networks.train()
        self.method.train()
        return found

    @torch.no_grad()
    def evaluate(self, part: Part) -> dict[Record, Evaluation]:
        loader = getattr(self.loaders, part)
        num_classes = self.record.task.num_classes
        self.networks.eval()
        self.method.eval()
        count = loader.num_samples
        truth = torch.from_numpy(self.record.truth(part)).to(self.device)
        predictions = torch.empty(count, dtype=torch.int64, device=self.device)
        attention = torch.empty(count, device=self.device) if self.method.attention else None
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        among = torch.zeros((), dtype=torch.int64, device=self.device)
        for images, index in loader.epoch(0):
            logits, weights, _ = self.step.evaluate(images, loader.batch_size)
            predictions[index] = logits.argmax(1)
            loss += torch.nn.functional.cross_entropy(logits, truth[index], reduction="sum")
            if num_classes > 5:
                among += (logits.topk(5).indices == truth[index, None]).sum()
            if attention is not None and weights is not None:
                attention[index] = weights
        answers = Evaluation(
            predictions.cpu().numpy(),
            None if attention is None else attention.cpu().numpy(),
            int(among) / count if num_classes > 5 else np.nan,
            float(loss) / count,
        )
        return {self.record: answers}
