"""Many runs: what they are, where they run, what came out."""

from .executors import Executor, LocalExecutor, RayExecutor
from .results import SweepResult
from .runner import run_sweep
from .spec import Job, make_jobs, resolve

__all__ = ["Executor", "Job", "LocalExecutor", "RayExecutor", "SweepResult", "make_jobs", "resolve", "run_sweep"]
