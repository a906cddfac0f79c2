"""`fastnoise::nt_xent` and its gradient: NT-Xent of unit rows, one loss per row."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from .registry import load_kernels


def similarities(directions: Tensor, temperature: float) -> Tensor:
    """[n, n], -inf on the diagonal."""
    return (directions @ directions.T / temperature).fill_diagonal_(-torch.inf)


def forward_torch(directions: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    positive = (directions * directions.roll(len(directions) // 2, 0)).sum(1) / temperature
    log_sum = similarities(directions, temperature).logsumexp(1)
    return log_sum - positive, log_sum


def backward_torch(directions: Tensor, log_sum: Tensor, upstream: Tensor, temperature: float) -> Tensor:
    weight = similarities(directions, temperature).sub_(log_sum[:, None]).exp_().mul_(upstream[:, None])
    half = len(directions) // 2
    pull = (upstream + upstream.roll(half))[:, None] * directions.roll(half, 0)
    return ((weight + weight.T) @ directions - pull) / temperature


def forward_cuda(directions: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    if directions.dtype == torch.float64:  # for gradients checked by differences: tensor cores have no use for it
        return forward_torch(directions, temperature)
    load_kernels()
    with torch.cuda.device(directions.device):
        result: tuple[Tensor, Tensor] = import_module("fastnoise.kernels.contrastive").launch(directions, temperature)
        return result


def backward_cuda(directions: Tensor, log_sum: Tensor, upstream: Tensor, temperature: float) -> Tensor:
    if directions.dtype == torch.float64:
        return backward_torch(directions, log_sum, upstream, temperature)
    load_kernels()
    with torch.cuda.device(directions.device):
        launch = import_module("fastnoise.kernels.contrastive").launch_gradient
        gradient: Tensor = launch(directions, log_sum, upstream, temperature)
        return gradient


FORWARD = torch.library.custom_op(
    "fastnoise::nt_xent",
    forward_cuda,
    mutates_args=(),
    device_types="cuda",
    schema="(Tensor directions, float temperature) -> (Tensor, Tensor)",
)
BACKWARD = torch.library.custom_op(
    "fastnoise::nt_xent_backward",
    backward_cuda,
    mutates_args=(),
    device_types="cuda",
    schema="(Tensor directions, Tensor log_sum, Tensor upstream, float temperature) -> Tensor",
)
FORWARD.register_kernel("cpu", forward_torch)
BACKWARD.register_kernel("cpu", backward_torch)


@FORWARD.register_fake
def _(directions: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return directions.new_empty(directions.shape[0]), directions.new_empty(directions.shape[0])


@BACKWARD.register_fake
def _(directions: Tensor, log_sum: Tensor, upstream: Tensor, temperature: float) -> Tensor:
    return directions.new_empty(directions.shape)


def _setup(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.temperature = inputs[1]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, upstream: Tensor | None, log_sum_upstream: None) -> tuple[Tensor | None, None]:
    directions, log_sum = ctx.saved_tensors
    if upstream is None:
        return None, None
    return torch.ops.fastnoise.nt_xent_backward.default(directions, log_sum, upstream, ctx.temperature), None


FORWARD.register_autograd(_backward, setup_context=_setup)


def nt_xent_rows(directions: Tensor, temperature: float) -> Tensor:
    """The loss of every row, [n]: see `fastnoise.losses.nt_xent`.

    Args:
        directions: [n, D] float32 or float64, rows of length 1, n even; rows i and n / 2 + i are views of one sample.
        temperature: positive.
    """
    loss: Tensor = torch.ops.fastnoise.nt_xent.default(directions, temperature)[0]
    return loss
