"""What a sweep runs: jobs from a TOML file, or from configurations made in Python.

A sweep's file has, by the names that `fastnoise train --config` takes:

    dataset = "cifar10"                      # fields of all jobs
    seeds = 3                                # seed and noise_seed are 0, 1 and 2; or give a list
    noise_seeds = [7, 8, 9]                  # optional: other noise seeds, one for each of `seeds`

    [grid]                                   # every combination of these
    noise = ["symmetric:0.2", "symmetric:0.4"]

    [[list]]                                 # fields that vary together, each table crossed with the grid
    method = "elr"
    strength = 3.0

    [[list]]
    method = "ce"

Other fields have the defaults of the method's recipe for the data set and noise, as on the command line. If the file
sets or varies noise_seed, `seeds` sets only the training seed.
"""

import hashlib
import json
import math
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from .. import own
from ..checks import shown
from ..config import FREE_ON_RESUME, RunConfig, located
from ..errors import ConfigError, FastnoiseError, nearest
from ..fields import check_names, checked, types_of
from ..methods import options_of
from ..methods.options import OPTIONS
from ..models.names import identity
from ..noise.spec import parse
from ..options import MethodOptions, Values, values_of
from ..recipes import default_method, recipe

Config = RunConfig | Mapping[str, Any]

SEEDS = ("seed", "noise_seed")
"""Fields over which results are averaged."""

MOST_JOBS = 100_000
"""Maximum number of jobs in one file. More are probably a mistake."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    name: str
    """Twelve hexadecimal digits of a hash of what the job computes. It has this name in every sweep."""
    config: Config
    """The configuration of a training run, or the argument of `function`."""
    varied: Mapping[str, Any]
    """Fields in which the sweep's jobs differ, without seeds."""
    function: str | None = None
    """None: the job is a training run. MODULE:NAME: the job calls NAME(config, folder, console) of that module. It
    returns the job's figures as a dict for summary.json, and continues what an earlier call left in `folder`."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """The configuration by flat names."""
        return self.config.flat() if isinstance(self.config, RunConfig) else self.config

    def describe(self) -> str:
        """The varied fields and the seeds, as in `method=elr noise=symmetric:0.4 seed=0`."""
        fields = self.fields
        words = {**self.varied, "seed": fields.get("seed")}
        if fields.get("noise_seed") != fields.get("seed"):
            words["noise_seed"] = fields.get("noise_seed")
        return " ".join(f"{key}={value}" for key, value in words.items() if value is not None)


LATER: Mapping[str, Any] = {
    "exif_orientation": True,
    "skip_unreadable": False,
    "val_split": "given",
    "normalisation": "dataset",
    "balance": "none",
    "patience": 0,
    "init": "network",
    "freeze": "none",
    "backbone_rate": 1.0,
    "layer_decay": 1.0,
    "target_dtype": "float32",
    "batch_norm": "local",
    "recipe": "published",
    "average_weights": "none",
    "eval_mirror": False,
    "grow_size": "none",
}
"""Fields that came after version 0.1.0, with the values that do what it did. These count as unset in a job's name."""

LATER_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "elr": {"update_from": 1},
    **{name: {"variant": "paper"} for name in ("apl", "bootstrap", "coteaching", "focal", "forward")},
}
"""Method -> its options that came after version 0.1.0, as LATER."""

LOGS = frozenset(("decisions",))
"""Fields of jobs with a function that name a file of which other fields have the content."""


def job_name(config: Config, function: str | None = None) -> str:
    """The name of the job that computes `config`. It depends only on what decides the results, not on paths or speed.

    Options that are "auto" count as unset. Version 0.1.0 had None for auto, and its jobs must be found again; hence
    LATER.
    """
    if isinstance(config, RunConfig):
        chosen = {name for name in config.method.names() if getattr(config.method, name) == MethodOptions.AUTO}
        later = {**LATER, **LATER_OPTIONS.get(config.method.method, {})}
        unset = {key for key, value in config.flat().items() if value is None or (key in later and later[key] == value)}
        fields = {
            key: value
            for key, value in config.flat().items()
            if key not in FREE_ON_RESUME and key not in chosen and key not in unset
        }
        fields["noise"] = str(parse(fields["noise"]))
    else:
        fields = {key: value for key, value in config.items() if key not in FREE_ON_RESUME and key not in LOGS}
    if isinstance(model := fields.get("model"), str):
        fields["model"] = identity(model)  # weights are what their file holds, wherever it lies
    fields |= own.identities(fields)  # code of the user's is what the file holds, wherever it lies
    if function is not None:
        fields = {"function": function, "config": fields}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def make_jobs(configs: Iterable[tuple[Mapping[str, Any], Config]], *, function: str | None = None) -> list[Job]:
    """Jobs from pairs of varied fields and configurations, in this order.

    Args:
        configs: for each job the fields in which it differs from the others, by any names, and what it runs: a
            RunConfig, or with `function` a flat mapping of JSON values.
        function: as Job.function.

    ConfigError if two configurations compute the same, or if a file or folder that they name is missing.
    """
    jobs: list[Job] = []
    known: dict[str, Job] = {}
    for varied, config in configs:
        place = located(config).replace({"run_dir": None}) if isinstance(config, RunConfig) else dict(config)
        job = Job(job_name(place, function), place, dict(varied), function)
        if job.name in known:
            raise ConfigError(
                f"two jobs are the same run {job.name}: ({known[job.name].describe()}) and ({job.describe()}); drop one"
            )
        known[job.name] = job
        jobs.append(job)
    return jobs


