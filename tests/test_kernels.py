"""The Triton kernels without a GPU: run by the interpreter, and compiled ahead of time for three architectures."""

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from _interpret import interpret
from _loss_cases import CASES, DTYPES, ONE_PER_OP, RULES, STATEFUL, Errors, assert_close, build

triton = pytest.importorskip("triton", reason="needs triton")
from _ahead import ARCHITECTURES, compile_ahead, spilled  # noqa: E402
from fastnoise.kernels import row, rules  # noqa: E402

from fastnoise.ops.registry import OPS, FusedOp  # noqa: E402

Case = tuple[str, int, str, int]

# 2 to 100: several rows per program, the last one partly filled by 9 rows; 1000: one row. Rows of 100 held in blocks of
# 32 are looped over with a ragged end; 4097 is looped over as it is, one column more than MAX_BLOCK.
USUAL: list[Case] = [
    *product(RULES, (10,), ("float32",), (row.MAX_BLOCK,)),
    *product(ONE_PER_OP, (2,), ("float32",), (row.MAX_BLOCK,)),
    *product(ONE_PER_OP, (3, 14), ("bfloat16",), (row.MAX_BLOCK,)),
    *product(ONE_PER_OP, (100,), ("float32", "float16"), (32,)),
    *product(("nce", "elr_plus", "nal-code"), (1000,), ("float32",), (row.MAX_BLOCK,)),
    *product(("ce", "elr"), (4097,), ("float32",), (row.MAX_BLOCK,)),
]
WITH_LABELS = [rule for rule in ONE_PER_OP if rule != "ce-soft"]
GRID: list[Case] = [
    *product(RULES, (2, 3, 10, 14, 100, 1000, 4097, 21841), DTYPES, (row.MAX_BLOCK,)),
    *product(RULES, (14, 100, 1000), DTYPES, (16, 32)),
]


def run_cases(cases: list[Case], invalid: Sequence[str]) -> dict:
    names = ("rule", "num_classes", "dtype", "max_block")
    request = {"measure": [dict(zip(names, case, strict=True)) for case in cases], "invalid": invalid}
    return interpret("_interpreter_cases.py", request)


@pytest.fixture(scope="module")
def interpreted() -> dict:
    return run_cases(USUAL, WITH_LABELS)


@pytest.mark.parametrize("number", range(len(USUAL)), ids=["-".join(map(str, case)) for case in USUAL])
def test_matches_reference(interpreted: dict, number: int) -> None:
    assert_close(Errors(**interpreted["measure"][number]), USUAL[number][2], USUAL[number][0])


@pytest.mark.slow
def test_matches_reference_everywhere() -> None:
    for case, errors in zip(GRID, run_cases(GRID, [])["measure"], strict=True):
        assert_close(Errors(**errors), case[2], case[0])


@pytest.mark.parametrize("rule", WITH_LABELS)
def test_out_of_range_yields_nan_and_writes_nothing(interpreted: dict, rule: str) -> None:
    found = interpreted["invalid"][rule]
    stateful = rule in STATEFUL
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


def op_of(rule: str) -> FusedOp:
    return OPS[CASES[rule][0] if rule in CASES else rule]


