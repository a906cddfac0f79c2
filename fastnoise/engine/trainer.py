"""Training from a configuration to a run folder, interruptible and resumable at any moment."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from ..config import RunConfig
from ..data import Loader
from ..errors import CheckpointError, TrainingError
from ..files import write_json
from ..methods import Method, Run, Setting, create_method
from ..models import Outputs, create_model
from ..models.encoder import load_encoder
from ..noise import NoisyLabels
from .display import Display, make_console, result_table
from .environment import describe_environment
from .folder import CHECKPOINT_FORMAT, RunFolder
from .metrics import (
    EpochStatistics,
    Evaluation,
    attention_figures,
    best_last_mean,
    detection_figures,
    selection_figures,
    split_shares,
)
from .prepare import Loaders, Task, load_task, make_loaders
from .profile import StepProfiler
from .step import Step, choose_amp, choose_device, choose_gear, create_optimizer, create_schedule, reset_optimizer


def encoder_shape(config: RunConfig, task: Task) -> dict[str, Any]:
    """What a backbone was built from, as encoder files name it."""
    size = {"model": config.model.model, "width": config.model.width}
    return size | {"channels": task.channels, "image_size": list(task.image_size)}


class Interrupted(Exception):
    """Ctrl-C or SIGTERM arrived; the run was saved and can be resumed. The message says how."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
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


