"""fastnoise sweep: many training runs from one file, and tables of what came out."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import ConfigError
from ..texts import counted


@dataclass(frozen=True)
class SweepCommand:
    """Train all jobs of a sweep, several at once, and write one CSV and tables of mean and standard deviation.

    SPEC.toml holds options by name as --config does. [grid] holds lists of values, [[list]] tables of options that vary
    together, and seeds = 3 repeats each job. If a sweep was stopped or killed, the same command continues it. The names
    elr-table-5 and nal-table-6 stand for the ablations of these papers. Examples:
      fastnoise sweep SPEC.toml
      fastnoise sweep SPEC.toml --out sweeps/elr --jobs 4
      fastnoise sweep nal-table-6 --list
      fastnoise sweep SPEC.toml --executor ray --address auto --gpus-per-job 0.25
    """

    spec: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="SPEC.toml")] = None
    """The sweep's file, or the name of a published table."""
    out: str | None = None
    """Folder of the sweep. None: sweeps/NAME for the file NAME.toml."""
    jobs: int = 0
    """Number of jobs that run at once on this machine. 0: one per GPU, or one per core if there is no GPU."""
    threads: int = 1
    """torch threads of each job on the CPU. The last bits of results depend on it, but not on --jobs."""
    stack: int = 1
    """Number of runs that train as one batched computation. They may differ only in seeds and noise."""
    executor: Literal["local", "ray"] = "local"
    """Where jobs run: in processes of this machine (local), or on a Ray cluster (pip install 'fastnoise[ray]').
    All nodes of the cluster must see the sweep's folder, the data and fastnoise under the same paths."""
    address: str | None = None
    """Address of the Ray cluster, or auto for the one on this machine. None starts one here."""
    gpus_per_job: float | None = None
    """GPUs of each job. With several, as 2, as many processes train it together, as fastnoise train --gpus does.
    Ray also takes a share of one, as 0.25. None: 1 if there are GPUs."""
    cpus_per_job: float | None = None
    """CPU cores that Ray reserves for each job. None: as many as --threads."""
    keep: Literal["none", "checkpoint"] = "none"
    """What is left of a finished job to go on from. Its networks are in its model file in either case."""
    list: bool = False
    """Print the jobs with their names, and run none."""


def run(command: SweepCommand) -> int:
    """Do what the command says; returns 0, 1 where jobs failed, 130 or 143 when stopped by a signal."""
    from ..sweeps import Executor, LocalExecutor, RayExecutor, find_spec, resolve, run_sweep

    if command.spec is None:
        raise ConfigError("give the sweep's file, as in fastnoise sweep SPEC.toml")
    local = command.executor == "local"
    for flag, value in (
        ("--address", command.address),
        ("--cpus-per-job", command.cpus_per_job),
    ):
        if local and value is not None:
            raise ConfigError(f"{flag} is for --executor ray; drop it")
    each = command.gpus_per_job
    if local and each is not None and each != int(each):
        raise ConfigError(f"--gpus-per-job {each:g}: a share of a GPU is for --executor ray; here give --jobs")
    if command.stack > 1 and each is not None and each > 1:
        raise ConfigError("--stack trains several runs on one GPU: drop it, or --gpus-per-job")
    if not local and command.jobs:
        raise ConfigError("--jobs is for --executor local; with ray give --gpus-per-job or --cpus-per-job")
    spec = find_spec(command.spec)
    if command.list:
        jobs = resolve(spec)
        for job in jobs:
            print(job.name, job.describe())
        print(counted(len(jobs), "job"))
        return 0
    folder = Path("sweeps") / spec.stem if command.out is None else Path(command.out)
    executor: Executor
    if local:
        executor = LocalExecutor(command.jobs, command.threads, 1 if each is None else int(each))
        executor.warm_up()
    else:
        cores = float(command.threads) if command.cpus_per_job is None else command.cpus_per_job
        executor = RayExecutor(command.address, each, cores, command.threads)
    try:
        jobs = resolve(spec)
        from ..engine import Interrupted

        try:
            result = run_sweep(
                jobs,
                folder.absolute(),
                executor=executor,
                stack=command.stack,
                title=spec.stem,
                spec=spec.read_text(encoding="utf-8"),
                keep=command.keep,
            )
        except Interrupted as stop:
            print(f"fastnoise: {stop}", file=sys.stderr)
            return 128 + stop.signal_number
    finally:
        executor.close()
    return 1 if result.failed else 0