def compiled(rule: str, num_classes: int, dtype: str, arch: int) -> Any:
    """The kernel as `launch` would run it on that architecture, from aligned tensors."""
    op = op_of(rule)
    parts = getattr(rules, op.name.upper())
    rows, block, num_warps = row.geometry(num_classes)
    logits = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16"}[dtype]
    types = {"logits_BC": logits, "loss_B": "*fp32", "dlogits_BC": logits, "num_rows": "i32", "num_samples": "i32"}
    for name, (parameter, kind) in {
        "labels": ("labels_B", "*i64"),
        "index": ("index_B", "*i64"),
        "columns": ("index_B", "*i64"),
        "pair_labels": ("pair_labels_B", "*i64"),
        "pair_index": ("pair_index_B", "*i64"),
        "share": ("share_B", "*fp32"),
        "knobs": ("knobs_3", "*fp32"),
        "attention": ("attention_B", logits),
    }.items():
        if name in op.names:
            types[parameter] = kind
    if "attention" in op.names:
        types["dattention_B"] = logits
    if sources(op.names):
        types["targets_NC"] = "*fp32"
    if not op.loss:
        del types["loss_B"], types["dlogits_BC"]
    constants = {
        "C": num_classes,
        "PREPARE": parts.prepare,
        "PREPARE_MAX": parts.prepare_max,
        "UPDATE": parts.update,
        "GATE": parts.gate,
        "BLEND": parts.blend,
        "TERMS": parts.terms,
        "NUM_SUMS": parts.num_sums,
        "FINISH": parts.finish,
        "OPTIONS": options_of(rule),
        "STORE": True,
        "RANK": 0,
        "WORLD": 1,
        "SEED": 0,
        "ROWS": rows,
        "BLOCK": block,
    }
    return compile_ahead(row.fused_rows, types, constants, arch, num_warps, maxnreg=row.max_registers(num_warps))


def sources(names: Sequence[str]) -> int:
    """How many rows of targets, or what stands in their place, each row of logits reads."""
    return ("targets" in names) + ("soft_labels" in names) + ("columns" in names) + ("pair_index" in names)


def options_of(rule: str) -> tuple[Any, ...]:
    """The op's options as the module gives them."""
    module = build(rule, 9, 10) if rule in CASES else None
    return module.form[1] if hasattr(module, "form") else ()


def check(rule: str, num_classes: int, dtype: str, arch: int, folder: Path) -> None:
    """Reads and writes its row once, in vectors where the rows' alignment allows them, and keeps it in registers."""
    kernel = compiled(rule, num_classes, dtype, arch)
    op = op_of(rule)
    rows, block, num_warps = row.geometry(num_classes)
    if block >= num_classes:
        # Bytes per thread that move in vectors of 8 or 16. Rows of 10 bf16 are aligned to 4 bytes and move 4 at a time,
        # as labels, indices and knobs do.
        elements = rows * block // (32 * num_warps)
        width = 4 if dtype == "float32" else 2
        of_logits = elements * width if num_classes * width % 8 == 0 else 0
        of_targets = elements * 4 if num_classes % 2 == 0 else 0
        moved = {"ld": 0, "st": 0}
        for kind, lanes, bits in re.findall(r"(ld|st)\.global\S*?\.v([24])\.b(\d+)", kernel.asm["ptx"]):
            moved[kind] += int(lanes) * int(bits) // 8
        assert moved["ld"] == of_logits + sources(op.names) * of_targets
        assert moved["st"] == of_logits * op.loss + op.updates_table * of_targets
    if num_classes % 8 == 0:
        assert re.search(r"ld\.global\S*\.v4\.b32", kernel.asm["ptx"])
    assert spilled(kernel, folder) == {"STACK": 0, "LOCAL": 0}


AHEAD = list(product((*ONE_PER_OP, "nal-code-reverse", "ema"), (10, 100, 1000, 4096, 9000)))
# sm_80: A100, sm_90: H100, sm_100: B200. By default each pair meets one dtype and one architecture, in turn.
TARGETS = list(product(DTYPES, ARCHITECTURES))


@pytest.mark.parametrize("number", range(len(AHEAD)), ids=["-".join(map(str, pair)) for pair in AHEAD])
def test_compiles_ahead_of_time(number: int, tmp_path: Path) -> None:
    check(*AHEAD[number], *TARGETS[number % len(TARGETS)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 10, 14, 100, 1000, 2048, 4097, 8192, 9000, 21841])
@pytest.mark.parametrize("rule", [*RULES, "ema"])
def test_compiles_ahead_of_time_everywhere(rule: str, num_classes: int, tmp_path: Path) -> None:
    for dtype, arch in TARGETS:
        check(rule, num_classes, dtype, arch, tmp_path)
