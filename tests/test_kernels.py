"""The Triton kernels without a GPU: run by the interpreter, and compiled ahead of time for three architectures."""

import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from _loss_cases import DTYPES, RULES, Errors, assert_close

triton = pytest.importorskip("triton", reason="needs triton")
from fastnoise.kernels import row, rules  # noqa: E402

from fastnoise.ops.registry import OPS  # noqa: E402

TESTS = Path(__file__).parent
Case = tuple[str, int, str, int]

# 2 to 100: several rows per program, the last one partly filled by 9 rows; 1000: one row. Rows of 100 held in blocks of
# 32 are looped over with a ragged end; 9000 is looped over as it is, 9000 columns being more than MAX_BLOCK.
USUAL: list[Case] = [
    *product(RULES, (2, 10), ("float32",), (row.MAX_BLOCK,)),
    *product(RULES, (14, 100), ("bfloat16",), (row.MAX_BLOCK,)),
    *product(RULES, (100,), ("float32", "float16"), (32,)),
    *product(RULES, (1000,), ("float32",), (row.MAX_BLOCK,)),
    *product(("swce", "elr", "nal-code"), (9000,), ("float32",), (row.MAX_BLOCK,)),
]
GRID: list[Case] = [
    *product(RULES, (2, 10, 14, 100, 1000, 9000), DTYPES, (row.MAX_BLOCK,)),
    *product(RULES, (14, 100, 1000), DTYPES, (16, 32)),
]


