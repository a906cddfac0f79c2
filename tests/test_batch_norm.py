"""Batch norm as one op: its kernels under the interpreter and ahead of time, its registration, and what it refuses."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from _interpret import interpret
from torch import Tensor, nn

from fastnoise.errors import DataError
from fastnoise.ops.batch_norm import batch_norm

ROUNDING = {"float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}
"""Of a result in the images' dtype: half a unit in the last place for a number just above a power of two, twice over,
since the error is relative to the largest number of a tensor and a sum of two rounds twice."""

# Shape, dtype, ReLU, residual, second gradient; elements of a tile, programs at most, mean of the images.
CASES = [
    ((2, 3, 4, 5), "float32", True, True, True, 64, 3, 3.0),
    ((3, 70, 3, 5), "bfloat16", True, False, False, 128, 2),
    ((1, 5, 40, 50), "float32", False, False, False, 4096, 264, 100.0),
    ((4, 300, 2, 2), "float16", True, True, False, 256, 3),
    ((2, 64, 8, 8), "bfloat16", True, False, True),
    ((1, 8, 3, 4), "float32", True, True, True, 16, 6),  # more programs than a tile of partial sums has rows
]
GRID = [
    (shape, dtype, relu, residual, second, tile, programs)
    for (shape, (tile, programs)), dtype, relu, residual, second in product(
        [
            ((1, 2, 2, 4), (4, 2)),
            ((3, 3, 5, 7), (4096, 264)),
            ((3, 7, 5, 7), (64, 5)),
            ((5, 65, 3, 1), (512, 264)),
            ((2, 96, 9, 9), (4096, 264)),
            ((4, 17, 13, 13), (1024, 7)),
            ((4, 520, 2, 3), (2048, 3)),
        ],
        ROUNDING,
        (False, True),
        (False, True),
        (False, True),
    )
]


def assert_close(cases: list[tuple[Any, ...]], found: list[dict[str, float]]) -> None:
    for case, errors in zip(cases, found, strict=True):
        offset = case[7] if len(case) > 7 else 0.0
        for name, error in errors.items():
            whole = name in ("out", "dimages", "dresidual")  # the others are in float32
            # A mean is rounded in units of itself, and moves by that relative to the deviation of 1.
            allowed = (ROUNDING[case[1]] if whole else 2e-6) + 2e-7 * offset
            assert error <= allowed, (case, name, error)


def test_kernels_match_float64() -> None:
    pytest.importorskip("triton", reason="needs triton")
    assert_close(CASES, interpret("_batch_norm_cases.py", CASES))


@pytest.mark.slow
def test_kernels_match_float64_on_a_grid() -> None:
    pytest.importorskip("triton", reason="needs triton")
    assert_close(GRID, interpret("_batch_norm_cases.py", GRID))


@pytest.mark.gpu
@pytest.mark.parametrize("case", [*CASES, ((64, 64, 32, 32), "bfloat16", True, True, True)])
def test_on_a_gpu(case: tuple[Any, ...]) -> None:
    from _batch_norm_cases import Case, differences

    assert_close([case], [differences(Case(*case), "cuda")])


CHANNELS = (3, 64, 70, 512, 2048)


def compiled(kernel: str, channels: int, dtype: str, arch: int, **constants: Any) -> Any:
    """A kernel for that architecture, with a residual and a second gradient if it can have them."""
    from _ahead import compile_ahead
    from fastnoise.kernels import batch_norm as kernels

    rows, columns = kernels.geometry(5000, channels)
    function = getattr(kernels, kernel)
    kinds = {"RC": dtype, "P2C": "*fp32", "C": "*fp32"}
    types = {name: kinds[name.rpartition("_")[2]] for name in function.arg_names if "_" in name and name[-1] == "C"}
    types |= {"arrivals": "*i32", "num_rows": "i32", "momentum": "fp32", "eps": "fp32"}
    types = {name: kind for name, kind in types.items() if name in function.arg_names}
    if "RELU" in function.arg_names:
        constants.setdefault("RELU", True)
    known = {"C": channels, "ROWS": rows, "COLS": columns, **constants}
    return compile_ahead(function, types, known, arch, kernels.WARPS)


KERNELS = ("statistics", "normalise", "gradient_sums", "gradient_of_images")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_kernels_compile_ahead_of_time(kernel: str, arch: int, tmp_path: Path) -> None:
    """Nothing spills, and matrices of the usual widths are read 16 bytes at a time."""
    pytest.importorskip("triton", reason="needs triton")
    from _ahead import spilled

    for channels in (3, 64):
        made = compiled(kernel, channels, "*bf16", arch)
        assert spilled(made, tmp_path) == {"STACK": 0, "LOCAL": 0}
        loads = made.asm["ptx"].count("ld.global")
        assert channels % 8 or loads <= made.asm["ptx"].count(".v4.b32"), "elements are loaded one by one"
        reduces = kernel in ("statistics", "gradient_sums")
        assert ("atom.global.gpu.acq_rel" in made.asm["ptx"]) == reduces


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "arch", "channels"), list(product(KERNELS, (80, 90, 100), CHANNELS)))
def test_no_kernel_spills(kernel: str, arch: int, channels: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton")
    from _ahead import spilled

    for dtype in ("*bf16", "*fp16", "*fp32"):
        assert spilled(compiled(kernel, channels, dtype, arch), tmp_path) == {"STACK": 0, "LOCAL": 0}


def tensors(channels: int = 5, dtype: torch.dtype = torch.float32, side: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(0)
    wide = torch.promote_types(dtype, torch.float32)
    named = {"images": torch.randn(2, channels, side, side, dtype=dtype).to(memory_format=torch.channels_last)}
    named |= {name: torch.randn(channels, dtype=wide) for name in ("weight", "bias", "running_mean")}
    return named | {"running_var": torch.rand(channels, dtype=wide) + 0.5}


@pytest.mark.parametrize(("relu", "with_residual"), list(product((False, True), (False, True))))
def test_registration_and_gradient(relu: bool, with_residual: bool) -> None:
    given = tensors(dtype=torch.float64)
    residual = torch.randn_like(given["images"]) if with_residual else None
    ops = torch.ops.fastnoise
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(ops.batch_norm.default, (*given.values(), residual, 0.1, 1e-5, relu), test_utils=checks)
    out, mean, rstd = ops.batch_norm.default(*(each.clone() for each in given.values()), residual, 0.1, 1e-5, relu)
    arguments = (torch.randn_like(out), None, given["images"], out if relu and with_residual else None)
    arguments += (given["weight"], given["bias"], mean, rstd, relu)
    torch.library.opcheck(ops.batch_norm_backward.default, arguments, test_utils=checks)
    leaves = [given["images"], given["weight"], given["bias"], *([residual] if residual is not None else [])]

    def function(images: Tensor, weight: Tensor, bias: Tensor, *residual: Tensor) -> Tensor:
        running = given["running_mean"].clone(), given["running_var"].clone()
        return batch_norm(images, weight, bias, *running, residual=residual[0] if residual else None, relu=relu)

    assert torch.autograd.gradcheck(function, [leaf.requires_grad_() for leaf in leaves])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cpu_computes_pytorchs_numbers(dtype: torch.dtype) -> None:
    """In another memory format, too; in half precision it rounds less often."""
    given = tensors(12, dtype, 6)
    # Far from 0 on both sides: near it, rounding decides whether ReLU passes a gradient.
    residual = 6 * torch.randn_like(given["images"]).sign()
    results = []
    for fused in (True, False):
        images = given["images"].clone(memory_format=torch.contiguous_format).requires_grad_()
        vectors = {name: given[name].clone() for name in given if name != "images"}
        if fused:
            out = batch_norm(images, **vectors, residual=residual, relu=True)
            assert out.is_contiguous(memory_format=torch.channels_last)
        else:
            statistics = vectors["running_mean"], vectors["running_var"]
            normalised = nn.functional.batch_norm(images, *statistics, vectors["weight"], vectors["bias"], True)
            out = (normalised + residual).relu()
        out.backward(torch.ones_like(out))
        results.append((out, images.grad, vectors["running_mean"], vectors["running_var"]))
    within = 1e-6 if dtype == torch.float32 else 3e-2
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=within, atol=within)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 5)}, r"batch_norm: images is float32 \[2, 5\]; expected .* \[B, C, H, W\]"),
        ({"images": torch.zeros(2, 5, 3, 3, dtype=torch.int32)}, "batch_norm: images is int32"),
        ({"residual": torch.zeros(2, 5, 3, 2)}, "batch_norm: residual is .*; expected the dtype and shape of images"),
        ({"residual": torch.zeros(2, 5, 3, 3, dtype=torch.bfloat16)}, "batch_norm: residual is bfloat16"),
        ({"weight": torch.zeros(4)}, "batch_norm: weight is .*; expected float32, one number per channel"),
        ({"running_var": torch.zeros(5, dtype=torch.bfloat16)}, "batch_norm: running_var is bfloat16"),
        ({"bias": torch.zeros(5, device="meta")}, "batch_norm: bias on meta, images on cpu; put both on one"),
    ],
)
def test_tensors_of_the_wrong_form_are_refused(changes: dict[str, Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        batch_norm(**{**tensors(), **changes})


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_value_per_channel_is_refused_as_pytorch_does(count: int) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        batch_norm(**{**tensors(), "images": torch.zeros(count, 5, 1, 1)})
