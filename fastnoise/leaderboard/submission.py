"""A row of a leaderboard as a TOML file: a configuration, and what each of its runs measured, epoch by epoch.

    schema = "fastnoise-leaderboard-1"
    where = "2 at once on 2 CPU cores, 1 torch thread each"

    [configuration]                  # as in a run's config.toml, without seeds, paths and what only changes speed
    method = "elr"

    [sources]                        # for fields that were paths, of which only the last part is kept
    labels = "0123abcd"              # tells files of one name apart

    [figures]                        # means over the runs and standard deviations; they follow from the runs
    last = 0.9123

    [[runs]]                         # one for each seed
    seed = 0
    test_accuracy = [0.81, 0.9123]   # after each epoch
    epoch_seconds = [4.1, 4.0]       # of each epoch: training, evaluation, what the method does in between

A page is made from these files alone. Every figure on it is computed from the runs, and a file whose [figures] say
something else is refused. Nothing in a file is executed. Imports no torch until figures are computed.
"""

import dataclasses
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any, get_type_hints

import tomli_w

from .. import own
from ..config import FREE_ON_RESUME, RunConfig
from ..data.names import AT_PATH, family, short
from ..errors import ConfigError, DataError, FastnoiseError, nearest
from ..fields import stored
from ..files import stored_text, write_text
from ..models.names import LibraryModel
from ..noise.spec import with_paths
from ..options import Above, AtLeast, Between, Values
from ..recipes import recipe
from ..sweeps.spec import SEEDS

SCHEMA = "fastnoise-leaderboard-1"

Share = Annotated[float, Between(0, 1)]
Seconds = Annotated[float, Above(0)]

_LISTS = {"test_accuracy": Share, "validation_accuracy": Share, "epoch_seconds": Seconds}
_TOLERANCE = 1e-5
"""By which a stated figure may differ from what follows from the runs, relative to it: it is rounded."""


@dataclass(frozen=True)
class SeedRun:
    """What one run measured."""

    seed: Annotated[int, AtLeast(0)]
    noise_seed: Annotated[int, AtLeast(0)]
    test_accuracy: tuple[float, ...]
    """After each epoch, shares."""
    epoch_seconds: tuple[float, ...]
    """Of each epoch: training, evaluation, and what the method does at its end. Start and checkpoints are left out."""
    images_per_second: Annotated[float, Above(0)]
    """Of training, the median of the epochs."""
    machine: str
    gpu: str
    """Its name, or `none` for a run on the CPU."""
    torch: str
    fastnoise: str
    commit: str
    """Empty if the run's package came without one."""
    date: str
    """When the run ended, YYYY-MM-DD."""
    starts: Annotated[int, AtLeast(1)] = 1
    """How often the run's process began. Of an epoch that was cut off, only the part after the last start is timed."""
    realised_rate: Share | None = None
    """The share of wrong labels that it trained on; None if the true labels are unknown."""
    validation_accuracy: tuple[float, ...] = ()
    """After each epoch; empty if nothing was held out."""

    @cached_property
    def figures(self) -> dict[str, float]:
        """Accuracies by each convention of a published value, minutes and images per second."""
        from ..engine.metrics import best_last_mean

        history = [{"epoch": place, "test": value} for place, value in enumerate(self.test_accuracy, 1)]
        found = best_last_mean(history, "test")
        figures = {name: found[name] for name in ("last", "best", "mean_last_10")}
        if self.validation_accuracy:
            held = [{"epoch": place, "held": value} for place, value in enumerate(self.validation_accuracy, 1)]
            figures["validation"] = self.test_accuracy[int(best_last_mean(held, "held")["best_epoch"]) - 1]
        return figures | {"minutes": sum(self.epoch_seconds) / 60, "images_per_second": self.images_per_second}

    def minutes_to(self, target: float) -> float | None:
        """Minutes until the end of the first epoch whose test accuracy is `target` or more; None if none is."""
        for epoch, value in enumerate(self.test_accuracy, 1):
            if value >= target:
                return sum(self.epoch_seconds[:epoch]) / 60
        return None


