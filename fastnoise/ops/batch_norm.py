"""`fastnoise::batch_norm` and its gradient: batch norm in training with ReLU and the sum of a residual in one op."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd.function import once_differentiable

from ..errors import DataError
from .checks import LOGIT_DTYPES, refuse
from .registry import load_kernels

aten = torch.ops.aten
LAUNCHES = 2
"""Kernels that either op launches on CUDA."""


def wide(images: Tensor) -> Tensor:
    """In the dtype of the arithmetic: float32, or float64 for such images."""
    return images.to(torch.promote_types(images.dtype, torch.float32))


def channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def forward_torch(
    images: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    residual: Tensor | None,
    momentum: float,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    values = wide(channels_last(images))
    out, mean, rstd = aten.native_batch_norm(values, weight, bias, running_mean, running_var, True, momentum, eps)
    if residual is not None:
        out += residual
    if relu:
        out.relu_()
    return out.to(images.dtype, memory_format=torch.channels_last), mean, rstd


def backward_torch(
    upstream: Tensor,
    second: Tensor | None,
    images: Tensor,
    out: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    relu: bool,
) -> list[Tensor]:
    values, gradient = wide(channels_last(images)), wide(channels_last(upstream))
    if second is not None:
        gradient = gradient + second
    if relu:
        sides = [1, -1, 1, 1]
        y = out
        if y is None:
            scaled = (values - mean.view(sides)) * (rstd * weight).view(sides) + bias.view(sides)
            y = scaled.to(images.dtype)
        gradient = torch.where(y <= 0, 0.0, gradient)
    # The running statistics and eps are not read: mean and rstd say all.
    found = aten.native_batch_norm_backward(gradient, values, weight, mean, mean, mean, rstd, True, 0.0, [True] * 3)
    dx, dweight, dbias = found
    gradients = [dx.to(images.dtype, memory_format=torch.channels_last), dweight, dbias]
    return gradients if out is None else [*gradients, gradient.to(images.dtype, memory_format=torch.channels_last)]


def forward_cuda(images: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    if images.dtype == torch.float64:  # for gradients checked by differences
        return forward_torch(images, *rest)
    load_kernels()
    with torch.cuda.device(images.device):
        found: tuple[Tensor, Tensor, Tensor] = import_module("fastnoise.kernels.batch_norm").launch(images, *rest)
        return found


def backward_cuda(upstream: Tensor, second: Tensor | None, images: Tensor, *rest: Any) -> list[Tensor]:
    if images.dtype == torch.float64:
        return backward_torch(upstream, second, images, *rest)
    load_kernels()
    with torch.cuda.device(images.device):
        launch = import_module("fastnoise.kernels.batch_norm").launch_gradient
        found: list[Tensor] = launch(upstream, second, images, *rest)
        return found


FORWARD = torch.library.custom_op(
    "fastnoise::batch_norm",
    forward_cuda,
    mutates_args={"running_mean", "running_var"},
    device_types="cuda",
    schema="(Tensor images, Tensor weight, Tensor bias, Tensor(a!) running_mean, Tensor(b!) running_var, "
    "Tensor? residual, float momentum, float eps, bool relu) -> (Tensor, Tensor, Tensor)",
)
BACKWARD = torch.library.custom_op(
    "fastnoise::batch_norm_backward",
    backward_cuda,
    mutates_args=(),
    device_types="cuda",
    schema="(Tensor upstream, Tensor? second, Tensor images, Tensor? out, Tensor weight, Tensor bias, Tensor mean, "
    "Tensor rstd, bool relu) -> Tensor[]",
)
FORWARD.register_kernel("cpu", forward_torch)
BACKWARD.register_kernel("cpu", backward_torch)


@FORWARD.register_fake
def _(images: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    out = torch.empty_like(images, memory_format=torch.channels_last)
    return out, torch.empty_like(weight), torch.empty_like(weight)


@BACKWARD.register_fake
def _(
    upstream: Tensor, second: Tensor | None, images: Tensor, out: Tensor | None, weight: Tensor, bias: Tensor, *_: Any
) -> list[Tensor]:
    dx = torch.empty_like(images, memory_format=torch.channels_last)
    gradients = [dx, torch.empty_like(weight), torch.empty_like(bias)]
    return gradients if out is None else [*gradients, torch.empty_like(dx)]


class FusedBatchNorm(torch.autograd.Function):
    """The op with its gradient. PyTorch allows no autograd formula for an op that mutates its arguments."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        residual: Tensor | None,
        momentum: float,
        eps: float,
        relu: bool,
    ) -> Tensor:
        out: Tensor
        out, mean, rstd = torch.ops.fastnoise.batch_norm.default(
            images, weight, bias, running_mean, running_var, residual, momentum, eps, relu
        )
        ctx.relu, ctx.has_residual = relu, residual is not None
        ctx.save_for_backward(images, out if relu and residual is not None else None, weight, bias, mean, rstd)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        upstream = channels_last(upstream)
        found = torch.ops.fastnoise.batch_norm_backward.default(upstream, None, *ctx.saved_tensors, ctx.relu)
        dresidual = None
        if ctx.has_residual:
            dresidual = found[3] if ctx.relu else upstream
        return (*found[:3], None, None, dresidual, None, None, None)


