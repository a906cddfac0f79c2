"""Compiles Triton kernels for a GPU that is not there and reads what the binary says of itself."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastnoise.benchmarks.instructions import compile_ahead, compile_op, disassemble, tool

__all__ = ["ARCHITECTURES", "compile_ahead", "compile_op", "spilled"]
ARCHITECTURES = (80, 90, 100)  # A100, H100, B200


def spilled(kernel: Any, folder: Path) -> dict[str, int]:
    """Bytes of stack and local memory per thread."""
    if tool() is None:
        pytest.skip("this Triton ships no cuobjdump: spills not checked")
    return {
        kind: int(size) for kind, size in re.findall(r"(STACK|LOCAL):(\d+)", disassemble(kernel, "-res-usage", folder))
    }
