"""Compiles and runs csrc/tests/test_core.cpp: the C++ core on its own, with and without sanitizers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[1] / "csrc"
COMPILER = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
PLAIN = ["-O2", "-Wall", "-Wextra", "-Werror"]
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def compile_cpp(sources: list[Path], program: Path, flags: list[str]) -> subprocess.CompletedProcess[str]:
    assert COMPILER is not None
    command = [COMPILER, "-std=c++17", "-pthread", f"-I{CSRC}", *flags, *map(str, sources), "-o", str(program)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++, c++ or clang++) found")
@pytest.mark.parametrize("flags", [PLAIN, SANITIZED], ids=["plain", "sanitized"])
def test_core(tmp_path: Path, flags: list[str]):
    if flags is SANITIZED:
        (tmp_path / "empty.cpp").write_text("int main() {}\n")
        if compile_cpp([tmp_path / "empty.cpp"], tmp_path / "empty", flags).returncode:
            pytest.skip("the compiler's address and undefined-behaviour sanitizers aren't installed")
    program = tmp_path / "test_core"
    compiled = compile_cpp([CSRC / "tests/test_core.cpp", *sorted((CSRC / "core").glob("*.cpp"))], program, flags)
    assert compiled.returncode == 0, compiled.stderr
    # A preloaded library would stand before the sanitizer's own, which it refuses.
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    ran = subprocess.run([program], capture_output=True, text=True, timeout=300, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout == "all checks passed\n"
