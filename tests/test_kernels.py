"""The Triton kernels without a GPU: run by the interpreter, and compiled ahead of time for three architectures."""

import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from _interpret import interpret
from _loss_cases import (
    CASES,
    DTYPES,
    ONE_PER_OP,
    RULES,
    STATEFUL,
    UPDATES,
    Errors,
    assert_close,
    assert_saturated,
    build,
)

triton = pytest.importorskip("triton", reason="needs triton")
from _ahead import ARCHITECTURES, compile_op, spilled  # noqa: E402
from fastnoise.benchmarks import instructions, record  # noqa: E402
from fastnoise.benchmarks.instructions import count, disassemble, tool  # noqa: E402
from fastnoise.kernels import counters, row, rules  # noqa: E402

from fastnoise.ops.registry import OPS, FusedOp  # noqa: E402

Case = tuple[str, int, str, int | str | None]

# 2 to 70: several rows per program, the last one partly filled by 9 rows; 1000: one row. Rows of 70 in blocks of 32 are
# a first, a middle and a ragged last one, looped over or held; 4097 is looped over as it is.
USUAL: list[Case] = [
    *product(RULES, (10,), ("float32",), (None,)),
    *product(ONE_PER_OP, (2,), ("float32",), (None,)),
    *product(("nal", "nal-reverse", "nal-code-reverse"), (3,), ("float32",), (None,)),
    *product(ONE_PER_OP, (3, 14), ("bfloat16",), (None,)),
    *product(ONE_PER_OP, (70,), ("float32", "float16"), (32,)),
    *product(("nce", "elr_plus", "nal-code"), (1000,), ("float32",), (None,)),
    *product(("ce", "elr"), (4097,), ("float32",), (None,)),
    *product(ONE_PER_OP, (70,), ("float32", "bfloat16"), ("held-32",)),
    *product(("ce", "elr", "swce", "nal-code"), (4097,), ("bfloat16",), ("held",)),
]
WITH_LABELS = [rule for rule in ONE_PER_OP if rule != "ce-soft"]
# Columns, by the columns per stretch. Of long rows two suffice: each is a program of its own.
GRID = [*product((2, 3, 10, 14, 100, 1000, 4097, 21841), (None,)), *product((14, 100), (16, 32)), (1000, 32)]


# Rows of 10, held whole and looped over in stretches of 4.
SATURATED = [*product(RULES, ("float32",), (None,)), *product(ONE_PER_OP, ("float32",), (4, "held-4"))]


# Columns, rows, the last row's label and the one that is ignored. 9 rows of 10 columns are 3 programs and 600 are 150,
# more than the last one adds at once; labels of 3 may be ignored, and one of 10 is out of range.
FOLDED = [
    *product(ONE_PER_OP, (10,), (9,), (None,), (None,)),
    *product(("ce", "nal"), (10,), (9,), (3,), (None, 3)),
    *product(("elr", "swce"), (10,), (9,), (10,), (None,)),
    *product(("ce", "nal"), (2,), (9,), (None,), (None,)),
    *product(("nal",), (1000,), (3,), (None,), (None,)),
    *product(("ce",), (10,), (0, 1, 600), (None,), (None,)),
    ("elr", 4097, 2, None, None),
]

# By the columns per stretch, and whether the table is of half precision.
NOT_FINITE = [
    *product((*ONE_PER_OP, "ema"), (None, 4, "held-4"), (False,)),
    *product(("elr", "selc", "nal", "nal-code", "ema"), (None, 4, "held-4"), (True,)),
]


def run_cases(
    cases: Sequence[Case],
    saturated: Sequence[tuple[str, str, int | str | None]] = (),
    invalid: Sequence[str] = (),
    folded: Sequence[tuple[str, int, int, int | None, int | None]] = (),
    not_finite: Sequence[tuple[str, int | str | None, bool]] = (),
) -> dict:
    names = ("rule", "num_classes", "dtype", "stretch")
    request = {
        "measure": [
            dict(zip(names, case, strict=True))
            # Without a table, one step knows nothing of the one before.
            | {"batch": 9 if case[1] <= 1000 else 2, "steps": len(UPDATES) if case[0] in STATEFUL else 2}
            for case in cases
        ],
        "saturated": [dict(zip(("rule", "dtype", "stretch"), case, strict=True)) for case in saturated],
        "invalid": invalid,
        "folded": folded,
        "not_finite": not_finite,
    }
    return interpret("_interpreter_cases.py", request)


