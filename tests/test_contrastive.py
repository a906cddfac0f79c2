"""NT-Xent as an op: its kernels under the interpreter and ahead of time, its gradient, its registration."""

from itertools import product
from pathlib import Path

import pytest
import torch
from _interpret import interpret
from torch import Tensor, nn

from fastnoise.losses import nt_xent
from fastnoise.ops import contrastive as ops

# Few rows, ragged blocks and ragged chunks, several of each, similarities of up to 100.
CASES = [(2, 5, 0.5), (3, 16, 0.1), (32, 64, 0.5), (37, 70, 0.5), (70, 130, 0.07), (33, 128, 0.01)]


def directions(samples: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return nn.functional.normalize(torch.randn(2 * samples, width, generator=random, dtype=dtype), dim=1)


def test_kernels_match_autograd_in_float64() -> None:
    pytest.importorskip("triton", reason="needs triton")
    for case, errors in zip(CASES, interpret("_contrastive_cases.py", CASES), strict=True):
        # Similarities of 1 / temperature, rounded once, move losses and P by as much relative to 1.
        rounding = 1e-6 * max(1.0, 1 / case[2])
        assert errors["loss"] < rounding, (case, errors)
        assert errors["gradient"] < 5 * rounding, (case, errors)


@pytest.mark.parametrize(("arch", "width"), list(product((80, 90, 100), (16, 128, 2048))))
def test_kernels_compile_ahead_of_time(arch: int, width: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton")
    from _ahead import compile_ahead, spilled
    from fastnoise.kernels import contrastive as kernels

    constants: dict[str, object] = {**kernels.geometry(0.5, width)}
    rows = {"directions_ND": "*fp32", "log_sum_N": "*fp32", "num_rows": "i32"}
    for kernel, types in (
        (kernels.nt_xent_rows, rows | {"loss_N": "*fp32"}),
        (kernels.nt_xent_gradient, rows | {"upstream_N": "*fp32", "gradient_ND": "*fp32"}),
    ):
        compiled = compile_ahead(kernel, types, constants, arch, kernels.NUM_WARPS)
        assert spilled(compiled, tmp_path) == {"STACK": 0, "LOCAL": 0}
        assert "mma" in compiled.asm["ptx"], "products are the tensor cores' work"


def test_registration_and_gradient() -> None:
    rows = directions(4, 6, torch.float64).requires_grad_()
    torch.library.opcheck(torch.ops.fastnoise.nt_xent.default, (rows, 0.5))
    torch.library.opcheck(
        torch.ops.fastnoise.nt_xent_backward.default,
        (rows.detach(), torch.zeros(8, dtype=torch.float64), torch.ones(8, dtype=torch.float64), 0.5),
    )
    assert torch.autograd.gradcheck(lambda given: ops.nt_xent_rows(given, 0.5), rows)


def test_one_graph_serves_every_batch_size() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(nt_xent, fullgraph=True, dynamic=True, backend=backend)
    for samples in (3, 8, 13):
        projections = directions(samples, 7) * 3
        torch.testing.assert_close(compiled(projections), nt_xent(projections))
    assert len(graphs) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu(case: tuple[int, int, float]) -> None:
    samples, width, temperature = case
    rows, upstream = directions(samples, width), torch.randn(2 * samples)
    given, exact = rows.cuda().requires_grad_(), rows.double().requires_grad_()
    found, expected = ops.nt_xent_rows(given, temperature), ops.nt_xent_rows(exact, temperature)
    found.backward(upstream.cuda())
    expected.backward(upstream.double())
    assert given.grad is not None
    assert exact.grad is not None
    rounding = 1e-6 * max(1.0, 1 / temperature)
    torch.testing.assert_close(found.cpu().double(), expected, rtol=0, atol=rounding)
    error = (given.grad.cpu() - exact.grad).norm(dim=1) / exact.grad.norm(dim=1)
    assert float(error.max()) < 5 * rounding
