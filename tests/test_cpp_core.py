"""Compiles and runs csrc/tests/test_core.cpp: the C++ core on its own, for every instruction set, and sanitized."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fastnoise import _C
from fastnoise.noise import corrupt

CSRC = Path(__file__).resolve().parents[1] / "csrc"
COMPILER = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
SANITIZED = ["-O1", "-g", "-fno-sanitize-recover=all"]
BUILDS = {
    "plain": ["-O2", "-Wall", "-Wextra", "-Werror"],
    "address-undefined": [*SANITIZED, "-fsanitize=address,undefined"],
    "thread": [*SANITIZED, "-fsanitize=thread"],
}
LEVELS = ("generic", "avx2", "avx512")
AVAILABLE = LEVELS[: LEVELS.index(_C.simd_level()) + 1]


def compile_cpp(sources: list[Path], program: Path, flags: list[str]) -> str:
    """Compile the sources on all cores and link them; what the compiler says if it fails, else ""."""
    assert COMPILER is not None
    common = [COMPILER, "-std=c++17", "-pthread", f"-I{CSRC}", *flags]

    def call(*words: Path | str) -> str:
        ended = subprocess.run([*common, *map(str, words)], capture_output=True, text=True, timeout=600)
        return ended.stderr or f"{COMPILER} ended with {ended.returncode}" if ended.returncode else ""

    objects = [program.with_name(f"{program.name}-{source.stem}.o") for source in sources]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        said = [*pool.map(lambda source, to: call("-c", source, "-o", to), sources, objects)]
    return next(filter(None, said), "") or call(*objects, "-o", program)


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++, c++ or clang++) found")
@pytest.mark.parametrize(
    "build", [pytest.param(build, marks=() if build == "plain" else pytest.mark.sanitizers) for build in BUILDS]
)
def test_core(tmp_path: Path, build: str):
    flags = BUILDS[build]
    # A preloaded library would stand before the sanitizer's own, which it refuses.
    environment = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "FASTNOISE_FORCE_ISA")}
    if build != "plain":
        (tmp_path / "empty.cpp").write_text("int main() {}\n")
        if compile_cpp([tmp_path / "empty.cpp"], tmp_path / "empty", flags):
            pytest.skip(f"the compiler's {build} sanitizers aren't installed")
        if subprocess.run([tmp_path / "empty"], capture_output=True, env=environment).returncode:
            pytest.skip(f"the {build} sanitizers don't run on this system")
    program = tmp_path / "test_core"
    said = compile_cpp([CSRC / "tests/test_core.cpp", *sorted((CSRC / "core").glob("*.cpp"))], program, flags)
    assert not said, said
    for level in (None, *AVAILABLE) if build == "plain" else (None,):
        forced = {} if level is None else {"FASTNOISE_FORCE_ISA": level}
        ran = subprocess.run([program], capture_output=True, text=True, timeout=300, env=environment | forced)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        used, last = ran.stdout.splitlines()
        assert last == "all checks passed"
        assert used == (level or used)


def run_with(level: str, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FASTNOISE_FORCE_ISA": level}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)


HASHES = """
import numpy as np
from fastnoise import _C
from fastnoise.noise import corrupt
print(_C.active_isa())
labels = np.arange(100_003) % 10
for spec in ("symmetric:0.4", "symmetric:0.7,true_class=included", "asymmetric:0.4,map=cifar10", "pair:0.45"):
    print(corrupt(labels.astype("uint8"), spec, seed=7, num_classes=10).sha256)