@pytest.fixture(scope="module")
def interpreted() -> dict:
    return run_cases(USUAL, SATURATED, WITH_LABELS, FOLDED, NOT_FINITE)


@pytest.mark.parametrize("number", range(len(USUAL)), ids=["-".join(map(str, case)) for case in USUAL])
def test_matches_reference(interpreted: dict, number: int) -> None:
    assert_close(Errors(**interpreted["measure"][number]), USUAL[number][2], interpreted=True)


@pytest.mark.slow
@pytest.mark.parametrize(("num_classes", "stretch"), GRID)
def test_matches_reference_everywhere(num_classes: int, stretch: int | None) -> None:
    cases = list(product(RULES, (num_classes,), DTYPES, (stretch,)))
    for case, errors in zip(cases, run_cases(cases)["measure"], strict=True):
        assert_close(Errors(**errors), case[2], interpreted=True)


@pytest.mark.parametrize("number", range(len(SATURATED)), ids=["-".join(map(str, case)) for case in SATURATED])
def test_saturated_rows(interpreted: dict, number: int) -> None:
    """Finite, and within 4 times autograd's own error, for logits up to 1e4, p_y = 0 and 1, and equal rows."""
    assert_saturated(interpreted["saturated"][number])


@pytest.mark.slow
def test_saturated_rows_everywhere() -> None:
    for found in run_cases([], list(product(RULES, DTYPES, (None, 4))))["saturated"]:
        assert_saturated(found)


@pytest.mark.parametrize("rule", WITH_LABELS)
def test_out_of_range_yields_nan_and_writes_nothing(interpreted: dict, rule: str) -> None:
    found = interpreted["invalid"][rule]
    stateful = rule in STATEFUL
    bad = [2, 5] if stateful else [2]
    assert found["loss"] == found["gradient"] == bad
    assert found["partial"] == len(bad)
    assert found["written"] == (found["expected"] if stateful else [])


@pytest.mark.parametrize("number", range(len(FOLDED)), ids=["-".join(map(str, case)) for case in FOLDED])
def test_means_and_sums_are_folded(interpreted: dict, number: int) -> None:
    rule, num_classes, num_rows, last_label, ignored = FOLDED[number]
    found, losses = interpreted["folded"][number], interpreted["folded"][number]["losses"]
    numbers = num_rows * num_classes
    flat = [numbers + num_rows] if rule.startswith("nal") else [num_rows, num_classes]
    assert found["shapes"] == [[num_rows], [], [], flat]
    assert found["dtypes"] == ["torch.float32"]
    assert found["gradients"] == [True, True]
    assert found["arrived"] == 0
    expected = math.fsum(losses)
    assert found["sum"] == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert found["mean"] == pytest.approx(expected / num_rows if num_rows else math.nan, rel=1e-6, nan_ok=True)
    assert math.isnan(expected) == (last_label == 10)
    assert (0.0 in losses) == (ignored is not None)


@pytest.mark.parametrize("number", range(len(NOT_FINITE)), ids=["-".join(map(str, case)) for case in NOT_FINITE])
def test_rows_that_are_not_finite_leave_their_targets_alone(interpreted: dict, number: int) -> None:
    """NaN or +inf among a row's logits, in nal also as its attention logit; -inf is a masked class."""
    rule, _, half = NOT_FINITE[number]
    found = interpreted["not_finite"][number]
    nal = rule.startswith("nal")
    bad = {0, 1, 3} | ({5, 6} if nal else set())
    labelled = rule not in ("ema", "ce-soft")
    closed = {7} if rule == "nal" else set()  # its tau is 0, which its gate keeps out, and -log tau infinite
    visited = set(range(9)) - bad - {8} if nal or rule in ("elr", "selc", "ema", "sop") else set()
    assert set(found["written"]) == visited - closed
    assert set(found["visited"]) == (visited if half else set())
    if rule != "ema":
        bad |= set() if labelled else {8}
        assert set(found["loss"]) == bad | closed
        assert set(found["gradient"]) == bad
        assert (8 in found["zero"]) == labelled