def interpret(cases: list[Case], invalid: list[str]) -> dict:
    names = ("rule", "num_classes", "dtype", "max_block")
    request = {"measure": [dict(zip(names, case, strict=True)) for case in cases], "invalid": invalid}
    done = subprocess.run(
        [sys.executable, str(TESTS / "_interpreter_cases.py")],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def interpreted() -> dict:
    return interpret(USUAL, list(RULES))


@pytest.mark.parametrize("number", range(len(USUAL)), ids=["-".join(map(str, case)) for case in USUAL])
def test_matches_reference(interpreted: dict, number: int) -> None:
    assert_close(Errors(**interpreted["measure"][number]), USUAL[number][2])


@pytest.mark.slow
def test_matches_reference_everywhere() -> None:
    for case, errors in zip(GRID, interpret(GRID, [])["measure"], strict=True):
        assert_close(Errors(**errors), case[2])


@pytest.mark.parametrize("rule", RULES)
def test_out_of_range_yields_nan_and_writes_nothing(interpreted: dict, rule: str) -> None:
    found = interpreted["invalid"][rule]
    stateful = "targets" in OPS[rule.partition("-")[0]].names
    bad = [2, 5] if stateful else [2]
    assert found["loss"] == found["gradient"] == bad
    assert found["partial"] == len(bad)
    assert found["written"] == (found["expected"] if stateful else [])


def test_every_op_has_a_rule() -> None:
    assert {name for name in vars(rules) if isinstance(getattr(rules, name), rules.Rule)} == {op.upper() for op in OPS}


@pytest.mark.parametrize("num_classes", [2, 10, 16, 17, 100, 128, 129, 1000, 4096, 8192, 8193, 21841, 10**6])
def test_geometry(num_classes: int) -> None:
    rows, block, num_warps = row.geometry(num_classes)
    assert all(value & (value - 1) == 0 for value in (rows, block, num_warps))
    assert rows == 1 or block >= num_classes, "only whole rows share a program"
    assert 8 <= rows <= 64 if num_classes <= 128 else rows <= 4
    assert rows * block / (32 * num_warps) <= 16, "elements per thread"


def compiled(rule: str, num_classes: int, dtype: str, arch: int):
    """The kernel as `launch` would run it on that architecture, from aligned tensors."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    name, _, variant = rule.partition("-")
    parts = getattr(rules, name.upper())
    rows, block, num_warps = row.geometry(num_classes)
    logits = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16"}[dtype]
    types = dict.fromkeys(row.fused_rows.arg_names, "constexpr")
    types |= {"logits_BC": logits, "labels_B": "*i64", "loss_B": "*fp32", "dlogits_BC": logits}
    types |= {"num_rows": "i32", "num_samples": "i32"}
    if "targets" in OPS[name].names:
        types |= {"index_B": "*i64", "targets_NC": "*fp32", "knobs_3": "*fp32"}
    if "attention" in OPS[name].names:
        types |= {"attention_B": logits, "dattention_B": logits}
    constants = {argument: None for argument, kind in types.items() if kind == "constexpr"}
    constants |= {"C": num_classes, "ROWS": rows, "BLOCK": block, "VARIANT": bool(variant), "NUM_SUMS": parts.num_sums}
    constants |= {"PREPARE": parts.prepare, "UPDATE": parts.update, "SUMS": parts.sums}
    constants |= {"FINISH": parts.finish, "SLOPE": parts.slope}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind.startswith("*")}
    return triton.compile(
        ASTSource(row.fused_rows, types, constants, aligned),
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": num_warps, "enable_fp_fusion": True},
    )


def check(rule: str, num_classes: int, dtype: str, arch: int, folder: Path) -> None:
    """Reads and writes its row once, in vectors where the rows' alignment allows them, and keeps it in registers.

    ptxas may give up a few registers to fit another block on the processor (8 to 32 bytes were seen, depending on its
    version); a row that does not fit spills hundreds (288 for NAL in a block of 16,384).
    """
    kernel = compiled(rule, num_classes, dtype, arch)
    rows, block, num_warps = row.geometry(num_classes)
    if block >= num_classes:
        # Bytes per thread that move in vectors of 8 or 16. Rows of 10 bf16 are aligned to 4 bytes and move 4 at a time,
        # as labels, indices and knobs do.
        moved = {"ld": 0, "st": 0}
        for kind, lanes, bits in re.findall(r"(ld|st)\.global\S*?\.v([24])\.b(\d+)", kernel.asm["ptx"]):
            moved[kind] += int(lanes) * int(bits) // 8
        widths = [4 if dtype == "float32" else 2, *([4] if "targets" in OPS[rule.partition("-")[0]].names else [])]
        elements = rows * block // (32 * num_warps)
        expected = sum(elements * width for width in widths if num_classes * width % 8 == 0)
        assert moved == {"ld": expected, "st": expected}
    if num_classes % 8 == 0:
        assert re.search(r"ld\.global\S*\.v4\.b32", kernel.asm["ptx"])

    cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not cuobjdump.exists():
        pytest.skip("this Triton ships no cuobjdump: spills not checked")
    binary = folder / f"{rule}-{num_classes}-{dtype}-{arch}.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    usage = subprocess.run([cuobjdump, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    spilled = {kind: int(size) for kind, size in re.findall(r"(STACK|LOCAL):(\d+)", usage)}
    assert spilled["LOCAL"] == 0, usage
    assert spilled["STACK"] <= 32, usage


AHEAD = list(product(RULES, (10, 100, 1000, 9000)))
# sm_80: A100, sm_90: H100, sm_100: B200. By default each pair meets one dtype and one architecture, in turn.
TARGETS = list(product(DTYPES, (80, 90, 100)))


@pytest.mark.parametrize("number", range(len(AHEAD)), ids=["-".join(map(str, pair)) for pair in AHEAD])
def test_compiles_ahead_of_time(number: int, tmp_path: Path) -> None:
    check(*AHEAD[number], *TARGETS[number % len(TARGETS)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 10, 14, 100, 1000, 8192, 9000, 21841])
@pytest.mark.parametrize("rule", RULES)
def test_compiles_ahead_of_time_everywhere(rule: str, num_classes: int, tmp_path: Path) -> None:
    for dtype, arch in TARGETS:
        check(rule, num_classes, dtype, arch, tmp_path)
