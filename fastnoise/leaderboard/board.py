"""From words and a sweep's folder to the rows of a leaderboard."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..data.cifar import ERROR_RATES
from ..errors import CheckpointError, ConfigError, DataError
from ..fields import known_task
from ..files import stored_json, write_json
from ..noise.spec import parse
from ..sweeps.job import run_folder, summary_file
from ..sweeps.spec import Job, find_spec, jobs_of, read_spec
from ..tasks.names import DEFAULT
from .submission import SeedRun, Submission, configuration_of, rounded, sources_of

BOARDS = Path(__file__).parent / "boards"
"""Holds the boards that come with fastnoise: files of sweeps."""


def board_content(
    spec: str | None,
    methods: Sequence[str] = (),
    datasets: Sequence[str] = (),
    noises: Sequence[str] = (),
    recipes: Sequence[str] = (),
    seeds: int | None = None,
    data_root: str | None = None,
) -> dict[str, Any]:
    """The content of a sweep's file, as `sweeps.spec` describes it: of the file `spec`, or every combination of words.

    Args:
        spec: a sweep's file, or the name of one of BOARDS. Then it says all that the other arguments would, but
            `data_root`.
        methods, datasets: at least one each without `spec`.
        noises: empty: each data set's own default, human labels for CIFAR-N.
        recipes: empty: the published ones.
        seeds: how many seeds each row has; None: 3.
        data_root: folder of the data sets; None: what the file says, else the default.

    ConfigError in one line.
    """
    root = {} if data_root is None else {"data_root": data_root}
    words = {"methods": methods, "datasets": datasets, "noises": noises, "recipes": recipes, "seeds": seeds}
    given = [name for name, value in words.items() if value]
    if spec is not None:
        if given:
            raise ConfigError(f"{spec} says what to run: drop --{given[0]}, or the file")
        return read_spec(find_spec(spec, BOARDS), BOARDS, "board") | root
    boards = ", ".join(sorted(path.stem for path in BOARDS.glob("*.toml")))
    for name in ("methods", "datasets"):
        if not words[name]:
            raise ConfigError(f"give --{name}, or a sweep's file, or a board that comes with fastnoise: {boards}")
    axes = {"dataset": datasets, "method": methods, "noise": noises, "recipe": recipes}
    grid = {name: list(values) for name, values in axes.items() if values}
    return {"seeds": 3 if seeds is None else seeds, **root, "grid": grid}


def board_jobs(content: Mapping[str, Any], what: str) -> list[Job]:
    """The jobs of a leaderboard. ConfigError in one line, also for what can't be on one."""
    jobs = jobs_of(content, what)
    for job in jobs:
        assert isinstance(job.config, RunConfig)
        dataset, spec = job.config.data.dataset, parse(job.config.noise.noise)
        if known_task(job.config) not in (DEFAULT, None):
            raise ConfigError(f"{what}: {dataset} has no classes; a leaderboard compares classifiers")
        if spec.kind == "human" and spec.name not in ERROR_RATES.get(dataset, {}):
            known = ", ".join(f"human:{name}" for name in ERROR_RATES.get(dataset, {})) or "none"
            raise ConfigError(
                f"{what}: {dataset} has no labels {job.config.noise.noise} (it has {known}): give it a command of its "
                "own with the same --out, whose rows come beside these"
            )
    return jobs


def keep_where(folder: Path, where: str) -> None:
    """Note in the folder what its times are measured with: how many jobs at once, and on what.

    ConfigError if its earlier ones were measured with something else; CheckpointError for a damaged note.
    """
    path = folder / "leaderboard.json"
    if path.exists():
        try:
            before = stored_json(path)["where"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); remove it, or choose another --out") from None
        if before != where:
            raise ConfigError(
                f"--out {folder}: its times were measured with {before}, and this would be {where}; give the same "
                "--jobs and --threads, or another --out"
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from None
    write_json(path, {"where": where})


def submissions_of(folder: Path, jobs: Sequence[Job], where: str) -> list[Submission]:
    """The rows of a sweep: its finished jobs, those together that differ in seeds only.

    DataError for a finished run that has no accuracies or no times.
    """
    rows: dict[str, tuple[dict[str, Any], dict[str, str], list[SeedRun]]] = {}
    for job in jobs:
        if summary_file(folder, job.name).exists():
            run, code = _measured(run_folder(folder, job.name))
            row = configuration_of(job.fields), sources_of(job.fields, code)
            rows.setdefault(json.dumps(row, sort_keys=True), (*row, []))[2].append(run)
    return [Submission(fields, where, tuple(runs), sources) for fields, sources, runs in rows.values()]


def _measured(path: Path) -> tuple[SeedRun, dict[str, str]]:
    """What the folder of a finished run says, and the SHA-256 sums of the user's code that it ran, by field."""
    from ..engine.environment import machine
    from ..report.stored import read_run

    run = read_run(path, arrays=False)
    if run.problems or run.summary is None or not run.history or not run.environment:
        raise DataError(f"{path}: {'; '.join(run.problems) or 'not a finished run'}; remove it and run again")
    columns = {}
    for name in ("test_accuracy", "epoch_seconds", "validation_accuracy"):
        epochs, values = run.series(name)
        if len(epochs) == len(run.history):
            columns[name] = tuple(map(rounded, values))
        elif name != "validation_accuracy":
            raise DataError(
                f"{path / 'metrics.jsonl'} lacks {name} in some epoch: it is of an earlier version, or of another task "
                "than classification; remove the run's folder, or leave it off the leaderboard"
            )
    last = run.environment[-1]
    rate, speed = run.figure("noise", "realised_rate"), run.figure("throughput", "images_per_second")
    gpus = last.get("gpus") or []
    on_gpu = gpus and run.config.get("device") != "cpu"
    measured = SeedRun(
        seed=run.config["seed"],
        noise_seed=run.config["noise_seed"],
        images_per_second=rounded(speed or 0.0),
        realised_rate=None if rate is None else rounded(rate),
        starts=len(run.environment),
        machine=machine(last),
        gpu=str(gpus[0]["name"]) if on_gpu else "none",
        torch=str(last["packages"]["torch"]),
        fastnoise=str(last["fastnoise"]),
        commit=str(last["commit"] or ""),
        date=datetime.fromtimestamp((path / "summary.json").stat().st_mtime, UTC).date().isoformat(),
        **columns,
    )
    return measured, last.get("own_files") or {}