def test_every_op_has_a_rule() -> None:
    assert {name for name in vars(rules) if isinstance(getattr(rules, name), rules.Rule)} == {op.upper() for op in OPS}


@pytest.mark.parametrize("num_classes", [2, 10, 16, 17, 100, 128, 129, 1000, 4096, 8192, 8193, 21841, 10**6])
def test_geometry(num_classes: int) -> None:
    rows, block, num_warps = row.geometry(num_classes)
    assert all(value & (value - 1) == 0 for value in (rows, block, num_warps))
    assert rows == 1 or block >= num_classes, "only whole rows share a program"
    assert num_warps == 1 if num_classes <= 512 else rows == 1, "many small programs"
    assert rows <= (16 if num_classes <= 4 else 4 if num_classes <= 100 else 1)
    assert rows * block / (32 * num_warps) <= 16, "elements per thread"


# Of the one kernel for a mean: instructions per warp or of a row, and registers.
LIMITS = {
    "elr": {10: (420, "warp", 255), 100: (520, "warp", 255), 1000: (2200, "row", 168)},
    "swce": {10: (280, "warp", 255), 100: (330, "warp", 255), 1000: (1450, "row", 168)},
    "nal": {10: (800, "warp", 255), 100: (1100, "warp", 255), 1000: (5800, "row", 168)},
}


@pytest.mark.parametrize("num_classes", [10, 100, 1000, 21841])
@pytest.mark.parametrize("rule", LIMITS)
def test_instructions(rule: str, num_classes: int) -> None:
    """What `benchmarks.instructions` counts for sm_90 stays within what was reached; ptxas differs by version."""
    version = ".".join(triton.__version__.split(".")[:2])
    if tool() is None or version not in ("3.6", "3.8"):
        pytest.skip("counted with Triton 3.6 and 3.8, by the cuobjdump that they ship")
    found = count(rule, 64, num_classes)
    assert found.stack == 0
    if num_classes == 21841:
        assert found.warps == (16 if rule == "elr" else 8)
        assert found.registers <= 128
        assert found.logit_loops <= 3
    else:
        most, unit, registers = LIMITS[rule][num_classes]
        assert (found.instructions if unit == "warp" else found.of_a_row) <= most
        assert found.registers <= registers
        assert found.programs >= (16 if num_classes == 10 else 64)


def test_options_that_nobody_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new op is counted without a change of the benchmark."""
    monkeypatch.setattr(instructions, "OPTIONS", {"gce": (0.7, 0.1)})
    found = {name: instructions.options_of(OPS[name]) for name in ("gce", "ce", "nal")}
    assert found == {"gce": (0.7, 0.1), "ce": (), "nal": (False, 0.5, 0.5)}


def test_instructions_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This checkout as its own earlier one; a folder that is none is refused in one line."""
    if tool() is None:
        pytest.skip("this Triton ships no cuobjdump: instructions not counted")
    root = Path(__file__).resolve().parents[1]
    instructions.main(["--rules", "ema", "--before", str(root), "--output", str(tmp_path)])
    rows = record.read(tmp_path / "instructions.csv")
    assert {(row["rule"], row["columns"]) for row in rows} == {("ema", str(size)) for _, size in instructions.SIZES}
    assert all(int(row["instructions"]) > 50 and row["stack"] == "0" for row in rows)
    assert (tmp_path / "instructions.md").read_text().count("| ema | ") == len(instructions.SIZES)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        instructions.main(["--before", str(tmp_path), "--output", str(tmp_path)])
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_counters_are_shared_by_one_streams_launches_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one stream run in order; graphs may be replayed beside each other, so none shares its counter."""
    state = {"stream": 7, "capturing": False, "made": 0}

    def zeroed(count: int, device: torch.device) -> torch.Tensor:
        state["made"] += 1
        return torch.zeros(count, 4, dtype=torch.int32)

    monkeypatch.setattr(counters, "zeroed", zeroed)
    monkeypatch.setattr(counters, "lasting", zeroed)
    monkeypatch.setattr(counters, "of_streams", {})
    monkeypatch.setattr(counters, "of_graphs", {})
    monkeypatch.setattr(counters, "kept", [])
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state["capturing"])
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda _: state["stream"], raising=False)

    def take(stream: int, capturing: bool = False) -> int:
        state.update(stream=stream, capturing=capturing)
        found = counters.counter(torch.device("cuda", 0))
        assert int(found.abs().max()) == 0
        held.append(found)
        return found.data_ptr()

    held: list[torch.Tensor] = []
    outside = take(7, capturing=True)  # before any eager launch: made in the capture
    first, other = take(7), take(8)
    assert len({outside, first, other}) == 3
    assert [take(7), take(8)] == [first, other]
    made = state["made"]
    captured = {take(7, capturing=True) for _ in range(counters.POOL)}
    assert state["made"] == made
    assert len(captured) == counters.POOL
    assert not captured & {first, other}
    assert all(pointer % 16 == 0 for pointer in captured)
    take(7, capturing=True)
    assert state["made"] == made + 1
    assert take(7) == first
    assert state["made"] == made + 2, "an eager launch fills the pool again"
    memory = {row.data_ptr() for pool in counters.kept for row in pool}
    assert captured <= memory, "what graphs count with is never freed, though nothing else holds it"


def test_counters_are_made_outside_the_pool_of_the_threads_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the warm-up of torch.compile's CUDA graphs, PyTorch takes all that this thread allocates from their pool, and
    raises an error at what stays there; the memory must yet be that of this thread's stream."""
    found: dict[str, object] = {}
    device = torch.device("cuda", 0)

    @contextmanager
    def stream(given: object) -> Iterator[None]:
        found["stream"] = given
        yield
        found["over"] = threading.get_ident()

    def zeroed(count: int, device: torch.device) -> torch.Tensor:
        found["thread"] = threading.get_ident()
        return torch.zeros(count, 4, dtype=torch.int32)

    monkeypatch.setattr(counters, "zeroed", zeroed)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda given: ("stream of", given))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    assert counters.lasting(3, device).shape == (3, 4)
    assert found["stream"] == ("stream of", device)
    assert found["thread"] == found["over"] != threading.get_ident()