@dataclass(frozen=True)
class Submission:
    """A row of a leaderboard."""

    configuration: Mapping[str, Any]
    """Flat fields, without seeds, what changes only speed, and fields that are None."""
    where: str
    """How many jobs ran at once, and on what, while the times were measured."""
    runs: tuple[SeedRun, ...]
    sources: Mapping[str, str] = field(default_factory=dict)
    """As `sources_of` makes them; empty for a row of an earlier version, and for one without paths."""

    def marked(self, name: str) -> str:
        """The text of a field, with the digits that tell files of one name apart."""
        return str(self.configuration[name]) + (f"#{self.sources[name]}" if name in self.sources else "")

    @property
    def setting(self) -> tuple[str, str]:
        """Data set and noise: the rows that are ranked against each other."""
        noise = f"labels of {self.marked('labels')}" if "labels" in self.configuration else self.marked("noise")
        return self.marked("dataset"), noise

    @property
    def config(self) -> RunConfig | None:
        """The configuration. None if it names code of the user's, which is not run."""
        if any(own.is_own(str(self.configuration.get(kind, ""))) for kind in own.KINDS):
            return None
        return stored(self.configuration)

    @property
    def network(self) -> str:
        """Its name, with its width if that is not 1."""
        width = self.configuration.get("width", 1.0)
        return own.short(self.marked("model")) + ("" if width == 1 else f", width {width:g}")

    @property
    def recipe(self) -> str:
        """Where its settings come from; empty for the published recipe."""
        name = str(self.configuration.get("recipe", "published"))
        return "" if name == "published" else name

    @property
    def options(self) -> str:
        """The fields that differ from the method's recipe, as in `epochs=5 width=0.5`."""
        config = self.config
        if config is None:
            return ""
        fields = self.configuration
        try:
            usual = recipe(
                config.method.method,
                config.data.dataset,
                config.noise.noise,
                fields.get("variant"),
                config.model.model,
                noise_rate=config.noise.noise_rate,
                labels=config.noise.labels,
                recipe=config.optim.recipe,
                limit_train=config.data.limit_train,
            ).flat()
            usual["limit_train"] = None  # fewer images are never the recipe's
        except FastnoiseError:  # its recipe has to read a file that is not here
            return ""
        found = {name: value for name, value in config.flat().items() if name not in _LEFT_OUT}
        return " ".join(
            f"{name}={self.marked(name) if name in self.sources else value}"
            for name, value in found.items()
            if usual.get(name) != value
        )

    def values(self, name: str) -> list[float]:
        """A figure of each run that has it."""
        return [run.figures[name] for run in self.runs if name in run.figures]

    def minutes_to(self, target: float) -> list[float]:
        """`SeedRun.minutes_to` of each run that reaches the accuracy."""
        return [minutes for run in self.runs if (minutes := run.minutes_to(target)) is not None]

    def figures(self) -> dict[str, float]:
        """Means over the runs; with several runs also standard deviations, as NAME_sd."""
        found: dict[str, float] = {}
        for name in dict.fromkeys(key for run in self.runs for key in run.figures):
            values = self.values(name)
            found[name] = mean(values)
            if len(values) > 1:
                found[f"{name}_sd"] = stdev(values)
        return found

    def said(self, name: str) -> str:
        """What the runs say of themselves, as their machine: each once."""
        return "; ".join(dict.fromkeys(str(getattr(run, name)) for run in self.runs if getattr(run, name)))

    @property
    def realised_rate(self) -> float | None:
        """The mean share of wrong labels; None if a run's is unknown."""
        rates = [run.realised_rate for run in self.runs if run.realised_rate is not None]
        return mean(rates) if len(rates) == len(self.runs) else None

    @property
    def file_name(self) -> str:
        """Setting, method, and a hash of configuration, sources and machine: better figures take the file's place."""
        machine = [self.said(name) for name in ("machine", "gpu")]
        sources = [dict(self.sources)] if self.sources else []
        text = json.dumps([dict(self.configuration), self.where, *machine, *sources], sort_keys=True)
        words = "-".join((*self.setting, own.short(str(self.configuration["method"]))))
        plain = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in words)
        return f"{plain[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.toml"


