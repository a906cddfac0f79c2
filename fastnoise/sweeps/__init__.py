"""Sweeps of many runs: which runs, where they run, and their results."""

from .executors import Executor, LocalExecutor, RayExecutor
from .results import SweepResult
from .runner import run_sweep
from .spec import Job, make_jobs, resolve

__all__ = ["Executor", "Job", "LocalExecutor", "RayExecutor", "SweepResult", "make_jobs", "resolve", "run_sweep"]
