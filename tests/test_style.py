"""Formatting, lint and types, where the tools are installed (they come with the extra `test`)."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join
)
def test_clean(command: list[str]) -> None:
    beside = Path(sys.executable).with_name(command[0])
    tool = str(beside) if beside.exists() else shutil.which(command[0])
    if tool is None:
        pytest.skip(f"{command[0]} is not installed")
    result = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


COMPARISONS = {"allclose", "equal", "array_equal", "isclose", "is_contiguous"}


def test_no_comparison_is_thrown_away() -> None:
    """A bare `torch.allclose(a, b)` in a test asserts nothing; nor does `assert abs(a - b < tolerance)`."""
    for path in sorted((ROOT / "tests").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                name = getattr(node.value.func, "attr", getattr(node.value.func, "id", ""))
                assert name not in COMPARISONS, f"{where}: the result of {name} is thrown away"
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "abs":
                assert not any(isinstance(word, ast.Compare) for word in node.args), f"{where}: abs of a comparison"
