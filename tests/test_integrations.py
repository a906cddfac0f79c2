"""The losses in other libraries' trainers: the examples of the page `fastnoise help losses`, word for word."""

import subprocess
import sys
from pathlib import Path

import _manual
import pytest


@pytest.mark.parametrize("library", ["lightning", "transformers", "timm"])
def test_example_runs(library: str, tmp_path: Path) -> None:
    """Each ends with a check that all targets were updated."""
    pytest.importorskip(library, reason="install fastnoise[integrations]")
    if library == "transformers":
        pytest.importorskip("accelerate", reason="install fastnoise[integrations]")
    code = _manual.block(library, "python")
    assert "assert" in code
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert library != "transformers" or (tmp_path / "trained" / "loss.pt").exists()