def test_the_gradient_of_no_rows_lies_as_the_fake_kernel_says() -> None:
    logits = torch.empty(5, 0).t()
    loss, gradient = row.launch(rules.CE, logits, torch.empty(0, dtype=torch.int64), reduction="mean")
    assert math.isnan(loss.item())
    assert (gradient.shape, gradient.stride()) == ((0, 5), (5, 1))


def op_of(rule: str) -> FusedOp:
    return OPS[CASES[rule][0] if rule in CASES else rule]


def sources(names: Sequence[str]) -> int:
    """How many rows of targets, or what stands in their place, each row of logits reads."""
    return ("targets" in names) + ("soft_labels" in names) + ("columns" in names) + ("pair_index" in names)


def options_of(rule: str) -> tuple[Any, ...]:
    """The op's options as the module gives them."""
    module = build(rule, 9, 10) if rule in CASES else None
    return module.form[1] if hasattr(module, "form") else ()


def check(rule: str, num_classes: int, dtype: str, arch: int, folder: Path) -> None:
    """Reads and writes its row once, in vectors where the rows' alignment allows them, and keeps it in registers."""
    op = op_of(rule)
    kernel = compile_op(op, getattr(rules, op.name.upper()), options_of(rule), num_classes, dtype, arch)
    given = row.constants(num_classes, rule=getattr(rules, op.name.upper()))
    if given["BLOCK"] >= num_classes:
        # Bytes per thread that move in vectors of 8 or 16. Rows of 10 bf16 are aligned to 4 bytes and move 4 at a time,
        # as labels, indices and knobs do.
        elements = given["ROWS"] * given["BLOCK"] // (32 * given["num_warps"])
        width = 4 if dtype == "float32" else 2
        of_logits = elements * width if num_classes * width % 8 == 0 and elements * width >= 8 else 0
        of_targets = elements * 4 if num_classes % 2 == 0 else 0
        moved = {"ld": 0, "st": 0}
        for kind, lanes, bits in re.findall(r"(ld|st)\.global\S*?\.v([24])\.b(\d+)", kernel.asm["ptx"]):
            moved[kind] += int(lanes) * int(bits) // 8
        assert moved["ld"] == of_logits + sources(op.names) * of_targets
        assert moved["st"] == of_logits * op.loss + op.updates_table * of_targets
    if num_classes % 8 == 0:
        assert re.search(r"ld\.global\S*\.v4\.b32", kernel.asm["ptx"])
    assert spilled(kernel, folder) == {"STACK": 0, "LOCAL": 0}