PUBLISHED = Path(__file__).parent / "published"
"""Holds the files of sweeps that repeat a published table."""


def find_spec(name: str, shipped: Path = PUBLISHED) -> Path:
    """A sweep's file; if there is none, the file of this name in `shipped`, as elr-table-5 or nal-table-6."""
    path, table = Path(name), shipped / f"{name}.toml"
    return table if not path.exists() and Path(name).name == name and table.is_file() else path


def read_spec(spec: Path, shipped: Path = PUBLISHED, of: str = "published table") -> dict[str, Any]:
    """The content of a sweep's TOML file, not yet checked. ConfigError in one line if it cannot be read; if it is
    missing, the message names the files in `shipped`, each of which is what `of` says."""
    try:
        return tomllib.loads(spec.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = ", ".join(sorted(path.stem for path in shipped.glob("*.toml")))
        raise ConfigError(f"{spec}: no such file; give a sweep's TOML file, or a {of}: {names}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{spec}: not a readable TOML file: {error}") from None


def jobs_of(content: Mapping[str, Any], what: str) -> list[Job]:
    """The jobs that the content of a sweep's file describes; list tables outermost, seeds innermost.

    ConfigError in one line, which begins with `what`, for unknown fields, values of the wrong type, empty grids, fields
    given twice, equal jobs, and configurations that `fastnoise train` refuses.
    """
    try:
        return make_jobs(_configurations(content))
    except FastnoiseError as error:
        raise type(error)(f"{what}: {error}") from None


def resolve(spec: Path) -> list[Job]:
    """The jobs that a sweep's TOML file describes; ConfigError in one line as `read_spec` and `jobs_of`."""
    return jobs_of(read_spec(spec), str(spec))


def _configurations(content: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], RunConfig]]:
    content = dict(content)
    grid, tables, seeds, noise_seeds = (content.pop(key, None) for key in ("grid", "list", "seeds", "noise_seeds"))
    known = _Known(content, grid, tables)
    fixed = known.fields("", content)
    axes = _axes(grid, known)
    rows = _rows(tables, known)
    listed = {name for row in rows for name in row}
    for one, other, names in (
        ("fixed", "in [grid]", fixed.keys() & axes.keys()),
        ("fixed", "in [[list]]", fixed.keys() & listed),
        ("in [grid]", "in [[list]]", axes.keys() & listed),
    ):
        if names:
            raise ConfigError(f"{min(names)} is both {one} and {other}; drop one")
    pairs = _seeds(seeds, noise_seeds, fixed.keys() | axes.keys() | listed)
    count = max(1, len(rows)) * math.prod(len(values) for values in axes.values()) * len(pairs)
    if count > MOST_JOBS:
        raise ConfigError(f"{count} jobs; a sweep takes at most {MOST_JOBS}: split it")
    for row, values, pair in product(rows or [{}], product(*axes.values()), pairs):
        varied = row | dict(zip(axes, values, strict=True))
        fields = fixed | varied | pair
        noise = fields.get("noise", "none" if "labels" in fields else None)
        try:
            dataset = fields.get("dataset", "digits")
            default = recipe(
                fields.get("method") or default_method(dataset, fields.get("task")),
                dataset,
                noise,
                fields.get("variant"),
                fields.get("model"),
                noise_rate=fields.get("noise_rate"),
                labels=fields.get("labels"),
                recipe=fields.get("recipe", "published"),
                limit_train=fields.get("limit_train"),
            )
            config = default.replace(checked(default, fields))
            check_names(config)
        except FastnoiseError as error:
            words = " ".join(f"{key}={value}" for key, value in varied.items())
            raise type(error)(f"{words}: {error}" if words else str(error)) from None
        yield {key: value for key, value in varied.items() if key not in SEEDS}, config


