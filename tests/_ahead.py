"""Compiles Triton kernels for a GPU that is not there and reads what the binary says of itself."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ARCHITECTURES = (80, 90, 100)  # A100, H100, B200


def compile_ahead(
    kernel: Any, types: dict[str, str], constants: dict[str, object], arch: int, num_warps: int, **options: object
) -> Any:
    """The kernel for that architecture, from aligned tensors; a parameter in neither dictionary is None."""
    types = dict.fromkeys(kernel.arg_names, "constexpr") | types
    constants = {name: None for name, kind in types.items() if kind == "constexpr"} | constants
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind.startswith("*")}
    options |= {"num_warps": num_warps, "enable_fp_fusion": True}
    return triton.compile(
        ASTSource(kernel, types, constants, aligned), target=GPUTarget("cuda", arch, 32), options=options
    )


def spilled(kernel: Any, folder: Path) -> dict[str, int]:
    """Bytes of stack and local memory per thread."""
    cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not cuobjdump.exists():
        pytest.skip("this Triton ships no cuobjdump: spills not checked")
    binary = folder / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    usage = subprocess.run([cuobjdump, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    return {kind: int(size) for kind, size in re.findall(r"(STACK|LOCAL):(\d+)", usage)}