_LEFT_OUT = {*FREE_ON_RESUME, *SEEDS}


_PLACED = (*own.KINDS, "labels", "encoder")
"""The fields that may hold a path."""


def configuration_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a run's configuration that a submission keeps. Of paths it keeps the last part; `sources_of` tells
    those of one name apart."""
    fields = {name: value for name, value in config.items() if name not in _LEFT_OUT and value is not None}
    return fields | {name: _without_folders(name, str(fields[name])) for name in _PLACED if name in fields}


def sources_of(config: Mapping[str, Any], code: Mapping[str, str]) -> dict[str, str]:
    """Eight hexadecimal digits for each field of which `configuration_of` leaves out folders: the same for the same
    path, or for the same content of a file with code of the user's.

    Args:
        config: a run's configuration, its paths absolute.
        code: the SHA-256 sums of its files with code by field, as the run's folder has them.
    """
    found = {}
    for name in _PLACED:
        text = str(config.get(name) or "")
        if text and _without_folders(name, text) != text:
            found[name] = (code.get(name) or hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest())[:8]
    return found


def _without_folders(name: str, text: str) -> str:
    """The text of one of _PLACED with the last part of each path."""
    if name in own.KINDS and own.is_own(text):
        file, inner, rest = own.split(text)
        return f"{file.name}:{inner}{rest}"
    match name:
        case "dataset":
            path = text.partition(":")[2]
            return f"{family(text)}:{Path(path).name}" if family(text) in AT_PATH else short(text)
        case "model":
            found = LibraryModel.parse(text)
            return text if found is None or found.file is None else f"{found.bare},weights={found.file.name}"
        case "noise":
            return with_paths(text, lambda file: Path(file).name)
        case "labels" | "encoder":
            return Path(text).name
    return text


# -- writing -------------------------------------------------------------------------------------------------------


def write_submission(folder: Path, submission: Submission) -> Path:
    """Write a row into a folder, which is made if it is missing. CheckpointError if it can't be written."""
    runs = [
        {key: value for key, value in dataclasses.asdict(run).items() if value not in (None, ())}
        for run in submission.runs
    ]
    content = {
        "schema": SCHEMA,
        "where": submission.where,
        "configuration": dict(submission.configuration),
        **({"sources": dict(submission.sources)} if submission.sources else {}),
        "figures": {name: rounded(value) for name, value in submission.figures().items()},
        "runs": runs,
    }
    # Each array in one line: a strings' own line ends are escaped.
    text = re.sub(r"\[\n[^]]*]", lambda found: "[" + " ".join(found[0][1:-1].split()).rstrip(",") + "]",
                  tomli_w.dumps(content))  # fmt: skip
    path = folder / submission.file_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}; choose another") from None
    write_text(path, text)
    return path


def rounded(value: float) -> float:
    """With six digits, which is more than any figure here means."""
    return float(f"{value:.6g}")


# -- reading -------------------------------------------------------------------------------------------------------


