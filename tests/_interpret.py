"""Runs one of the `_..._cases.py` scripts under Triton's interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def interpret(script: str, request: Any) -> Any:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script))],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def stretches(columns: int | None) -> tuple[int, int, int] | None:
    """A geometry of stretches of so many columns, a power of two, by which longer rows are looped over; None: the
    usual one."""
    return None if columns is None else (max(1, 128 // columns), columns, 1)