def train(config: RunConfig, *, resume: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Run the training that `config` describes and write its run folder.

    Args:
        config: the full configuration; with `resume`, that of the run in `config.run_dir`.
        resume: go on with the run in `config.run_dir` from its last checkpoint.
        console: where progress and the final table go; standard output by default.

    Returns:
        What summary.json holds, with the run folder under "run_dir".

    Raises:
        FastnoiseError: for anything the user can mend, before or during training.
        Interrupted: after Ctrl-C or SIGTERM, once the state is saved.
    """
    console = console or make_console()
    device = choose_device(config.engine.device)
    if resume:
        folder = RunFolder.open(Path(config.run_dir or ""))
        task = load_task(config)
        stored = NoisyLabels.load(folder.labels)
        if stored.sha256 != task.noisy.sha256:
            raise CheckpointError(
                f"the labels of {config.data.dataset} under {config.data.data_root} are not those of the run "
                f"({folder.labels}); give the --data-root that the run was started with"
            )
        checkpoint = folder.read_checkpoint(device)
    else:
        task = load_task(config)
        checkpoint = None
    run = _Run(config, task, device, console, fresh=checkpoint is None)
    try:
        if not resume:
            folder = RunFolder.create(config)
            task.noisy.save(folder.labels)
        folder.add_environment(describe_environment())
        folder.write_config(config.replace({"run_dir": str(folder.path)}))
        return run.train(folder, checkpoint)
    finally:
        run.loaders.close()


class _Run:
    """The parts of one run and its loop."""

    method: Method
    loaders: Loaders

    def __init__(self, config: RunConfig, task: Task, device: torch.device, console: Console, *, fresh: bool):
        self.config, self.task, self.device, self.console = config, task, device, console
        torch.manual_seed(config.engine.seed)
        self.method = create_method(config.method, num_samples=len(task.given), num_classes=task.num_classes)
        self.method.configure(Setting(config.optim, task.mean, task.std, config.data.batch_size))
        self.networks = torch.nn.ModuleList(
            create_model(
                config.model.model,
                num_classes=task.num_classes,
                channels=task.channels,
                image_size=task.image_size,
                width=config.model.width,
                attention=self.method.attention,
            )
            for _ in range(self.method.networks)
        ).to(device)
        if config.model.encoder is not None and fresh:  # before averaged copies are made; a checkpoint has its own
            shape = encoder_shape(config, task)
            for network in self.networks:
                load_encoder(Path(config.model.encoder), network, **shape)  # type: ignore[arg-type]
        self.method.to(device)
        self.method.attach(list(self.networks))  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        self.loaders = make_loaders(config, task, device, self.method.views)
        steps = config.optim.epochs * self.loaders.train.num_batches
        gear = choose_gear(config.engine, device, choose_amp(config.engine.amp, device)[0], steps)
        self.optimizer = create_optimizer(config.optim, self.networks, capturable=gear.name == "graphed")
        lengths = self.method.rounds(config.optim.epochs)
        self.rounds = {1 + sum(lengths[:number]): length for number, length in enumerate(lengths)}
        """First epoch of each round -> its length."""
        self.schedule = create_schedule(replace(config.optim, epochs=self.rounds[1]), self.optimizer)
        self.given = torch.from_numpy(task.given).to(device)
        self.labels = self.given.clone()
        self.statistics = EpochStatistics(len(task.given), self.method.attention, device)
        self.step = Step(
            list(self.networks),  # type: ignore[arg-type]
            self.method,
            self.optimizer,
            self.labels,
            batch_size=min(config.data.batch_size, len(task.given)),
            config=config.engine,
            device=device,
            steps=steps,
            observe=self.statistics.update,
        )
        self.profiler: StepProfiler | None = None
        self.history: list[dict[str, Any]] = []
        self.first_step_seconds = 0.0
        self.warm = False  # whether this process has made a step: the first compiles and fills caches
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # shapes are fixed, so the search for kernels pays once

    # -- state ---------------------------------------------------------------------------------------------

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
            "labels": self.labels,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "statistics": self.statistics.state_dict(),
            "rng_cpu": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "history": self.history,
            "first_step_seconds": self.first_step_seconds,
        }

    def load_state(self, state: dict[str, Any], folder: RunFolder) -> tuple[int, int]:
        """Take up a state; returns its epoch and batch. CheckpointError if it belongs to another run."""
        try:
            self.networks.load_state_dict(state["networks"])
            self.method.load_state_dict(state["method"])
            self.labels.copy_(state["labels"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.step.scaler.load_state_dict(state["scaler"])
            self.statistics.load_state_dict(state["statistics"])
            torch.set_rng_state(state["rng_cpu"].cpu())
            if self.device.type == "cuda" and state["rng_cuda"]:
                torch.cuda.set_rng_state_all([rng.cpu() for rng in state["rng_cuda"]])
            self.history, self.first_step_seconds = state["history"], state["first_step_seconds"]
            return state["epoch"], state["batch"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{folder.checkpoint} does not fit the run's configuration: {reason}") from error

    # -- the loop ------------------------------------------------------------------------------------------

    def train(self, folder: RunFolder, checkpoint: dict[str, Any] | None) -> dict[str, Any]:
        epoch, batch = (1, 0) if checkpoint is None else self.load_state(checkpoint, folder)
        folder.write_metrics(self.history)
        if self.config.engine.profile:
            targets = getattr(getattr(self.method, "criterion", None), "targets", None)
            self.profiler = StepProfiler(
                folder.profile, table_shape=None if targets is None else (targets.shape[0], targets.shape[1])
            )
        self._announce(folder, epoch, batch, checkpoint is not None)
        if checkpoint is None:
            self.method.end_epoch(self._view(0))
        epochs = self.config.optim.epochs
        batches = self.loaders.train.num_batches
        with (
            _deferred_signals() as signals,
            self.profiler or nullcontext(),
            Display(self.console, epochs, batches, self.config.engine.log_every) as display,
        ):
            while epoch <= epochs:
                figures = self._epoch(folder, epoch, batch, display, signals)
                self.history.append(figures)
                epoch, batch = epoch + 1, 0
                if figures["epoch"] % self.config.engine.save_every == 0 or epoch > epochs or signals:
                    folder.write_checkpoint(self.state(epoch, 0))
                folder.append_metrics(figures)
                display.epoch(figures)
                if signals and epoch <= epochs:
                    raise self._interrupted(folder, epoch, 0, signals)
        if self.profiler is not None:
            self.console.print(self.profiler.report(), highlight=False, soft_wrap=True, markup=False)
        summary = self._summarise(folder)
        write_json(folder.summary, summary)
        self.console.print(result_table(summary))
        self.console.print(f"run folder: {folder.path}", highlight=False, soft_wrap=True)
        return summary

    def _announce(self, folder: RunFolder, epoch: int, batch: int, resumed: bool) -> None:
        config, task, loader = self.config, self.task, self.loaders.train
        size = "x".join(str(side) for side in task.image_size)
        lines = [
            f"{config.method.method} on {config.data.dataset}: {len(task.train)} training images {size}, "
            f"{len(task.test)} test images, {task.num_classes} classes",
            f"labels: {task.noisy.describe()}",
            f"network: {'' if len(self.networks) == 1 else f'{len(self.networks)} x '}{config.model.model}, "
            f"{sum(p.numel() for p in self.networks[0].parameters()):,} parameters; "
            f"device: {self.device}; {self.step.gear.reason}; {self.step.amp_reason}",
            f"loader: {loader.reason}; {loader.num_batches} batches of {loader.batch_size} an epoch",
            f"run folder: {folder.path}",
        ]
        if task.validation is not None:
            lines[0] += f", {len(task.validation)} held out for validation"
        if resumed:
            done = (
                "the run is complete"
                if epoch > config.optim.epochs
                else f"going on in epoch {epoch}, batch {batch + 1}"
            )
            lines.append(f"resumed: {done}")
        for line in lines:
            self.console.print(line, highlight=False, soft_wrap=True)

    def _interrupted(self, folder: RunFolder, epoch: int, batch: int, signals: list[int]) -> Interrupted:
        how = f"go on with: fastnoise train --resume {folder.path}"
        return Interrupted(f"stopped in epoch {epoch} after {batch} batches, saved; {how}", signals[0])

    def _epoch(self, folder: RunFolder, epoch: int, start: int, display: Display, signals: list[int]) -> dict[str, Any]:
        """Train and evaluate one epoch from batch `start` on; returns its figures."""
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
        images_seen, timed_images, waiting, first = 0, 0, 0.0, 0.0
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
                self.first_step_seconds = self.first_step_seconds or time.perf_counter() - arrived
                first, waiting = time.perf_counter() - began, 0.0
            else:
                timed_images += len(index)
            tick = time.perf_counter()
            display.batch(epoch, number, images_seen, tick - began, self._mean_loss)
            if signals and number < batches:
                self._check_finite(folder, epoch)
                folder.write_checkpoint(self.state(epoch, number))
                raise self._interrupted(folder, epoch, number, signals)
        self._check_finite(folder, epoch)  # reads the device, so that the clock below stops after the last step
        seconds = time.perf_counter() - began
        if self.method.phase(epoch) is None:
            self.schedule.step()
        training_figures = self._training_figures()
        self.method.end_epoch(self._view(epoch))
        timed = max(seconds - first, 1e-9)
        figures: dict[str, Any] = {
            "epoch": epoch,
            "learning_rate": rate,
            **training_figures,
            **self.method.report(),
            **self._selections(),
            **self._test_figures(folder, epoch),
            "images_per_second": (timed_images or images_seen) / (timed if timed_images else seconds),
            "data_wait": min(1.0, waiting / timed),
            "seconds": seconds,
        }
        return figures

    def _optimise_as(self, epoch: int, start: int) -> float:
        """Set the optimiser for an epoch entered at batch `start`; returns the learning rate."""
        phase = self.method.phase(epoch)
        if phase is None:
            if start == 0 and epoch > 1 and epoch in self.rounds:
                reset_optimizer(self.optimizer)
                self._set_learning_rate(self.config.optim.learning_rate)
                self.schedule = create_schedule(replace(self.config.optim, epochs=self.rounds[epoch]), self.optimizer)
            return float(self.schedule.get_last_lr()[0])
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

    def _view(self, epoch: int) -> Run:
        """The run as its method sees it after `epoch`."""
        return Run(
            epoch=epoch,
            epochs=self.config.optim.epochs,
            seed=self.config.engine.seed,
            networks=list(self.networks),  # type: ignore[arg-type]
            given=self.given,
            labels=self.labels,
            evaluate=self._evaluate_training_set,
            warn=lambda message: self.console.print(f"warning: {message}", highlight=False, soft_wrap=True),
        )

    @torch.no_grad()
    def _evaluate_training_set(self, batch_statistics: bool = False) -> list[Outputs]:
        """For each network its outputs for every training sample, as Run.evaluate says."""
        self.networks.train(batch_statistics)
        self.method.eval()
        running = [buffer.clone() for buffer in self.networks.buffers()] if batch_statistics else []
        count, loader = len(self.given), self.loaders.train_in_order
        found: list[Outputs] = []
        for images, index in loader.epoch(0):
            for position, outputs in enumerate(self.step.evaluate_each(images)):
                if position == len(found):
                    found.append(
                        Outputs(*(None if part is None else part.new_empty(count, *part.shape[1:]) for part in outputs))  # type: ignore[arg-type]
                    )
                for table, part in zip(found[position], outputs, strict=True):
                    if table is not None and part is not None:
                        table[index] = part
        if batch_statistics:
            for buffer, before in zip(self.networks.buffers(), running, strict=True):
                buffer.copy_(before)
        self.networks.train()
        self.method.train()
        return found

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _mean_loss(self) -> float:
        return float(self.statistics.loss_sum) / max(1, int(self.statistics.samples))

    def _check_finite(self, folder: RunFolder, epoch: int, test_loss: float = 0.0) -> None:
        bad = int(self.statistics.bad_step)
        if bad < 0 and np.isfinite(test_loss):
            return
        where = f"at step {bad} of epoch {epoch}" if bad >= 0 else f"on the test set after epoch {epoch}"
        kept = (
            f"the last good checkpoint is kept in {folder.checkpoint}"
            if folder.checkpoint.exists()
            else "no checkpoint yet"
        )
        raise TrainingError(f"the loss is not a finite number {where}; {kept}; try a lower --learning-rate")

    # -- figures -------------------------------------------------------------------------------------------

    def _training_figures(self) -> dict[str, Any]:
        """Figures of the training passes themselves: augmented images, weights changing underway."""
        statistics, task = self.statistics, self.task
        predictions = statistics.predictions.cpu().numpy()
        seen = predictions >= 0
        figures: dict[str, Any] = {
            "train_loss": float(statistics.loss_sum) / int(statistics.samples),
            "train_accuracy_given": float((predictions == task.given)[seen].mean()),
        }
        if task.clean is not None:
            figures |= split_shares(predictions, task.given, task.clean)
            if statistics.attention is not None:
                figures |= attention_figures(statistics.attention.cpu().numpy(), task.given != task.clean)
            figures |= self._correction()
        return figures

    def _selections(self) -> dict[str, Any]:
        """What the method selected after this epoch, with its precision and recall where true labels are known."""
        figures = {
            name: selection_figures(members.cpu().numpy(), labels.cpu().numpy(), self.task.given, self.task.clean)
            for name, (members, labels) in self.method.selections().items()
        }
        return {"selections": figures} if figures else {}

    @torch.no_grad()
    def _correction(self) -> dict[str, float]:
        """Share of samples that the method takes for their true class (NAL, section 5.2)."""
        corrected = self.method.corrected(self.given)
        if corrected is None or self.task.clean is None:
            return {}
        return {"correction_accuracy": float((corrected.cpu().numpy() == self.task.clean).mean())}

    @torch.no_grad()
    def _estimates(self, folder: RunFolder) -> dict[str, Any]:
        """Write what the method makes of each label, and say how well it tells the wrong ones where they are known."""
        estimates = self.method.estimates(self._view(self.config.optim.epochs))
        if estimates is None:
            return {}
        task = self.task
        suspected = estimates.suspected.cpu().numpy()
        columns = {
            "position": task.positions,
            "given": task.given,
            "corrected": estimates.labels.cpu().numpy(),
            "confidence": estimates.confidence.float().cpu().numpy(),
            "suspected": suspected,
        }
        if estimates.attention is not None:
            columns["attention"] = estimates.attention.float().cpu().numpy()
        figures = {"suspected": float(suspected.mean())}
        if task.clean is not None:
            columns["true"] = task.clean
            figures |= detection_figures(suspected, task.given != task.clean)
        folder.write_corrected(columns)
        return {"label_errors": figures}

    def _test_figures(self, folder: RunFolder, epoch: int) -> dict[str, float]:
        test = self.evaluate(self.loaders.test, self.task.test.labels)
        self._check_finite(folder, epoch, test.loss)
        truth = self.task.test.labels
        figures = {
            "test_loss": test.loss,
            "test_accuracy": test.accuracy(truth),
            "test_macro_f1": test.macro_f1(truth),
        }
        if self.task.num_classes > 5:
            figures["test_top5"] = test.top5
        if self.loaders.validation is not None and self.task.validation_given is not None:
            validation = self.evaluate(self.loaders.validation, self.task.validation_given)
            figures["validation_accuracy"] = validation.accuracy(self.task.validation_given)
        return figures

    @torch.no_grad()
    def evaluate(self, loader: Loader, labels: NDArray[np.int64]) -> Evaluation:
        """The method's answers for every sample of `loader`; `labels` [N] are those of its table."""
        self.networks.eval()
        self.method.eval()
        count = loader.num_samples
        truth = torch.from_numpy(labels).to(self.device)
        predictions = torch.empty(count, dtype=torch.int64, device=self.device)
        attention = torch.empty(count, device=self.device) if self.method.attention else None
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        among = torch.zeros((), dtype=torch.int64, device=self.device)
        for images, index in loader.epoch(0):
            logits, weights = self.step.evaluate(images, loader.batch_size)
            predictions[index] = logits.argmax(1)
            loss += torch.nn.functional.cross_entropy(logits, truth[index], reduction="sum")
            if self.task.num_classes > 5:
                among += (logits.topk(5).indices == truth[index, None]).sum()
            if attention is not None and weights is not None:
                attention[index] = weights
        return Evaluation(
            predictions.cpu().numpy(),
            None if attention is None else attention.cpu().numpy(),
            int(among) / count if self.task.num_classes > 5 else np.nan,
            float(loss) / count,
        )

    def _summarise(self, folder: RunFolder) -> dict[str, Any]:
        """The run's figures, with one evaluation pass over the training set as it stands at the end."""
        config, task, history = self.config, self.task, self.history
        final = self.evaluate(self.loaders.train_in_order, task.given)
        summary: dict[str, Any] = {
            "title": f"{config.method.method} on {config.data.dataset}, {task.noisy.spec}, seed {config.engine.seed}",
            "run_dir": str(folder.path),
            "epochs": len(history),
            "network": encoder_shape(config, task),
            "noise": {
                "spec": task.noisy.spec,
                "seed": task.noisy.seed,
                "requested_rate": task.noisy.requested_rate,
                "realised_rate": None if task.noisy.clean_labels is None else task.noisy.realised_rate,
                "sha256": task.noisy.sha256,
            },
            "test_accuracy": best_last_mean(history, "test_accuracy"),
            "test_macro_f1": best_last_mean(history, "test_macro_f1"),
            **({"test_top5": best_last_mean(history, "test_top5")} if task.num_classes > 5 else {}),
            "training_samples": {},
        }
        if task.validation is not None:
            chosen = best_last_mean(history, "validation_accuracy")
            at_best = next(epoch for epoch in history if epoch["epoch"] == chosen["best_epoch"])
            summary["validation_accuracy"] = {**chosen, "test_at_best": at_best["test_accuracy"]}
        if task.clean is not None:
            summary["training_samples"] = split_shares(final.predictions, task.given, task.clean)
            if final.attention is not None:
                summary["attention"] = attention_figures(final.attention, task.given != task.clean)
            summary |= self._correction()
        selections = [{"epoch": epoch["epoch"], **epoch["selections"]} for epoch in history if "selections" in epoch]
        if selections:
            summary["selections"] = selections
        summary |= self._estimates(folder)
        seconds = sum(epoch["seconds"] for epoch in history)
        summary["throughput"] = {
            "images_per_second": float(np.median([epoch["images_per_second"] for epoch in history])),
            "data_wait": sum(epoch["data_wait"] * epoch["seconds"] for epoch in history) / seconds,
            "first_step_seconds": self.first_step_seconds,
            "training_seconds": seconds,
        }
        if self.device.type == "cuda":
            summary["throughput"]["peak_memory_gib"] = torch.cuda.max_memory_reserved(self.device) / 2**30
        return summary