AHEAD = [
    *product((*ONE_PER_OP, "nal-code-reverse", "ema"), (10, 100, 1000, 2048, 9000)),
    *product(("nal-code-reverse", "elr_plus"), (2, 3, 4)),  # in fp64
]
# sm_80: A100, sm_90: H100, sm_100: B200. By default each pair meets one dtype and one architecture, in turn.
TARGETS = list(product(DTYPES, ARCHITECTURES))


@pytest.mark.parametrize("number", range(len(AHEAD)), ids=["-".join(map(str, pair)) for pair in AHEAD])
def test_compiles_ahead_of_time(number: int, tmp_path: Path) -> None:
    check(*AHEAD[number], *TARGETS[number % len(TARGETS)], tmp_path)


def check_held(rule: str, dtype: str, arch: int, folder: Path, most_stack: int = 0) -> None:
    """A held row of 21,841 columns: its logits and targets are loaded once and stored once, and nothing spills."""
    op, num_classes = op_of(rule), 21841
    the_rule = getattr(rules, op.name.upper())
    kernel = compile_op(op, the_rule, options_of(rule), num_classes, dtype, arch, hold=True)
    given = row.constants(num_classes, rule=the_rule, hold=True)
    columns = given["SPAN"] // (32 * given["num_warps"])  # of a thread
    assert num_classes <= given["SPAN"] < num_classes + given["BLOCK"]
    moved = {kind: len(re.findall(rf"{kind}\.(?:volatile\.)?global", kernel.asm["ptx"])) for kind in ("ld", "st")}
    # Beside columns: label, index, knobs, the values at the label and at the top class; the loss.
    assert 0 < moved["ld"] - columns * (1 + sources(op.names)) <= 14
    assert 0 < moved["st"] - columns * (1 + op.updates_table) <= 2
    used = disassemble(kernel, "-res-usage", folder) if tool() is not None else ""
    for registers in re.findall(r"REG:(\d+)", used):
        assert int(registers) <= (255 if the_rule.terms is not None else 128)
    assert kernel.metadata.shared <= 1024
    found = spilled(kernel, folder)
    assert found["LOCAL"] == 0
    assert found["STACK"] <= most_stack


HELD_AHEAD = [("ce", "float32", 80), ("swce", "bfloat16", 100), ("elr", "bfloat16", 90)]


@pytest.mark.parametrize(("rule", "dtype", "arch"), HELD_AHEAD)
def test_held_rows_compile_ahead_of_time(rule: str, dtype: str, arch: int, tmp_path: Path) -> None:
    check_held(rule, dtype, arch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rule", ["ce", "swce", "elr"])
def test_held_rows_compile_ahead_of_time_everywhere(rule: str, dtype: str, arch: int, tmp_path: Path) -> None:
    check_held(rule, dtype, arch, tmp_path)


def test_which_rows_are_held() -> None:
    for num_classes in (10, 2048, 4096, 21841):
        given = row.constants(num_classes, rule=rules.ELR)
        assert given["SPAN"] == given["BLOCK"], "none by default, until a GPU has timed it"
    assert row.constants(2048, rule=rules.ELR, hold=True) == row.constants(2048, rule=rules.ELR)
    assert row.constants(2049, rule=rules.ELR, hold=True)["SPAN"] == 3072
    assert row.constants(row.HELD_COLUMNS, rule=rules.CE, hold=True)["SPAN"] == row.HELD_COLUMNS
    with pytest.raises(ValueError, match="a row of 22529 columns can't be held: at most 22528"):
        row.constants(22529, rule=rules.ELR, hold=True)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [*RULES, "ema"])
def test_compiles_ahead_of_time_everywhere(rule: str, tmp_path: Path) -> None:
    """Every size on every architecture, each with another dtype, which take turns from size to size."""
    for turn, num_classes in enumerate((2, 3, 4, 10, 14, 100, 1000, 2048, 4096, 4097, 8192, 9000, 21841)):
        for number, arch in enumerate(ARCHITECTURES):
            check(rule, num_classes, list(DTYPES)[(number + turn) % 3], arch, tmp_path)