def read_submissions(folder: Path) -> list[Submission]:
    """All rows of a folder, in the order of their files' names.

    DataError in one line that names file and field for the first one that is bad, and for a folder without any.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one with the TOML files of fastnoise leaderboard")
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise DataError(f"{folder} has no submissions (*.toml); fastnoise leaderboard --submit {folder} writes some")
    return [read_submission(path) for path in paths]


def read_submission(path: Path) -> Submission:
    """One row. DataError in one line that names the file and the field that is wrong."""
    try:
        content = tomllib.loads(stored_text(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not a readable TOML file: {error or 'nested too deeply'}") from None
    try:
        return _parsed(content)
    except FastnoiseError as error:
        raise DataError(f"{path}: {error}") from None


def _parsed(content: Mapping[str, Any]) -> Submission:
    needed = ("schema", "where", "configuration", "figures", "runs")
    _require_fields("", content, needed, (*needed, "sources"))
    if content["schema"] != SCHEMA:
        raise ConfigError(f"schema must be {SCHEMA!r}, not {content['schema']!r}")
    where = Values.of(str).read("where", content["where"])
    fields = _table("configuration", content["configuration"])
    for name in ("method", "dataset", "noise", "model"):
        if not isinstance(fields.get(name), str):
            raise ConfigError(f"configuration.{name} must be a text, not {fields.get(name)!r}")
    if others := sorted(_LEFT_OUT & fields.keys()):
        raise ConfigError(f"configuration.{others[0]}: no part of a row's configuration; drop it")
    sources = _table("sources", content.get("sources", {}))
    for name, digits in sources.items():
        if name not in _PLACED or name not in fields:
            raise ConfigError(f"sources.{name}: no path of the configuration; drop it")
        if not isinstance(digits, str) or not re.fullmatch("[0-9a-f]{8}", digits):
            raise ConfigError(f"sources.{name} must be eight hexadecimal digits in quotes, not {digits!r}")
    runs = content["runs"]
    if not isinstance(runs, list) or not runs:
        raise ConfigError("runs must be tables, one for each seed, as in [[runs]] and seed = 0")
    found = tuple(_run(f"runs[{place}]", run) for place, run in enumerate(runs))
    submission = Submission(fields, where, found, sources)
    seeds = [(run.seed, run.noise_seed) for run in submission.runs]
    for place, pair in enumerate(seeds):
        if pair in seeds[:place]:
            raise ConfigError(f"runs[{place}].seed: the seeds {pair[0]} and {pair[1]} are there twice; drop one")
    try:
        config = submission.config
    except FastnoiseError as error:
        raise ConfigError(f"configuration: {error}") from None
    if config is not None:
        for place, run in enumerate(submission.runs):
            if len(run.test_accuracy) > config.optim.epochs:
                raise ConfigError(
                    f"runs[{place}].test_accuracy has {len(run.test_accuracy)} epochs, "
                    f"and configuration.epochs is {config.optim.epochs}"
                )
            if config.data.val_fraction and not run.validation_accuracy:
                raise ConfigError(
                    f"runs[{place}].validation_accuracy is missing, and configuration.val_fraction is "
                    f"{config.data.val_fraction:g}"
                )
    _check_figures(submission, _table("figures", content["figures"]))
    return submission


def _run(where: str, table: Any) -> SeedRun:
    hints = get_type_hints(SeedRun, include_extras=True)
    table = _table(where, table)
    needed = [field.name for field in dataclasses.fields(SeedRun) if field.default is dataclasses.MISSING]
    _require_fields(f"{where}.", table, needed, list(hints))
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in _LISTS:
            values[name] = Values.of(hints[name]).read(f"{where}.{name}", value)
            continue
        if not isinstance(value, list) or not value:
            raise ConfigError(f"{where}.{name} must be a list of numbers, one for each epoch, not {value!r}")
        kind = Values.of(_LISTS[name])
        values[name] = tuple(kind.read(f"{where}.{name}[{place}]", item) for place, item in enumerate(value))
    run = SeedRun(**values)
    for name in ("epoch_seconds", "validation_accuracy"):
        other = getattr(run, name)
        if other and len(other) != len(run.test_accuracy):
            raise ConfigError(f"{where}.{name} has {len(other)} epochs, {where}.test_accuracy {len(run.test_accuracy)}")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", run.date):
        raise ConfigError(f"{where}.date must be YYYY-MM-DD in quotes, not {run.date!r}")
    return run


def _table(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a table, not {value!r}")
    return value


def _require_fields(where: str, table: Mapping[str, Any], needed: Sequence[str], known: Sequence[str] = ()) -> None:
    for name in table:
        if name not in (known or needed):
            raise ConfigError(f"{where}{name}: unknown field; {nearest(name, list(known or needed))}")
    for name in needed:
        if name not in table:
            raise ConfigError(f"{where}{name} is missing")


def _check_figures(submission: Submission, stated: Mapping[str, Any]) -> None:
    found = submission.figures()
    _require_fields("figures.", stated, list(found))
    for name, value in found.items():
        said = Values.of(float).read(f"figures.{name}", stated[name])
        if not math.isclose(said, value, rel_tol=_TOLERANCE, abs_tol=1e-9):
            raise ConfigError(f"figures.{name} is {said:g}, but {value:.6g} follows from the runs")
