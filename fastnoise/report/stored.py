"""Reads run, sweep and study folders. Everything in them is treated as data. Unreadable files are reported."""

import csv
import json
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import COMMON, FREE_ON_RESUME
from ..data.names import is_brought
from ..errors import ConfigError, DataError, said
from ..files import require_file, stored_text
from ..noise import NoisyLabels
from ..noise.result import clean_if_known
from ..noise.targets import load_noisy
from ..tasks.names import Score, score_in
from .html import plain

_LARGEST = 1e100  # number that is drawn; a loss in float32 ends at 3e38
_LONGEST_NAME = 16  # characters of a class's name
_DEEPEST = 20  # levels of a JSON document
_BEFORE = "given_before_noise"
"""What corrected.npz calls the labels that people brought, if noise was added to them. Here they are `true` too."""
_INTEGER_COLUMNS, _FLOAT_COLUMNS = ("position", "given", "corrected", "true"), ("confidence", "attention")


@dataclass
class StoredRun:
    """The content of a run folder. If a file is missing or damaged, its field is empty and `problems` says so."""

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    environment: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    """One dictionary per epoch, in the order of the epochs."""
    summary: dict[str, Any] | None = None
    """None: the run hasn't ended."""
    labels: NoisyLabels | None = None
    names: tuple[str, ...] | None = None
    """Names of the classes, cut to what fits on an axis. None if they are just numbers."""
    whole_names: tuple[str, ...] = ()
    """The same, uncut; also numbers."""
    corrected: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Columns of corrected.npz, [n] each; without `true` if none of its labels is known."""
    error: str = ""
    """The content of error.txt, which a failed job of a sweep writes."""
    problems: list[str] = field(default_factory=list)

    @property
    def epochs(self) -> int | None:
        """How many epochs the run was planned to have."""
        value = self.config.get("epochs")
        return value if type(value) is int else None

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Epochs and values of a figure of metrics.jsonl, without epochs whose value is missing or not finite."""
        found = [(epoch["epoch"], value) for epoch in self.history if (value := number(epoch.get(key))) is not None]
        return [epoch for epoch, _ in found], [value for _, value in found]

    def figure(self, *keys: str) -> float | None:
        """A number of summary.json, by its keys from the outside in."""
        value: Any = self.summary
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return number(value)

    @property
    def score(self) -> Score:
        """The figure that says how good a network of this run is."""
        try:
            return score_in(self.summary or (self.history[-1] if self.history else {}))
        except (KeyError, TypeError):  # of a damaged summary
            return score_in({})

    @property
    def num_classes(self) -> int:
        """C, as far as the folder says."""
        return _classes(self.corrected) if self.labels is None else self.labels.num_classes

    def class_names(self, count: int) -> tuple[str, ...] | None:
        """The names, or None if they are not `count`."""
        return self.names if self.names is not None and len(self.names) == count else None

    @property
    def words(self) -> tuple[str, str]:
        """What charts call true classes and given labels, as `NoisyLabels.words`."""
        return ("true class", "given label") if self.labels is None else self.labels.words

    @property
    def test_class(self) -> str:
        """What charts call the class that an image of the test set has: nobody vouches for labels that people bring."""
        return "given class" if is_brought(str(self.config.get("dataset", "digits"))) else "true class"

    def training_labels(self) -> tuple[NDArray[np.int64], NDArray[np.int64] | None] | None:
        """Given labels [n] of the training samples without those held out for validation, and true labels if known: -1
        for a sample whose true label is unknown."""
        if self.labels is None or self.labels.labels.ndim > 1:
            return None
        kept = self.corrected.get("position")
        if kept is None:
            from ..data import stratified_split

            fraction, seed = number(self.config.get("val_fraction")), self.config.get("noise_seed")
            if fraction is None or not 0 <= fraction < 1 or type(seed) is not int or seed < 0:
                return None
            clean_first = self.config.get("val_split") == "clean"
            classes = self.labels.clean_labels if clean_first else self.labels.labels
            if classes is None:
                return None
            kept, _ = stratified_split(classes, fraction, seed)
        else:
            kept = _rows(self.labels, kept)
        return self.labels.labels[kept], clean_if_known(self.labels.clean_labels, kept)


