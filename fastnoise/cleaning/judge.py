"""What each network says of each label, and the job that trains it."""

import shutil
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from ..config import RunConfig
from ..engine.single import train_on
from ..engine.witness import Witness
from ..errors import CheckpointError, DataError
from ..fields import stored
from ..files import write_atomically
from ..models import Outputs
from ..sweeps import Job, make_jobs
from ..sweeps.job import run_folder
from .decisions import read_decisions
from .pool import Judged, fold_of, load_judged, part_of

FUNCTION = "fastnoise.cleaning.judge:train_judge"

OWN_FIELDS = ("fold", "folds", "sha256", "decisions")
"""Fields of a job beside the configuration's."""


SPANS = (1.0, 0.5, 0.0)
"""Shares of the epochs, counted from the end and at least the last one, over which a network's answers are averaged.
The mean over all epochs is best for networks that come to memorise wrong labels, that of the last one for networks that
still learn; `reach` takes the one whose answers for labels not learnt from explain these best."""


class LogitWitness(Witness):
    """Notes a network's logits for every image, in a table of one or more rows for each.

    Args:
        rows: R.
        count: N.
        num_classes: C.
        dtype: of the table.
    """

    logits: Tensor
    """[R, N, C]"""
    seen: Tensor

    def __init__(self, rows: int, count: int, num_classes: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.register_buffer("logits", torch.zeros(rows, count, num_classes, dtype=dtype))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def see(self, outputs: Outputs, index: Tensor) -> None:
        self.note(int(self.seen) // self.logits.shape[1], outputs.logits, index)
        self.seen += len(index)

    @abstractmethod
    def note(self, epoch: int, logits: Tensor, index: Tensor) -> None:
        """Put a batch's logits [B, C] of an epoch, counted from 0, into the table; index int64 [B]."""


class Judge(LogitWitness):
    """Adds up over the epochs what a network says of every image.

    Networks learn the right labels first and wrong ones late, if at all (Arpit et al. 2017), so means over epochs tell
    wrong labels better than the end of a long training (AUM, Pleiss et al. 2020, Eq. 1). There they are taken in the
    training steps, here in evaluation mode at the end of each epoch, which images that are held out have too.

    Args:
        epochs: E, of the training.
        count: N.
        num_classes: C.
    """

    def __init__(self, epochs: int, count: int, num_classes: int):
        super().__init__(len(SPANS), count, num_classes)
        self.lengths = [max(1, round(span * epochs)) for span in SPANS]
        self.epochs = epochs

    def note(self, epoch: int, logits: Tensor, index: Tensor) -> None:
        for sums, length in zip(self.logits, self.lengths, strict=True):
            if epoch >= self.epochs - length:
                sums[index] += logits.float() / length


@dataclass(frozen=True, eq=False)
class Testimony:
    """What one network said: a job's judged.npz."""

    logits: NDArray[np.float32]
    """[S, N, C], the mean logits over each of SPANS."""
    held: NDArray[np.bool_]
    """[N], the images whose labels the network did not learn from."""

    @classmethod
    def of(cls, judge: Judge, held: NDArray[np.bool_]) -> "Testimony":
        """What a network said at the end of its training."""
        return cls(judge.logits.cpu().numpy(), held)

    def save(self, path: Path) -> None:
        """Write the file; CheckpointError if it cannot be written."""
        write_atomically(path, lambda file: np.savez(file, logits=self.logits, held=self.held))

    @classmethod
    def load(cls, path: Path, count: int, num_classes: int) -> "Testimony":
        """Read what `save` wrote; CheckpointError for a file that is damaged or of other images."""
        try:
            with np.load(path, allow_pickle=False) as file:
                found = cls(file["logits"], file["held"])
        except Exception as error:  # whatever a damaged zip or npy file makes its readers raise
            raise CheckpointError(f"{path} is damaged ({type(error).__name__}); remove {path.parent}") from error
        if (found.logits.shape, found.held.shape) != ((len(SPANS), count, num_classes), (count,)):
            raise CheckpointError(f"{path} is of other images; remove {path.parent}")
        return found


def make_judges(config: RunConfig, judged: Judged, folds: int, decisions: Path | None) -> list[Job]:
    """A job for each network. With one fold a single network learns from all labels; with more, each from all but
    those of its fold. ConfigError for more folds than images."""
    if folds > 1:
        fold_of(judged.given, folds, config.engine.seed)
    fields = {name: value for name, value in config.flat().items() if value is not None and name != "run_dir"}
    own = {"folds": folds, "sha256": judged.sha256}
    if decisions is not None:
        own["decisions"] = str(decisions)
    return make_jobs(
        [({"fold": fold}, {**fields, "seed": config.engine.seed + fold, "fold": fold, **own}) for fold in range(folds)],
        function=FUNCTION,
    )


def train_judge(fields: Mapping[str, Any], folder: Path, console: Console) -> dict[str, Any]:
    """Train one network (a job's function), and write judged.npz; returns the job's figures.

    The run lies in `folder`/run, and continues if an earlier call was stopped.
    """
    config = stored({name: value for name, value in fields.items() if name not in OWN_FIELDS})
    decisions = fields.get("decisions")
    judged = load_judged(config, None if decisions is None else read_decisions(Path(decisions)))
    if judged.sha256 != fields["sha256"]:
        raise DataError(f"the images or labels of {config.data.dataset} have changed meanwhile; begin again")
    fold, folds = int(fields["fold"]), int(fields["folds"])
    held = np.zeros(len(judged.given), bool)
    if folds > 1:
        held = fold_of(judged.given, folds, config.engine.seed - fold) == fold
    run = folder / "run"
    resume = (run / "config.toml").exists()
    if not resume and run.exists():
        shutil.rmtree(run)  # cut off before it began
    judge = Judge(config.optim.epochs, len(judged.given), len(judged.data.class_names))
    config = config.replace({"run_dir": str(run)})
    summary = train_on(config, part_of(judged, held), resume=resume, console=console, witness=judge)
    said = Testimony.of(judge, held)
    said.save(folder / "judged.npz")
    right = said.logits[0].argmax(1) == judged.given
    figures: dict[str, Any] = {"agreement": float(right.mean())}
    if held.any():
        figures["agreement_held"] = float(right[held].mean())
    return {**figures, "epochs": summary["epochs"], "throughput": summary["throughput"]}


def read_testimonies(folder: Path, jobs: list[Job], judged: Judged) -> list[Testimony]:
    """What the networks of finished jobs said."""
    shape = (len(judged.given), len(judged.data.class_names))
    return [Testimony.load(run_folder(folder, job.name) / "judged.npz", *shape) for job in jobs]
