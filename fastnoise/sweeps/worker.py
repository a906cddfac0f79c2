"""One of several processes that train a job of a sweep together: `python -m fastnoise.sweeps.worker FILE PARENT`."""

import json
import os
import sys
from pathlib import Path

from rich.console import Console

from ..config import RunConfig
from .forkserver import die_with
from .job import Assignment, explain, run_folder


def main(words: list[str]) -> int:
    """Train the job that a file of JSON describes, and end with the process of this number; returns the exit code."""
    content = json.loads(Path(words[0]).read_text(encoding="utf-8"))
    if not die_with(int(words[1])):
        return 1
    from ..engine import train

    assignment = Assignment.from_json(content)
    (job,) = assignment.jobs
    assert isinstance(job.config, RunConfig)
    config = job.config.replace({"run_dir": str(run_folder(assignment.folder, job.name))})
    try:
        console = Console(width=120, markup=False, emoji=False)
        train(config, resume=content["resume"], console=console, **content["told"])
        return 0
    except SystemExit:  # another process says what went wrong
        raise
    except BaseException as error:
        return explain(assignment, error)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # NCCL's threads may wait for processes that are gone