"""


def test_forced_instruction_sets_run_and_agree():
    outputs = {}
    for level in AVAILABLE:
        ran = run_with(level, HASHES)
        assert ran.returncode == 0, ran.stderr
        used, *hashes = ran.stdout.split()
        assert used == level
        outputs[level] = hashes
    assert len(outputs["generic"]) == 4
    assert all(hashes == outputs["generic"] for hashes in outputs.values())


@pytest.mark.parametrize("level", ["sse9", "AVX2", "avx\n512", *(set(LEVELS) - set(AVAILABLE))])
def test_impossible_instruction_sets_are_refused(level: str):
    code = (
        "from fastnoise.errors import ConfigError\n"
        "from fastnoise.noise import corrupt\n"
        "try: corrupt([0, 1], 'pair:0.4', seed=0, num_classes=2)\n"
        "except ConfigError as error: print(error)"
    )
    ran = run_with(level, code)
    assert ran.returncode == 0, ran.stderr
    shown = level.replace("\n", "?")
    assert ran.stdout == f"FASTNOISE_FORCE_ISA is '{shown}': this machine has {', '.join(AVAILABLE)}\n"


@pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump to disassemble the extension with")
@pytest.mark.skipif(_C.simd_level() == "generic", reason="the wide loops are for x86-64 alone")
def test_wide_instructions_stay_in_their_loops():
    """What a processor without them could run into holds none, and the wide loops do hold them."""
    disassembly = subprocess.run(["objdump", "-dC", _C.__file__], capture_output=True, text=True, timeout=300).stdout
    wide: dict[str, set[str]] = {"generic": set(), "avx2": set(), "avx512": set(), "other": set()}
    where = "other"
    for line in disassembly.splitlines():
        if line.endswith(">:"):
            where = next((level for level in LEVELS if f"fastnoise::{level}::" in line), "other")
        wide[where] |= {name for name in ("ymm", "zmm") if f"%{name}" in line}
    assert wide["generic"] == wide["other"] == set()
    assert wide["avx2"] == {"ymm"}
    assert "zmm" in wide["avx512"]


def uniform_matrix(num_classes: int) -> np.ndarray:
    """Every class keeps its label with probability 0.6, and 0.4 go to the others in proportion to 1, 2, 3, ..."""
    others = 1.0 + np.arange(num_classes)[None] + np.zeros((num_classes, 1))
    np.fill_diagonal(others, 0)
    return 0.6 * np.eye(num_classes) + 0.4 * others / others.sum(1, keepdims=True)


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_matrix_draws_its_rows(num_classes: int):
    labels = (np.arange(1_000_000) % num_classes).astype(np.uint8)
    transition = uniform_matrix(num_classes)
    noisy = _C.corrupt_matrix(labels, transition, seed=3, threads=1)
    assert np.array_equal(noisy, _C.corrupt_matrix(labels.astype(np.int64), transition, seed=3, threads=7))
    counts = np.bincount(labels.astype(np.int64) * num_classes + noisy, minlength=num_classes**2)
    expected = (transition * np.bincount(labels)[:, None]).ravel()
    possible = expected > 0
    assert not counts[~possible].any()
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - num_classes
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def test_matrix_of_a_thousand_classes():
    shift = np.roll(np.eye(1000), 1, axis=1)
    labels = np.arange(5000) % 1000
    assert np.array_equal(_C.corrupt_matrix(labels, shift, seed=0, threads=2), (labels + 1) % 1000)


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("per_class", [False, True])
def test_quota(include: bool, per_class: bool):
    labels = np.arange(50_000) % 10
    common = {"num_classes": 10, "rate": 0.4, "seed": 5, "include_true_class": include, "per_class": per_class}
    noisy = _C.corrupt_quota(labels, threads=1, **common)
    assert np.array_equal(noisy, _C.corrupt_quota(labels.astype(np.uint8), threads=3, **common))
    flipped = noisy != labels
    if include:  # a tenth of the 20,000 draws its own class again: 2,000, give or take 5 x 42
        assert abs(flipped.sum() - 18_000) < 212
    elif per_class:
        assert np.array_equal(np.bincount(labels[flipped]), [2000] * 10)
    else:
        assert flipped.sum() == 20_000
        assert np.bincount(labels[flipped]).std() > 0
    offsets = np.bincount((noisy - labels)[flipped] % 10, minlength=10)[1:]
    assert abs(offsets - offsets.mean()).max() < 5 * np.sqrt(offsets.mean())


def test_quota_of_a_class_map_takes_the_lowest_draws():
    """Close to the quota's rate, the i.i.d. model with the same seed flips the same samples."""
    labels = np.arange(10_000) % 10
    class_map = [(label + 1) % 10 for label in range(10)]
    noisy = _C.corrupt_quota(
        labels,
        num_classes=10,
        rate=0.3,
        seed=5,
        threads=1,
        include_true_class=False,
        per_class=False,
        class_map=class_map,
    )
    flipped = noisy != labels
    assert flipped.sum() == 3000
    assert np.array_equal(noisy[flipped], (labels[flipped] + 1) % 10)
    for rate, contains in ((0.27, flipped), (0.33, ~flipped)):
        drawn = corrupt(labels, f"pair:{rate}", seed=5, num_classes=10).flipped
        assert contains[drawn if rate < 0.3 else ~drawn].all()


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (_C.TransitionError, lambda y: _C.corrupt_matrix(y, np.eye(10) * 1.01, seed=0, threads=1)),
        (_C.TransitionError, lambda y: _C.corrupt_matrix(y, np.full((10, 10), np.nan), seed=0, threads=1)),
        (ValueError, lambda y: _C.corrupt_matrix(y, np.eye(10)[:9], seed=0, threads=1)),
        (ValueError, lambda y: _C.corrupt_matrix(y, np.zeros((0, 0)), seed=0, threads=1)),
        (_C.LabelError, lambda y: _C.corrupt_matrix(y, np.eye(9), seed=0, threads=1)),
        (ValueError, lambda y: quota(y, rate=float("nan"))),
        (ValueError, lambda y: quota(y, num_classes=1)),
        (ValueError, lambda y: quota(y, class_map=[0, 1])),
        (ValueError, lambda y: quota(y, class_map=[10] * 10)),
        (ValueError, lambda y: quota(y, class_map=[0] * 10, include_true_class=True)),
        (_C.LabelError, lambda y: quota(y, num_classes=5)),
        (ValueError, lambda y: sweep(y, np.zeros((1, 1, 9), np.int64))),
        (ValueError, lambda y: sweep(y, np.zeros((1, 1, 10), np.uint64))),
        (ValueError, lambda y: sweep(y, np.zeros((1, 1, 20), np.int64)[..., ::2])),
        (ValueError, lambda y: sweep(y, y[None, None])),
        (ValueError, lambda y: sweep(y, np.broadcast_to(np.int64(0), (1, 1, 10)))),
        (ValueError, lambda y: sweep(y.astype(np.int8), np.zeros((1, 1, 10), np.int8), num_classes=129)),
        (ValueError, lambda y: sweep(y, np.zeros((1, 1, 10), np.int64), kind="other")),
        (ValueError, lambda y: sweep(y, np.zeros((1, 1, 10), np.int64), rates=[1.5])),
        (_C.LabelError, lambda y: sweep(y, np.zeros((1, 1, 10), np.int64), num_classes=5)),
    ],
)
def test_extension_refuses(error, call):
    with pytest.raises(error):
        call(np.arange(10))


def quota(labels: np.ndarray, **change) -> np.ndarray:
    arguments = {
        "num_classes": 10,
        "rate": 0.4,
        "seed": 0,
        "threads": 1,
        "include_true_class": False,
        "per_class": True,
    }
    return _C.corrupt_quota(labels, **{**arguments, **change})


def sweep(labels: np.ndarray, out: np.ndarray, **change) -> None:
    arguments = {"num_classes": 10, "rates": [0.4], "seeds": [0], "kind": "pair", "threads": 1}
    _C.corrupt_sweep(labels, out, **{**arguments, **change})
