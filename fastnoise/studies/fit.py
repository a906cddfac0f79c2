"""A training loop for targets that aren't one class a sample: any network, any loss, the best epoch by validation."""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from ..config import EngineConfig, OptimConfig
from ..data import Loader
from ..engine import RunFolder
from ..engine.folder import CHECKPOINT_FORMAT
from ..engine.step import choose_amp, choose_gear, create_optimizer, create_schedule
from ..errors import TrainingError
from .base import time_steps

SAVE_EVERY = 60.0
"""Seconds between checkpoints: what a killed training loses, besides the epoch it was in."""

_TIMED_IMAGES = 16

Loss = Callable[..., Tensor]
"""(network, *batch) -> scalar. A function of a module, so that one compiled form serves all networks of a process."""

OPTIM_FIELDS = ("epochs", "optimizer", "learning_rate", "weight_decay", "schedule")


def optim_config(config: dict[str, Any]) -> OptimConfig:
    """The optimiser's part of a job's flat configuration."""
    return OptimConfig(**{name: config[name] for name in OPTIM_FIELDS})


def derive_seed(seed: int, *path: int) -> int:
    """A seed in [0, 2^63) for one purpose, unrelated to those of other paths and seeds."""
    return int(np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class NetworkFit:
    """One network in training: on the device, channels_last, autocast and compiled where the engine would.

    Args:
        network: its weights are trained in place.
        loss: see `Loss`.
        optim: optimiser, rate, schedule and epochs.
        device: to train on.
        steps: updates in an epoch.
    """

    def __init__(self, network: nn.Module, loss: Loss, optim: OptimConfig, device: torch.device, steps: int):
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # shapes are fixed, so the search for kernels pays once
        self.network: nn.Module = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.epochs = device, optim.epochs
        self.amp, _ = choose_amp("auto", device)
        gear = choose_gear(EngineConfig(), device, self.amp, optim.epochs * steps)
        self.loss = _compiled(loss) if gear.compiled else loss
        self.optimizer = create_optimizer(optim, self.network)
        self.schedule = create_schedule(optim, self.optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp == torch.float16)
        self.best_loss, self.best_epoch, self.best_weights = math.inf, 0, dict[str, Tensor]()

    def _autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self.amp is None else torch.autocast(self.device.type, self.amp)

    def step(self, *batch: Tensor) -> Tensor:
        """One update; returns the loss, detached, without a wait for the device."""
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self.loss(self.network, *batch)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def seconds_per_step(self, *batch: Tensor) -> float:
        """How long a step takes, as `time_steps` measures it, by steps that train the network.

        On a CPU by a few images of the batch, where time goes with their number and a step can take a minute.
        """
        size = len(batch[0])
        part = size if self.device.type == "cuda" else min(size, _TIMED_IMAGES)
        return time_steps(lambda: self.step(*(tensor[:part] for tensor in batch))) * size / part

    @torch.no_grad()
    def predict(self, forward: Callable[[Tensor], Tensor], loader: Loader) -> Tensor:
        """What `forward` makes of every image of an evaluation loader, in its order: float32 [N, ...]."""
        self.network.eval()
        with self._autocast():
            parts = [forward(images) for images, _ in loader.epoch(0)]
        return torch.cat(parts).float()

    def fit(
        self,
        batches: Callable[[int], Iterable[tuple[Tensor, ...]]],
        validate: Callable[[], Tensor],
        test: Callable[[], dict[str, Any]],
        path: Path,
        console: Console,
    ) -> dict[str, Any]:
        """Train to the end, going on from the folder's checkpoint where there is one.

        Args:
            batches: those of an epoch, counted from 0, as `step` takes them; a function of the epoch alone.
            validate: the loss by which the best epoch is chosen, the first of equal ones.
            test: figures of the network as it is, by name.
            path: the job's folder: a line per epoch in metrics.jsonl, a checkpoint from time to time.
            console: gets a line per epoch.

        Returns:
            The figures at the best epoch, those at the last under "last_...", "best_epoch" from 1, and the lowest
            "validation_loss".

        Raises:
            TrainingError: a loss that isn't finite.
            CheckpointError: the checkpoint is damaged, or can't be written.
        """
        folder = RunFolder(path)
        state = folder.read_checkpoint(self.device)
        if state is not None and "figures" in state:  # ended just before its summary was written
            return dict(state["figures"])
        history: list[dict[str, Any]] = [] if state is None else self._restore(state)
        folder.write_metrics(history)
        saved = time.monotonic()
        for epoch in range(len(history) + 1, self.epochs + 1):
            self.network.train()
            total, count = torch.zeros((), device=self.device), 0
            for batch in batches(epoch - 1):
                total += self.step(*batch)
                count += 1
            self.schedule.step()
            train_loss, validation_loss = float(total) / count, float(validate())
            if not math.isfinite(train_loss + validation_loss):
                raise TrainingError(f"the loss became NaN or infinite in epoch {epoch}; lower --learning-rate")
            if validation_loss < self.best_loss:
                self.best_loss, self.best_epoch = validation_loss, epoch
                self.best_weights = {name: value.clone() for name, value in self.network.state_dict().items()}
            history.append({"epoch": epoch, "train_loss": train_loss, "validation_loss": validation_loss})
            folder.append_metrics(history[-1])
            line = f"epoch {epoch}/{self.epochs}  loss {train_loss:.4f}  validation loss {validation_loss:.4f}"
            console.print(line, highlight=False, soft_wrap=True)
            if time.monotonic() - saved >= SAVE_EVERY:
                folder.write_checkpoint(self._state(history))
                saved = time.monotonic()
        last = test()
        self.network.load_state_dict(self.best_weights)
        figures = {
            **(last if self.best_epoch == self.epochs else test()),
            **{f"last_{name}": value for name, value in last.items()},
            "best_epoch": self.best_epoch,
            "validation_loss": self.best_loss,
        }
        folder.write_checkpoint({"format": CHECKPOINT_FORMAT, "figures": figures})  # in place of hundreds of megabytes
        return figures

    def _parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("network", "optimizer", "schedule", "scaler")}

    def _state(self, history: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "format": CHECKPOINT_FORMAT,
            "history": history,
            "best": (self.best_loss, self.best_epoch, self.best_weights),
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def _restore(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.best_loss, self.best_epoch, self.best_weights = state["best"]
        return list(state["history"])


@cache
def _compiled(loss: Loss) -> Loss:
    compiled: Loss = torch.compile(loss, fullgraph=True, dynamic=False)
    return compiled