def batch_norm(
    images: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    residual: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    relu: bool = False,
) -> Tensor:
    """relu(batch norm of images + residual) with the batch's statistics; the running statistics move in place.

    Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithm 1. Sums and products are in float32, and the result is rounded
    once. On CUDA two Triton kernels compute it, and two its gradient (`kernels/batch_norm.py`).

    Args:
        images: [B, C, H, W] float32, float16, bfloat16, or float64, which no kernel of Triton's takes. In
            channels_last; in another format they are copied.
        weight, bias, running_mean, running_var: [C] float32, or float64 for such images.
        residual: as images; None for none.
        momentum: share of the batch in the running statistics.
        eps: added to the variance.
        relu: whether negative values become 0.

    Returns:
        [B, C, H, W] in the images' dtype, in channels_last.

    Raises:
        DataError: a tensor of the wrong form.
        ValueError: a channel has a single value, as PyTorch raises it.
    """
    check(images, residual, {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var})
    if not images.numel() or images.numel() == images.shape[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {images.size()}")
    images, residual = channels_last(images), None if residual is None else channels_last(residual)
    found: Tensor = FusedBatchNorm.apply(images, weight, bias, running_mean, running_var, residual, momentum, eps, relu)
    return found


def check(images: Tensor, residual: Tensor | None, channels: dict[str, Tensor]) -> None:
    """Refuse tensors of the wrong form, from shape, dtype and device alone."""
    name = "batch_norm"
    if images.dim() != 4 or images.dtype not in (*LOGIT_DTYPES, torch.float64):
        refuse(name, "images", images, "float32, float16, bfloat16 or float64 [B, C, H, W]")
    if residual is not None and (residual.shape != images.shape or residual.dtype != images.dtype):
        refuse(name, "residual", residual, "the dtype and shape of images")
    dtype = torch.promote_types(images.dtype, torch.float32)
    for key, tensor in channels.items():
        if tensor.dim() != 1 or tensor.shape[0] != images.shape[1] or tensor.dtype != dtype:
            refuse(name, key, tensor, f"{str(dtype).removeprefix('torch.')}, one number per channel of images")
    for key, each in {"residual": residual, **channels}.items():
        if each is not None and each.device != images.device:
            raise DataError(f"{name}: {key} on {each.device}, images on {images.device}; put both on one")


def fold_second_gradients(graph: fx.Graph) -> None:
    """Let the gradient's kernels add the gradients of two users of an output, which else take a launch of their own."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.fastnoise.batch_norm_backward.default):
        upstream, second = node.args[:2]
        if second is not None or not isinstance(upstream, fx.Node) or upstream.target is not aten.add.Tensor:
            continue
        parts, value = upstream.args, upstream.meta["val"]
        plain = len(parts) == 2 and not upstream.kwargs and len(upstream.users) == 1
        if plain and all(isinstance(part, fx.Node) and _alike(part.meta["val"], value) for part in parts):
            node.args = (*parts, *node.args[2:])
            graph.erase_node(upstream)


def _alike(part: Any, value: Tensor) -> bool:
    return isinstance(part, Tensor) and (part.shape, part.dtype, part.stride()) == (
        value.shape,
        value.dtype,
        value.stride(),
    )