class _Known:
    """The fields that the jobs of a file may have, and their values: fields of all runs, and of the file's methods."""

    def __init__(self, fixed: Mapping[str, Any], grid: Any, tables: Any):
        parts = [fixed, *(tables if isinstance(tables, list) else [])]
        named = [part.get("method") for part in parts if isinstance(part, dict)]
        axis = grid.get("method") if isinstance(grid, dict) else None
        named += axis if isinstance(axis, list) else []
        methods = [name for name in named if isinstance(name, str)] or ["nal"]
        self.options = [options_of(name) for name in methods if name in OPTIONS or own.is_own(name)]
        self.types = types_of(RunConfig())
        """The values that each field of all runs takes."""

    def fields(self, where: str, table: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a table."""
        fields: dict[str, Any] = {}
        for key, value in table.items():
            name = self.field(where + key, key)
            if name in fields:
                raise ConfigError(f"{where}{key} is given twice; drop one")
            fields[name] = self.value(where + key, name, value)
        return fields

    def field(self, where: str, key: str) -> str:
        """The name of the field that a key stands for."""
        name = key.replace("-", "_")
        if name == "run_dir":
            raise ConfigError(f"{where}: a sweep names the run folders by itself; drop it")
        if name not in self.types and not self._takes(name):
            names = [*self.types, *(name for kind in self.options for name in kind.names())]
            valid = {*names, "grid", "list", "seeds", "noise_seeds"} - {"run_dir"}
            raise ConfigError(f"{where}: unknown field; {nearest(name, sorted(valid))}")
        if name in FREE_ON_RESUME and where != key:
            raise ConfigError(f"{where}: does not change what a run computes; set it above [grid] for all jobs")
        return name

    def value(self, where: str, name: str, value: Any) -> Any:
        """`value` as the configuration holds it. An option may have the value that any of the methods takes;
        ConfigError if none takes it."""
        *others, last = [self.types[name]] if name in self.types else self._takes(name)
        for values in others:
            try:
                return values.read(where, value)
            except ConfigError:
                continue
        return last.read(where, value)

    def _takes(self, name: str) -> list[Values]:
        """The values that an option takes in the file's methods. If none of them has the option, those of all other
        methods; the job is refused later, with a message that names them."""
        kinds = [kind for kind in self.options if name in kind.names()]
        return [values_of(kind)[name] for kind in kinds or OPTIONS.values() if name in kind.names()]


def _axes(grid: Any, known: _Known) -> dict[str, list[Any]]:
    if grid is None:
        return {}
    if not isinstance(grid, dict):
        raise ConfigError('grid must be a table, as in [grid] and noise = ["symmetric:0.2", "symmetric:0.4"]')
    if not grid:
        raise ConfigError(
            '[grid] is empty; give it fields, as in noise = ["symmetric:0.2", "symmetric:0.4"], or drop it'
        )
    axes: dict[str, list[Any]] = {}
    for key, values in grid.items():
        name = known.field(f"[grid] {key}", key)
        if not isinstance(values, list):
            raise ConfigError(
                f"[grid] {key} must be a list of values, not {shown(values)}; fixed fields go above [grid]"
            )
        if not values:
            raise ConfigError(f"[grid] {key} has no values; give at least one, or drop it")
        if name in axes:
            raise ConfigError(f"[grid] {key} is given twice; drop one")
        axes[name] = [known.value(f"[grid] {key}", name, value) for value in values]
        seen: set[Any] = set()
        for value in axes[name]:
            if value in seen:
                raise ConfigError(f"[grid] {key} has {shown(value)} twice: two jobs would be the same run; drop one")
            seen.add(value)
    return axes


def _rows(tables: Any, known: _Known) -> list[dict[str, Any]]:
    if tables is None:
        return []
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError('list must be tables, as in [[list]] and method = "elr"')
    if not tables or not all(tables):
        raise ConfigError('[[list]] is empty; give it fields, as in method = "elr", or drop it')
    return [known.fields("[[list]] ", table) for table in tables]


def _seeds(seeds: Any, noise_seeds: Any, named: typing.AbstractSet[str]) -> Sequence[dict[str, int]]:
    """The seeds that each repetition sets."""
    if seeds is None:
        if noise_seeds is not None:
            raise ConfigError("noise_seeds needs seeds, one for each; or vary noise_seed in [grid]")
        return [{}]
    if "seed" in named:
        raise ConfigError("seed and seeds are both given; drop one")
    training = _seed_list("seeds", seeds)
    if noise_seeds is None:
        return [{"seed": seed} if "noise_seed" in named else {"seed": seed, "noise_seed": seed} for seed in training]
    if "noise_seed" in named:
        raise ConfigError("noise_seed and noise_seeds are both given; drop one")
    noise = _seed_list("noise_seeds", noise_seeds)
    if len(noise) != len(training):
        raise ConfigError(f"{len(noise)} noise_seeds for {len(training)} seeds; give one for each")
    return [{"seed": seed, "noise_seed": other} for seed, other in zip(training, noise, strict=True)]


def _seed_list(key: str, seeds: Any) -> list[int]:
    if type(seeds) is int and 0 < seeds <= MOST_JOBS:
        return list(range(seeds))
    if isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds):
        return seeds
    raise ConfigError(f"{key} must be a positive number of seeds or a list of integers, not {shown(seeds)}")
