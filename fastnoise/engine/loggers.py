"""What else keeps a run's figures, beside metrics.jsonl: TensorBoard, W&B and MLflow, as --log asks.

Each is one class with three methods: begin a run, keep an epoch's figures, end. A package is imported when its class is
made. By default nothing leaves the machine: W&B is offline and its reports of errors are off, and MLflow writes files
into the run folder and has no telemetry. Environment variables of theirs say otherwise (WANDB_MODE, WANDB_PROJECT,
MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME).
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ..config import parse_log
from ..errors import said
from ..files import write_json
from ..tasks.names import numbers
from .record import Record

PROJECT = "fastnoise"
"""W&B's project and MLflow's experiment."""


def _plain(figures: Mapping[str, Any]) -> dict[str, float]:
    """An epoch's figures by names such as selections/stage/precision or test_class_accuracy/3."""
    return {name: float(value) for name, value in numbers(figures) if name != "epoch"}


class Logger(Protocol):
    """One run in another tool."""

    where: str
    """Where the figures are, for the display."""
    identity: str
    """What finds the run again when it is resumed."""

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """Keep the figures of an epoch."""

    def end(self, summary: Mapping[str, float] | None) -> None:
        """The run is over, with these figures, or without any if it was interrupted."""


class TensorBoard:
    """Event files in RUN/tensorboard: scalars, and the configuration as a text.

    Args, as of each logger:
        folder: of the run.
        config: by flat names, without what is None.
        identity: what the run had in an earlier start; None in the first.
        first: the epoch that comes next. The last one of a resumed run may come again.
    """

    identity = "tensorboard"

    def __init__(self, folder: Path, config: Mapping[str, Any], identity: str | None, first: int):
        from torch.utils.tensorboard import SummaryWriter

        self.where = str(folder / "tensorboard")
        self.writer = SummaryWriter(self.where, purge_step=first)
        lines = "\n".join(f"    {name} = {json.dumps(value)}" for name, value in config.items())
        self.writer.add_text("configuration", lines, first - 1)
        self.writer.flush()

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, number)
        self.writer.flush()

    def end(self, summary: Mapping[str, float] | None) -> None:
        if summary is not None:
            self.writer.add_text("summary", "\n".join(f"    {name} = {value}" for name, value in summary.items()))
        self.writer.close()


class WandB:
    """A run of W&B in RUN/wandb. `wandb sync` sends an offline one, if its user wants that."""

    def __init__(self, folder: Path, config: Mapping[str, Any], identity: str | None, first: int):
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        if mode != "online":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            dir=str(folder),
            config=dict(config),
            id=identity,
            resume=None if identity is None else "allow",
            mode=mode,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.identity = self.run.id
        self.where = f"{folder / 'wandb'} ({mode})"

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        self.run.log(dict(figures), step=number)

    def end(self, summary: Mapping[str, float] | None) -> None:
        if summary is not None:
            self.run.summary.update({f"summary/{name}": value for name, value in summary.items()})
        self.run.finish(exit_code=int(summary is None))


class MLflow:
    """A run of MLflow, in files under RUN/mlruns unless MLFLOW_TRACKING_URI names a place."""

    MOST_METRICS = 1000  # of one call, as MLflow limits it

    def __init__(self, folder: Path, config: Mapping[str, Any], identity: str | None, first: int):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self.where = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not self.where:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # which it else tells to use a database
            self.where = (folder / "mlruns").absolute().as_uri()
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric, self.client = Metric, MlflowClient(tracking_uri=self.where)
        if identity is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = self.client.get_experiment_by_name(name)
            experiment = self.client.create_experiment(name) if found is None else found.experiment_id
            identity = str(self.client.create_run(experiment, run_name=folder.name).info.run_id)
            parameters = [Param(name, str(value)) for name, value in config.items()]
            for start in range(0, len(parameters), 100):
                self.client.log_batch(identity, params=parameters[start : start + 100])
        else:
            self.client.update_run(identity, status="RUNNING")
        self.identity = identity

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        from time import time

        now = int(1000 * time())
        metrics = [self._metric(name, value, now, number) for name, value in figures.items()]
        for start in range(0, len(metrics), self.MOST_METRICS):
            self.client.log_batch(self.identity, metrics=metrics[start : start + self.MOST_METRICS])

    def end(self, summary: Mapping[str, float] | None) -> None:
        if summary is not None:
            self.epoch(0, {f"summary/{name}": value for name, value in summary.items()})
        self.client.set_terminated(self.identity, "KILLED" if summary is None else "FINISHED")


_KINDS: dict[str, Callable[[Path, Mapping[str, Any], str | None, int], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


class RunLoggers:
    """The loggers of the runs of a training, from `with` on. None of them breaks a run: the first error of a logger is
    a warning, and the run goes on without it.

    Args:
        records: of the runs, which have their folders.
        say: shows a line.
    """

    def __init__(self, records: Sequence[Record], say: Callable[[str], None]):
        self.records, self.say = records, say
        self._loggers: dict[Record, dict[str, Logger]] = {}

    def __enter__(self) -> "RunLoggers":
        for record in self.records:
            if names := parse_log(record.config.engine.log):
                self._begin(record, names)
        return self

    def _begin(self, record: Record, names: Sequence[str]) -> None:
        file = record.folder.loggers
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
            known = {name: value for name, value in known.items() if isinstance(value, str)}
        except (OSError, ValueError, AttributeError):
            known = {}  # of a first start; a damaged file makes the tools begin a run of their own anew
        config = {name: value for name, value in record.config.flat().items() if value is not None}
        loggers = self._loggers[record] = {}
        for name in names:

            def begin(name: str = name) -> None:
                # Of a resumed run that had this logger, the last epoch may lack: its checkpoint is written before.
                first = max(1, len(record.history)) if name in known else 1
                loggers[name] = _KINDS[name](record.folder.path, config, known.get(name), first)
                for figures in record.history[first - 1 :]:
                    loggers[name].epoch(figures["epoch"], _plain(figures))

            self._try(record, name, begin)
        if loggers:
            self.say("figures also in: " + ", ".join(f"{name} {logger.where}" for name, logger in loggers.items()))
            write_json(file, known | {name: logger.identity for name, logger in loggers.items()})

    def epoch(self, record: Record, figures: Mapping[str, Any]) -> None:
        """Hand an epoch's figures, as metrics.jsonl has them, to a run's loggers."""
        plain = _plain(figures)
        for name, logger in list(self._loggers.get(record, {}).items()):
            self._try(record, name, lambda logger=logger: logger.epoch(figures["epoch"], plain))  # type: ignore[misc]

    def end(self, record: Record, summary: Mapping[str, Any] | None) -> None:
        """End a run's loggers. The summary is what summary.json holds, None for a run that has not come to its end."""
        plain = None if summary is None else dict(numbers(summary))
        for name, logger in list(self._loggers.pop(record, {}).items()):
            self._try(record, name, lambda logger=logger: logger.end(plain))  # type: ignore[misc]

    def _try(self, record: Record, name: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # whatever a tool, its files or its network meet is no reason to lose a training
            self._loggers.get(record, {}).pop(name, None)
            reason = said(error, 200)
            self.say(f"warning: --log {name} fails, and the run goes on without it: {reason}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for record in list(self._loggers):
            self.end(record, None)