def number(value: Any) -> float | None:
    """A number that can be drawn on an axis, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        return None
    return float(value)


def read_run(path: Path, *, arrays: bool = True) -> StoredRun:
    """Read a run folder. Without `arrays` its labels are not read, since curves don't need them."""
    from ..engine import RunFolder

    folder, run = RunFolder(path), StoredRun(path)
    run.config = _read(run, folder.config, lambda file: tomllib.loads(file.read_text(encoding="utf-8")), {}, dict)
    run.environment = _read(run, folder.environment, read_json, [], list)
    run.environment = [start for start in run.environment if isinstance(start, dict)]
    if folder.classes.exists():  # older runs have none
        found = _read(run, folder.classes, read_json, [], list)
        run.names, run.whole_names = _names(found), tuple(map(plain, found))
    if folder.metrics.exists():
        lines = _read(run, folder.metrics, lambda file: file.read_bytes().splitlines(), [], list)
        run.history = _history(run, lines)
    if folder.summary.exists():
        run.summary = _read(run, folder.summary, read_json, None, dict)
    if arrays:
        run.labels = _read(run, folder.labels, load_noisy, None, NoisyLabels)
        corrected = folder.corrected.with_suffix(".npz")
        if corrected.exists():
            run.corrected = _read(run, corrected, _read_columns, {}, dict)
            if run.corrected and run.labels is not None and not _belong(run.corrected, run.labels):
                run.problems.append(f"{corrected.name} is not of the labels in {folder.labels.name}: left out")
                run.corrected = {}
            if clean_if_known(run.corrected.get("true")) is None:  # of a run of an earlier version
                run.corrected.pop("true", None)
    return run


def _names(found: list[Any]) -> tuple[str, ...] | None:
    """Names cut to a length that fits on an axis; None if they are just the numbers of the classes."""
    names = tuple(plain(name, _LONGEST_NAME) for name in found)
    return None if names == tuple(map(str, range(len(names)))) else names


def _read(run: StoredRun, path: Path, read: Callable[[Path], Any], default: Any, kind: type) -> Any:
    """The result of `read` for a file. If it fails or is not of `kind`: `default`, and a problem is noted."""
    try:
        require_file(path)
        content = read(path)
        if isinstance(content, kind):
            return content
        reason = f"it holds a {type(content).__name__}"
    except FileNotFoundError:
        reason = "it is not there"
    except Exception as error:  # damaged and foreign files make readers raise whatever they meet
        reason = said(error, 300)
    run.problems.append(f"{path.name} cannot be used: {reason}")
    return default


def read_json(path: Path) -> Any:
    """A JSON document. ValueError if it is not JSON or nested too deeply; OSError if it can't be read."""
    return _parsed(stored_text(path))


def _parsed(text: str | bytes) -> Any:
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(_DEEPEST):
        inner = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        level = [part for parts in inner for part in parts]
    if level:
        raise ValueError("nested too deeply")
    return value


def _history(run: StoredRun, lines: list[bytes]) -> list[dict[str, Any]]:
    """The epochs of metrics.jsonl. A kill can cut off its last line. If an epoch has several lines, the last counts."""
    epochs: dict[int, dict[str, Any]] = {}
    damaged = 0
    for line in lines:
        try:
            epoch = _parsed(line)
            if not isinstance(epoch, dict) or type(epoch.get("epoch")) is not int or not 0 < epoch["epoch"] <= 10**9:
                raise ValueError("no epoch")
        except ValueError:
            damaged += 1
            continue
        epochs[epoch["epoch"]] = epoch
    if damaged:
        run.problems.append(f"metrics.jsonl: {damaged} of {len(lines)} lines cannot be read and are left out")
    return [epochs[place] for place in sorted(epochs)]


