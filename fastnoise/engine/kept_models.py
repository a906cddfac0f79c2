"""The networks of one or more runs on their way into model files."""

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from . import checkpoint
from .metrics import best_last_mean
from .model_file import ModelHeader, model_tensors, write_model
from .record import Record

Content = tuple[ModelHeader, dict[str, Tensor]]


class KeptModels:
    """Copies of networks that have a better validation score than all before, until a checkpoint's writing writes them:
    a run that goes on from a checkpoint then finds what was the best so far, and no epoch waits for the disk.

    Args:
        weights_of: the state of a run's networks, with the names of a single run.
        say: shows a line.
        writes: whether this process writes the run's files; if not, nothing is copied either.
    """

    def __init__(
        self,
        weights_of: Callable[[Record], MutableMapping[str, Any]],
        say: Callable[[str], None],
        *,
        writes: bool = True,
    ):
        self.weights_of, self.say, self.writes = weights_of, say, writes
        self.best: dict[Record, Content] = {}

    def take_best(self, records: Iterable[Record]) -> None:
        """Copy the networks of the runs whose last epoch has their best validation score."""

        def is_best(record: Record) -> bool:
            score = record.data.task.score
            best = best_last_mean(record.history, f"validation_{score.name}", higher=score.higher)
            return bool(best["best_epoch"] == record.history[-1]["epoch"])

        self.best |= self._contents(
            record for record in records if record.data.validation is not None and is_best(record)
        )

    def write_best(self) -> None:
        """Write the copies, and forget them."""
        best = self.best

        def write(record: Record) -> None:
            write_model(record.folder.best_model, *best[record])

        checkpoint.for_each(write, list(best))
        self.best = {}

    def write_last(self, records: Iterable[Record]) -> None:
        """Write the networks of runs as they are."""
        models: Mapping[Record, Content] = self._contents(records)

        def write(record: Record) -> None:
            write_model(record.folder.model, *models[record])

        checkpoint.for_each(write, list(models))

    def _contents(self, records: Iterable[Record]) -> dict[Record, Content]:
        """What the runs' model files hold, as their networks are now. A network of the user's that none can hold trains
        without one, and a warning says so."""
        if not self.writes:
            return {}
        try:
            return {
                record: (ModelHeader.of(record), model_tensors(record, self.weights_of(record))) for record in records
            }
        except ConfigError as error:
            self.say(f"warning: no model file: {error}")
            return {}
