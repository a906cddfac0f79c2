"""The optimisers' kernel beside torch.optim under the interpreter, ahead of time, and as an option of runs."""

import re
from pathlib import Path
from typing import Any

import pytest
from _interpret import interpret

CASES: list[dict[str, Any]] = [
    {"kind": "sgd", "rate": 0.1},
    {"kind": "sgd", "rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "tensors": True},
    # Groups with rates of their own, a weight without a gradient, and fp16's loss scale with a step that overflows.
    {"kind": "sgd", "rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True, "groups": 3, "without": 1,
     "scale": 1024},
    {"kind": "adamw", "rate": 1e-3, "weight_decay": 0.05},
    {"kind": "adam", "rate": 1e-3, "weight_decay": 0.01, "groups": 2, "tensors": True},
    {"kind": "adam", "rate": 1e-3, "scale": 1024, "without": 4},
]  # fmt: skip


def test_steps_are_those_of_torch() -> None:
    """Within a unit of the last place in each of five steps from one state; one launch for all groups; states that
    the other takes up and goes on from."""
    pytest.importorskip("triton", reason="needs triton")
    for case, found in zip(CASES, interpret("_optimizer_cases.py", CASES), strict=True):
        assert max(found["worst"].values()) <= 1, (case, found["worst"])
        assert found["drift"] < 1e-5, case
        assert found["resumed"] < 1e-5, case
        assert found["missing"] == [], case
        assert found["same_keys"], case
        assert found["untouched"], case
        assert found["launches"] == 1, case


def test_copies_follow_the_weights() -> None:
    pytest.importorskip("triton", reason="needs triton")
    *alone, sgd, adam = interpret(
        "_optimizer_cases.py", [{"copied": "sgd"}, {"copied": "adamw"}, {"stepped": "sgd"}, {"stepped": "adamw"}]
    )
    for found in alone:
        assert all(found.values()), found
    for found in (sgd, adam):
        assert found["apart"] < 1e-5
        assert found["own"]
        assert found["copied"] == found["layers"]
        assert found["casts"][1] <= found["casts"][0] - found["copied"]  # in the forward pass


def test_averages_follow_in_the_launch() -> None:
    """Within a unit of the last place of averages that follow apart and of float64; nothing else changes."""
    pytest.importorskip("triton", reason="needs triton")
    kinds = ("sgd", "adam", "adamw")
    for kind, found in zip(
        kinds, interpret("_optimizer_cases.py", [{"averaged": kind} for kind in kinds]), strict=True
    ):
        assert found["apart"] <= 1, (kind, found)
        assert found["exact"] <= 1, (kind, found)
        assert found["same"], kind
        assert (found["kept"], found["launches"]) == (7, 1), kind


def test_a_run_has_its_average_from_the_kernel() -> None:
    """Statistics of batch norm and frozen weights too, from the epoch on at which the average begins; a run goes on
    with the other optimiser and its average."""
    pytest.importorskip("triton", reason="needs triton")
    kinds = ("sgd", "adamw")
    cases = interpret("_optimizer_cases.py", [{"coursed": kind} for kind in kinds])
    for kind, found in zip(kinds, cases, strict=True):
        assert found["exact"] <= 1, (kind, found)
        assert found["apart"] < 1e-2, (kind, found)
        assert found["alone"] == [found["floating"], 0], kind  # a tensor apart, or none
        assert found["keys"], kind
        assert found["answers"], kind


@pytest.mark.slow
def test_compiled_steps_take_the_copies() -> None:
    """The compiled graph takes the weights that are in use, without breaks."""
    pytest.importorskip("triton", reason="needs triton")
    (found,) = interpret("_optimizer_cases.py", [{"compiled": "sgd"}])
    assert found["apart"] < 1e-5
    assert found["own"]
    assert found["copied"] == found["layers"]


@pytest.mark.parametrize(("copies", "average"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_kernels_compile_ahead_of_time(kind: str, copies: bool, average: bool, tmp_path: Path) -> None:
    """Whole pieces move in loads and stores of 16 bytes, without spills or barriers; copies are rounded to nearest."""
    pytest.importorskip("triton", reason="needs triton")
    from _ahead import ARCHITECTURES, compile_ahead, spilled
    from fastnoise.kernels import optimizer

    adam = kind.startswith("adam")
    types = {"pieces_K2": "*i32", "tensors_T9": "*i64"}
    names = ("share1", "beta2", "share2", "decay", "epsilon") if adam else ("momentum", "decay")
    types |= dict.fromkeys((*names, *["average"] * average), "fp32")
    constants: dict[str, Any] = {"COPIES": copies, "ALIGNMENT": 16, "PIECE": optimizer.PIECE}
    if adam:
        constants |= {"LOG1": -0.1, "LOG2": -0.001, "DECOUPLED": kind == "adamw"}
    else:
        constants |= {"MOMENTUM": True, "NESTEROV": False}
    ordered = {name: types.get(name, "constexpr") for name in (optimizer.adam if adam else optimizer.sgd).arg_names}
    vectors, moments = optimizer.PIECE // (32 * optimizer.WARPS) // 4, 2 if adam else 1
    for arch in ARCHITECTURES:
        kernel = compile_ahead(optimizer.adam if adam else optimizer.sgd, ordered, constants, arch, optimizer.WARPS)
        ptx = kernel.asm["ptx"]
        assert len(re.findall(r"ld\.global\S*\.v4\.b32", ptx)) == (2 + moments + average) * vectors
        assert len(re.findall(r"st\.global\S*\.v4\.b32", ptx)) == (1 + moments + average) * vectors
        # Gradients and copies of 16 bits, of the same weights in each thread.
        assert len(re.findall(r"ld\.global\S*\.v2\.b32", ptx)) == copies * vectors
        assert len(re.findall(r"st\.global\S*\.v2\.b32", ptx)) == copies * vectors
        assert ("cvt.rn.bf16x2.f32" in ptx) == copies
        assert "bar.sync" not in ptx
        assert spilled(kernel, tmp_path) == {"STACK": 0, "LOCAL": 0}
