"""The jobs that train the networks which judge labels."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..config import RunConfig
from ..engine.single import train_on
from ..errors import DataError
from ..fields import stored
from ..sources import digests
from ..sweeps import Job, make_jobs
from ..sweeps.job import run_folder
from .decisions import read_decisions
from .pool import Judged, fold_of, load_judged, part_of
from .testimony import Judge, Testimony

FUNCTION = "fastnoise.cleaning.judge:train_judge"

OWN_FIELDS = ("fold", "folds", "sha256", "decisions", "files")
"""Fields of a job beside the configuration's."""


def make_judges(config: RunConfig, judged: Judged, folds: int, decisions: Path | None) -> list[Job]:
    """A job for each network. With one fold a single network learns from all labels; with more, each from all but
    those of its fold. ConfigError for more folds than images."""
    if folds > 1:
        fold_of(judged.given, folds, config.engine.seed)
    fields = {name: value for name, value in config.flat().items() if value is not None and name != "run_dir"}
    own: dict[str, Any] = {"folds": folds, "sha256": judged.sha256}
    if weights := digests({"encoder": config.model.encoder}):
        own["files"] = weights  # so that other weights give jobs of other names
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
