"""fastnoise sweep: many training runs from one file, and tables of what came out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import ConfigError
from ..helptext import REQUIRED
from ..texts import counted
from .jobs import JobsCommand, until_stopped


@dataclass(frozen=True)
class SweepCommand(JobsCommand):
    """Train all jobs of a sweep, several at once, and write one CSV and tables of mean and standard deviation.

    SPEC.toml holds options by name as --config does. [grid] holds lists of values, [[list]] tables of options that vary
    together, and seeds = 3 repeats each job. If a sweep was stopped or killed, the same command continues it. The names
    elr-table-5 and nal-table-6 stand for the ablations of these papers. Examples:
      fastnoise sweep SPEC.toml
      fastnoise sweep SPEC.toml --out sweeps/elr --jobs 4
      fastnoise sweep nal-table-6 --dry-run
      fastnoise sweep SPEC.toml --executor ray --address auto --gpus-per-job 0.25
    """

    spec: Annotated[str | None, REQUIRED, tyro.conf.Positional, tyro.conf.arg(metavar="SPEC.toml")] = None
    """The sweep's file, or the name of a published table."""
    out: str | None = None
    """Folder of the sweep. None: sweeps/NAME for the file NAME.toml."""
    stack: int = 1
    """Number of runs that train as one batched computation. They may differ only in seeds and noise."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(aliases=["--list"])] = False
    """Print the jobs with their names, and run none."""


def run(command: SweepCommand) -> int:
    """Do what the command says; returns 0, 1 where jobs failed, 130 or 143 when stopped by a signal."""
    from ..sweeps import find_spec, resolve, run_sweep

    if command.spec is None:
        raise ConfigError("give the sweep's file, as in fastnoise sweep SPEC.toml")
    command.check()
    if command.stack > 1 and command.gpus_per_job is not None and command.gpus_per_job > 1:
        raise ConfigError("--stack trains several runs on one GPU: drop it, or --gpus-per-job")
    spec = find_spec(command.spec)
    if command.dry_run:
        jobs = resolve(spec)
        for job in jobs:
            print(job.name, job.describe())
        print(counted(len(jobs), "job"))
        return 0
    folder = Path("sweeps") / spec.stem if command.out is None else Path(command.out)
    with command.opened() as executor:
        jobs = resolve(spec)

        def sweep() -> int:
            result = run_sweep(
                jobs,
                folder.absolute(),
                executor=executor,
                stack=command.stack,
                title=spec.stem,
                spec=spec.read_text(encoding="utf-8"),
                keep=command.keep,
            )
            return 1 if result.failed else 0

        return until_stopped(sweep)