def _read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of corrected.npz, with checked shapes and dtypes. Nothing in the file is executed."""
    with np.load(path, allow_pickle=False) as file:
        columns = {name: file[name] for name in (*_INTEGER_COLUMNS, *_FLOAT_COLUMNS, "suspected") if name in file.files}
        if _BEFORE in file.files:
            columns["true"] = file[_BEFORE]
    length = len(columns["given"])
    for name, column in columns.items():
        kinds = "iu" if name in _INTEGER_COLUMNS else "f" if name in _FLOAT_COLUMNS else "b"
        if column.shape != (length,) or column.dtype.kind not in kinds:
            raise DataError(f"{name} is {column.dtype} {list(column.shape)}")
        if kinds == "iu" and length and column.min() < (-1 if name == "true" else 0):
            raise DataError(f"{name} has negative entries")
        if kinds == "f" and not ((column >= 0) & (column <= 1)).all():
            raise DataError(f"{name} has entries outside 0 to 1")
    if missing := {"position", "corrected", "confidence", "suspected"} - set(columns):
        raise DataError(f"it lacks {', '.join(sorted(missing))}")
    return columns


def _belong(columns: dict[str, NDArray[Any]], labels: NoisyLabels) -> bool:
    """Whether the columns of corrected.npz belong to samples of `labels` and have the same given and true labels."""
    if len(np.setdiff1d(columns["position"], labels.positions)):
        return False
    positions = _rows(labels, columns["position"])
    true = labels.clean_labels
    return (
        _classes(columns) <= labels.num_classes
        and np.array_equal(columns["given"], labels.labels[positions])
        and ("true" not in columns or (true is not None and np.array_equal(columns["true"], true[positions])))
    )


def _rows(labels: NoisyLabels, positions: NDArray[Any]) -> NDArray[np.int64]:
    """int64 [n], the rows of `labels` that are of the samples at these positions, which it has in ascending order."""
    return np.searchsorted(labels.positions, positions.astype(np.int64))


def _classes(columns: dict[str, NDArray[Any]]) -> int:
    """One more than the largest class in the columns of corrected.npz."""
    names = [name for name in ("given", "corrected", "true") if name in columns and len(columns[name])]
    return max((int(columns[name].max()) + 1 for name in names), default=0)


# -- sweeps --------------------------------------------------------------------------------------------------------


@dataclass
class StoredSweep:
    """The content of the folder of a sweep."""

    path: Path
    jobs: list[StoredRun]
    varied: tuple[str, ...]
    """Fields of the configuration in which jobs differ, without seeds."""
    tables: str = ""
    """tables.md."""
    results: list[list[str]] = field(default_factory=list)
    """results.csv, its header first."""
    problems: list[str] = field(default_factory=list)

    @property
    def score(self) -> Score:
        """The figure that says how good the networks of its runs are."""
        return next((job.score for job in self.jobs if job.history), score_in({}))

    def groups(self, fields: tuple[str, ...] | None = None) -> dict[tuple[str, ...], list[StoredRun]]:
        """Jobs by their values of `fields`, by default all fields that vary. Numbers are sorted by value,
        words by letters."""
        fields = self.varied if fields is None else fields
        found: dict[tuple[str, ...], list[StoredRun]] = {}
        for job in self.jobs:
            found.setdefault(tuple(_shown(job.config.get(name, "-")) for name in fields), []).append(job)
        ranks = [ranking(sorted({key[place] for key in found})) for place in range(len(fields))]
        return dict(
            sorted(found.items(), key=lambda item: [rank[key] for rank, key in zip(ranks, item[0], strict=True)])
        )


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else plain(value)


def ranking(values: list[str]) -> dict[str, float]:
    """The places of a field's values on an axis: the numbers themselves, the rates of one kind of noise, or an
    order."""
    try:
        return {value: float(value) for value in values}
    except ValueError:
        pass
    rates = _rates(values)
    return rates or {value: place for place, value in enumerate(values)}


def is_numeric(values: list[str]) -> bool:
    """Whether the places from `ranking` are numbers or rates, not just an order."""
    try:
        return all(math.isfinite(float(value)) for value in values)
    except ValueError:
        return _rates(values) is not None


def _rates(values: list[str]) -> dict[str, float] | None:
    """The rates of noise specs that differ only in their rate. "none" is a rate of 0. None for other values."""
    from dataclasses import replace

    from ..noise import parse

    try:
        specs = {value: parse(value) for value in values}
    except ConfigError:
        return None
    noisy = [spec for spec in specs.values() if spec.kind != "none"]
    if any(spec.rate is None for spec in noisy) or len({replace(spec, rate=0.5) for spec in noisy}) != 1:
        return None
    return {value: spec.rate or 0.0 for value, spec in specs.items()}


def read_sweep(path: Path) -> StoredSweep:
    """Read the folder of a sweep: its tables, its results, and its jobs as runs without arrays."""
    jobs = []
    for folder in sorted((path / "jobs").iterdir()):
        if not folder.is_dir():
            continue
        job = read_run(folder, arrays=False)
        if not (folder / "config.toml").exists():  # a job of a study that is no training run of the trainer's
            job.problems.clear()
        if (folder / "error.txt").is_file():
            job.error = _read(job, folder / "error.txt", lambda file: file.read_text(errors="replace"), "", str) or "?"
        jobs.append(job)
    sweep = StoredSweep(path, jobs, _varied(path, jobs))
    if (path / "tables.md").is_file():
        sweep.tables = (path / "tables.md").read_text(encoding="utf-8", errors="replace")
    if (path / "results.csv").is_file():
        text = (path / "results.csv").read_text(encoding="utf-8", errors="replace")
        try:
            sweep.results = list(csv.reader(text.splitlines()))
        except csv.Error as error:
            sweep.problems.append(f"results.csv cannot be used: {error}")
    return sweep


def _varied(path: Path, jobs: list[StoredRun]) -> tuple[str, ...]:
    """The fields that a sweep varies: those that its spec names, else the first fields that distinguish its jobs.

    Fields that follow from others do not count, as a recipe's numbers follow from the method.
    """
    options = [name for job in jobs for name in job.config if name not in COMMON]
    names = [name for name in dict.fromkeys(["method", *options, *COMMON]) if name not in FREE_ON_RESUME]
    names = [name for name in names if name not in ("seed", "noise_seed")]
    try:
        spec = tomllib.loads((path / "sweep.toml").read_text(encoding="utf-8"))
        tables = spec.get("list", [])
        asked = {str(key).replace("-", "_") for part in [spec.get("grid", {}), *tables] for key in part}
        names = [name for name in names if name in asked]
    except (OSError, ValueError, TypeError, AttributeError):
        pass
    known = [job for job in jobs if job.config]
    chosen: list[str] = []
    groups = 1
    for name in names:
        refined = len({tuple(str(job.config.get(field, "-")) for field in (*chosen, name)) for job in known})
        if refined > groups:
            chosen.append(name)
            groups = refined
    return tuple(chosen)
