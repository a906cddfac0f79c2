"""Runs batch norm's Triton kernels on CPU tensors: reads cases as JSON from stdin, writes the errors of each as JSON.

A process of its own, started with TRITON_INTERPRET=1, because Triton reads that when it is imported.
"""

import json
import sys
from typing import Any, NamedTuple

import torch
from _interpret import prepare
from fastnoise.kernels import batch_norm as kernels
from fastnoise.kernels import counters
from torch import Tensor

from fastnoise.models import create_model
from fastnoise.models.norm import fuse_norms
from fastnoise.ops import batch_norm as ops


class Case(NamedTuple):
    shape: tuple[int, int, int, int]
    dtype: str
    relu: bool
    residual: bool
    second: bool
    tile: int = kernels.TILE
    """Elements of a tile."""
    programs: int = kernels.PROGRAMS
    offset: float = 0.0
    """Mean of the images; their standard deviation is 1."""


def inputs(case: Case, device: str = "cpu") -> dict[str, Tensor]:
    """Images, residual, gradients and vectors of a case, in channels_last."""
    random = torch.Generator().manual_seed(sum(case.shape))
    dtype = getattr(torch, case.dtype)

    def images(offset: float = 0.0) -> Tensor:
        made = torch.randn(case.shape, generator=random) + offset
        return made.to(device, dtype).contiguous(memory_format=torch.channels_last)

    channels = case.shape[1]
    vectors = [torch.randn(channels, generator=random) for _ in range(3)]
    vectors.append(torch.rand(channels, generator=random) + 0.5)
    names = ("weight", "bias", "running_mean", "running_var")
    named = {name: vector.to(device) for name, vector in zip(names, vectors, strict=True)}
    return named | {"images": images(case.offset), "residual": images(), "upstream": images(), "second": images()}


def exact(case: Case, given: dict[str, Tensor], out: Tensor, dresidual: Tensor | None) -> dict[str, Tensor]:
    """In float64 by autograd. The ReLU's mask is that of `out`, since rounding may move a number across 0.

    The gradient of a residual is written in the images' dtype, and read again for that of the images: `dresidual` is
    what was written.
    """
    double = {name: tensor.double().cpu() for name, tensor in given.items()}
    leaves = {name: double[name].requires_grad_() for name in ("images", "weight", "bias", "residual")}
    wanted = torch.nn.functional.batch_norm(
        leaves["images"], double["running_mean"], double["running_var"], leaves["weight"], leaves["bias"], True, 0.2
    )
    if case.residual:
        wanted = wanted + leaves["residual"]
    upstream = double["upstream"] + (double["second"] if case.second else 0)
    if case.relu:
        upstream = upstream * (out.cpu() > 0)
    wanted.backward(upstream)
    result = {"out": (wanted.relu() if case.relu else wanted).detach()}
    result |= {name: double[name] for name in ("running_mean", "running_var")}
    result |= {f"d{name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    if dresidual is not None:
        images = leaves["images"].detach()
        scale = leaves["weight"].detach() / (images.var((0, 2, 3), correction=0) + 1e-5).sqrt()
        lost = dresidual.double().cpu() - upstream
        result["dimages"] = result["dimages"] + lost * scale[:, None, None]
    return result


def differences(case: Case, device: str = "cpu") -> dict[str, float]:
    """Largest error of each result, relative to the largest number of the exact result."""
    given = inputs(case, device)
    start = {name: tensor.clone() for name, tensor in given.items()}
    residual = given["residual"] if case.residual else None
    out, mean, rstd = torch.ops.fastnoise.batch_norm.default(
        *(given[name] for name in ("images", "weight", "bias", "running_mean", "running_var")),
        *(residual, 0.2, 1e-5, case.relu),
    )
    gradients = torch.ops.fastnoise.batch_norm_backward.default(
        given["upstream"],
        given["second"] if case.second else None,
        given["images"],
        out if case.relu and case.residual else None,
        *(given["weight"], given["bias"], mean, rstd, case.relu),
    )
    found = dict(zip(("dimages", "dweight", "dbias", "dresidual"), gradients, strict=False))
    found |= {"out": out, "running_mean": given["running_mean"], "running_var": given["running_var"]}
    wanted = exact(case, start, out, found.get("dresidual"))
    errors = {}
    for name, tensor in found.items():
        assert tensor.dtype == given["images" if tensor.dim() == 4 else "weight"].dtype, name
        error = (tensor.double().cpu() - wanted[name]).abs().max() / wanted[name].abs().max()
        errors[name] = float(error)
    for counter in counters.of_streams.values():
        assert not counter.any(), "a kernel has left its counter"
    return errors


def step() -> dict[str, list[float]]:
    """The state of a small ResNet after a step of SGD with fused norms: that of test_fused_norm.py."""
    torch.manual_seed(0)
    network = create_model("resnet18", num_classes=3, image_size=(8, 8), width=0.125).train()
    fuse_norms(network)
    images = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)
    torch.nn.functional.cross_entropy(network(images).logits, torch.tensor([0, 2, 1, 2])).backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    return {name: tensor.flatten().tolist() for name, tensor in network.state_dict().items()}


def main(cases: list[Any]) -> list[Any]:
    prepare()
    ops.FORWARD.register_kernel("cpu", kernels.launch)
    ops.BACKWARD.register_kernel("cpu", kernels.launch_gradient)
    results: list[Any] = []
    for words in cases:
        if words == {"step": True}:
            results.append(step())
            continue
        case = Case(*words)
        kernels.TILE = case.tile
        kernels.PROGRAMS = case.programs
        results.append(differences(case))
    return results


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
