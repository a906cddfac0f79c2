"""Shared by all tests: marks that decide what runs where, and small helpers."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Real data beside the checkout, where a developer has it; nothing may depend on it."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    import torch

    chosen = config.getoption("-m")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("slow") and "slow" not in chosen and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="exhaustive; run with --slow"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the exhaustive grids too")


@pytest.fixture
def run_fastnoise(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call the command line in a process of its own, in an empty folder, and return what it said."""

    def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fastnoise.cli", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "COLUMNS": "120"},
            check=False,
            **options,  # type: ignore[call-overload]
        )

    return run
