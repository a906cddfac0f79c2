"""A cleaning from beginning to end: networks are trained, labels judged, files written."""

import contextlib
import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import shown
from ..config import FREE_ON_RESUME, RunConfig
from ..errors import CheckpointError, ConfigError, TrainingError
from ..files import write_json
from ..sweeps import LocalExecutor, run_sweep
from ..texts import counted, printable
from .decisions import read_decisions
from .judge import make_judges, read_testimonies
from .outputs import SUSPECTS, words_for, write_outputs
from .pool import Judged, load_judged
from .review import DECISIONS, FINDING, SETTINGS, pick_suspects, write_page
from .verdict import Verdict, reach

if TYPE_CHECKING:
    from rich.console import Console

NETWORKS = "networks"
ARRAYS = "arrays"
"""Folder of the images and labels that a cleaning was given in memory."""


@dataclass(frozen=True)
class CleanOptions:
    """How labels are judged."""

    out: Path
    """The cleaning's folder."""
    folds: int = 5
    """Number of networks. Each learns from all labels but those of its fold. 1: one network learns from all."""
    jobs: int = 0
    """Networks that are trained at once; 0: one per GPU, or one per core."""
    threads: int = 1
    """torch threads of each."""

    def __post_init__(self) -> None:
        if self.folds < 1:
            raise ConfigError(f"--folds must be 1 or more, not {self.folds}")


@dataclass(frozen=True, eq=False)
class Finding:
    """What `clean` returns."""

    judged: Judged
    verdict: Verdict
    corrected: Path
    """The corrected data set."""

    def figures(self) -> dict[str, Any]:
        """What finding.json holds; shares from 0 to 1, null where nothing can be said."""
        judged, verdict = self.judged, self.verdict
        figures: dict[str, Any] = {
            "images": len(judged.given),
            "suspected": int(verdict.suspected.sum()),
            "known": int((judged.known >= 0).sum()),
            "rate": verdict.rate,
            "rate_low": verdict.rate_interval[0],
            "rate_high": verdict.rate_interval[1],
            "agreement": verdict.agreement,
            "classes": self.classes(),
            "warnings": list(verdict.warnings),
        }
        if judged.truth is not None:
            figures["measured"] = measure(verdict, judged.given, judged.truth)
        return _json(figures)

    def classes(self) -> list[dict[str, Any]]:
        """For each class how many images are said to be of it, how many of these are suspected, and the share of its
        images that carries another label."""
        judged, verdict = self.judged, self.verdict
        count = len(judged.data.class_names)
        given = np.bincount(judged.given, minlength=count)
        suspected = np.bincount(judged.given[verdict.suspected], minlength=count)
        return [
            {
                "name": name,
                "given": int(given[label]),
                "suspected": int(suspected[label]),
                "lost": 1 - float(verdict.transition[label, label]),
            }
            for label, name in enumerate(judged.data.class_names)
        ]


def clean(config: RunConfig, options: CleanOptions, console: "Console | None" = None) -> Finding:
    """Judge every label of a data set, and write what is found to `options.out`.

    The folder holds: clean.json with the settings; networks/, the sweep whose jobs train the networks; decisions.log
    if someone has reviewed suspects; and the findings: finding.json, labels.csv, suspects.csv, suspects.html,
    transition.csv and the corrected data set. If the call is stopped or killed, the same call continues it. If
    decisions were taken meanwhile, it trains anew with the decided labels.

    Args:
        config: of the networks, by a method for classification; its data set and labels are those that are judged.

    Raises:
        ConfigError: the settings contradict each other or those of the cleaning in the folder.
        TrainingError: a network could not be trained.
        Interrupted: after Ctrl-C or SIGTERM; what was trained is saved.
    """
    from ..engine.display import make_console

    console = console or make_console()
    if config.data.val_fraction > 0:
        raise ConfigError(f"--val-fraction {config.data.val_fraction}: clean judges every image; drop the option")
    if config.method.method == "simclr":
        raise ConfigError("--method simclr learns from no labels and judges none; take elr, nal or ce")
    fresh = claim(options.out, settings_of(config, options))
    log = options.out / DECISIONS
    try:
        decided = read_decisions(log)
        decisions = log if decided else None
        judged = load_judged(config, decided)
        jobs = make_judges(config, judged, options.folds, decisions)
    except BaseException:
        if fresh:  # so that the same folder can be had with other options
            (options.out / SETTINGS).unlink()
            with contextlib.suppress(OSError):
                options.out.rmdir()
        raise
    for note in judged.data.notes:
        console.print(printable(note), highlight=False, soft_wrap=True, markup=False)
    executor = LocalExecutor(options.jobs, options.threads)
    sweep = run_sweep(jobs, options.out / NETWORKS, executor=executor, console=console, title="clean", tables=False)
    if sweep.failed:
        raise TrainingError(f"{len(sweep.failed)} of {len(jobs)} networks failed: {next(iter(sweep.failed.values()))}")
    testimonies = read_testimonies(options.out / NETWORKS, jobs, judged)
    verdict = reach(judged, testimonies, config.engine.seed)
    corrected = write_outputs(options.out, config.data.dataset, judged, verdict)
    finding = Finding(judged, verdict, corrected)
    figures = finding.figures()
    write_json(options.out / FINDING, figures)
    with open(options.out / SUSPECTS, newline="", encoding="utf-8") as stream:
        suspects = pick_suspects(judged.names, judged.data.train, list(csv.DictReader(stream)))
    write_page(options.out, config.data.dataset, figures, suspects)
    for line in describe(finding, options, config.data.dataset):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return finding


