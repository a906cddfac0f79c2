"""Sweeps of many runs: which runs, where they run, and their results."""

from .executors import Executor, LocalExecutor, RayExecutor
from .results import SweepResult
from .runner import run_sweep
from .spec import Job, find_spec, make_jobs, resolve

__all__ = [
    "Executor",
    "Job",
    "LocalExecutor",
    "RayExecutor",
    "SweepResult",
    "find_spec",
    "make_jobs",
    "resolve",
    "run_sweep",
]