def settings_of(config: RunConfig, options: CleanOptions) -> dict[str, Any]:
    """What `claim` keeps of a cleaning."""
    fields = {name: value for name, value in config.flat().items() if value is not None and name != "run_dir"}
    return {"folds": options.folds, **fields}


def claim(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Make the folder, or take up the cleaning in it if it has the same settings (`clean.json`). Returns whether it is
    a new one.

    ConfigError if it has others; CheckpointError if the folder holds something else or cannot be made.
    """
    plain: dict[str, Any] = json.loads(json.dumps(dict(settings)))
    description = folder / SETTINGS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not description.exists():
            if any(path.name != ARRAYS for path in folder.iterdir()):
                raise CheckpointError(f"--out {folder} is not empty and holds no cleaning; choose another")
            write_json(description, plain)
            return True
        before = json.loads(description.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError("no object")
    except OSError as error:
        raise CheckpointError(f"cannot work in {folder}: {error.strerror}; choose another --out") from error
    except ValueError as error:
        raise CheckpointError(f"{description} is damaged ({error}); choose another --out") from error
    for name in {**plain, **before}:
        if name not in FREE_ON_RESUME and plain.get(name) != before.get(name):
            raise ConfigError(
                f"--out {folder} holds a cleaning with {name} {shown(before.get(name))}, not {shown(plain.get(name))}; "
                "choose another folder, or the same options"
            )
    write_json(description, plain)  # data may lie elsewhere now
    return False


def describe(finding: Finding, options: CleanOptions, dataset: str) -> list[str]:
    """What the console shows at the end of a cleaning of `dataset`."""
    judged, verdict = finding.judged, finding.verdict
    count = int(verdict.suspected.sum())
    if np.isnan(verdict.rate):
        lines = [f"{counted(len(judged.given), 'image')} judged: nothing can be said of their labels"]
    else:
        low, high = verdict.rate_interval
        rate = f"{_percent(verdict.rate)} of the labels are wrong (95 %: {_percent(low)} to {_percent(high)})"
        said = counted(count, "is suspected", "are suspected")
        lines = [f"{counted(len(judged.given), 'image')} judged: {rate}; {said}, in {options.out / SUSPECTS}"]
        lines.append(f"corrected data set: {finding.corrected}; look at suspects: fastnoise review {options.out}")
        lines.append(f"train on it: fastnoise train {words_for(finding.corrected, dataset)}")
    if judged.truth is not None and not np.isnan(verdict.rate):
        found = measure(verdict, judged.given, judged.truth)
        lines.append(
            f"against the true labels: {_percent(found['rate'])} are wrong; precision {_percent(found['precision'])}, "
            f"recall {_percent(found['recall'])}"
        )
    return lines + [f"warning: {warning}" for warning in verdict.warnings]


def measure(verdict: Verdict, given: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How right a verdict is, if the true labels are known.

    Returns:
        rate: share of wrong labels. precision, recall: of the suspected ones. missed: share of the wrong labels that
        are missed when as many are flagged as there are, those of the lowest margins. calibration: the mean distance
        of probability and share of wrong labels, over 15 cells of equal width, each weighted by its labels (expected
        calibration error, Guo et al. 2017, Eq. 3). corrected: share of right labels in the corrected set.
    """
    wrong, suspected = given != truth, verdict.suspected
    count = int(wrong.sum())
    found = int((wrong & suspected).sum())
    probability = np.nan_to_num(verdict.probability)
    flagged = np.argsort(verdict.margins, kind="stable")[:count]
    cell = np.minimum((probability * 15).astype(np.int64), 14)
    gaps = np.bincount(cell, probability - wrong, minlength=15)
    return {
        "rate": float(wrong.mean()),
        "precision": found / max(1, int(suspected.sum())),
        "recall": found / max(1, count),
        "missed": 1 - float(wrong[flagged].sum()) / max(1, count),
        "calibration": float(np.abs(gaps).sum() / len(wrong)),
        "corrected": float((verdict.corrected(given) == truth).mean()),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _json(value: Any) -> Any:
    """The value with null for what is no number, which JSON has not."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
