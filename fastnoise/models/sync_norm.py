"""Batch norm whose mean and variance are those of the batches of all processes together."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules._functions import SyncBatchNorm as OnGPU
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ConfigError
from .norm import BatchNorm2d


class Group(Protocol):
    """The processes. All of them call each method, in the same order."""

    size: int

    def sum_(self, *tensors: Tensor) -> None:
        """Replace each by its sum over the processes."""

    def gathered(self, tensor: Tensor) -> Tensor:
        """[size, ...]: the tensors of all processes."""


class _Normalised(torch.autograd.Function):
    """The normalised images of this process, from the moments of all. On a CPU, where `nn.SyncBatchNorm` refuses.

    The moments are joined as Chan et al. (1979), so that no sums of squares cancel. The gradient is that of the sum of
    the processes' losses, as `nn.SyncBatchNorm` has it; those of weight and bias are of this process's images.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, running_mean: Tensor | None, running_var: Tensor | None, layer: "SyncedBatchNorm"
    ) -> Tensor:
        values = images.to(torch.promote_types(images.dtype, torch.float32))
        over = [0, *range(2, values.dim())]
        count = values.new_tensor([values.numel() // values.shape[1]])
        variance, mean = torch.var_mean(values, over, correction=0)
        means, variances, counts = layer.group.gathered(torch.cat([mean, variance, count])).split(
            [len(mean), len(mean), 1], 1
        )
        total = counts.sum()
        shares = counts / total
        mean = (shares * means).sum(0)
        variance = (shares * (variances + (means - mean) ** 2)).sum(0)
        if running_mean is not None and running_var is not None:
            assert layer.momentum is not None  # `synchronise` refuses it
            running_mean.lerp_(mean, layer.momentum)
            running_var.lerp_(variance * (total / (total - 1)), layer.momentum)
        scale = (variance + layer.eps).rsqrt()
        normalised = (values - _channels(mean, values)) * _channels(scale, values)
        ctx.save_for_backward(normalised, scale, total)
        ctx.group, ctx.dtype = layer.group, images.dtype
        return normalised

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normalised, scale, total = ctx.saved_tensors
        over = [0, *range(2, gradient.dim())]
        sums = torch.cat([gradient.sum(over), (gradient * normalised).sum(over)])
        ctx.group.sum_(sums)
        first, second = (_channels(part, gradient) for part in (sums / total).chunk(2))
        images = (gradient - first - normalised * second) * _channels(scale, gradient)
        return images.to(ctx.dtype), None, None, None


def _channels(values: Tensor, images: Tensor) -> Tensor:
    """[C] as it multiplies [B, C, ...]."""
    return values.view(1, -1, *[1] * (images.dim() - 2))


class SyncedBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes: [B, C, ...] -> the same shape.

    Parameters, running statistics and their names are those of the layer that it replaces; in evaluation mode it
    computes the same. On CUDA it computes as `nn.SyncBatchNorm` does.

    Args:
        layer: whose tensors it takes over.
        group: the processes.
    """

    alone = False
    """Whether batches are normalised by themselves for now, as in a pass in which processes have other numbers of
    batches."""

    def __init__(self, layer: _BatchNorm, group: Group):
        nn.Module.__init__(self)
        self.__dict__.update({name: value for name, value in vars(layer).items() if not name.startswith("__")})
        self.group = group

    def _check_input_dim(self, images: Tensor) -> None:
        if images.dim() < 2:
            raise ValueError(f"batch norm takes [B, C, ...], not {list(images.shape)}")

    def forward(self, images: Tensor) -> Tensor:
        if not self.training or self.alone:
            return super().forward(images)
        self._check_input_dim(images)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if images.device.type == "cuda":
            found: Tensor = OnGPU.apply(
                images,
                self.weight,
                self.bias,
                self.running_mean,
                self.running_var,
                self.eps,
                self.momentum,
                dist.group.WORLD,
                self.group.size,
            )
            return found
        normalised: Tensor = _Normalised.apply(images, self.running_mean, self.running_var, self)
        if self.weight is not None:
            normalised = normalised * _channels(self.weight, normalised) + _channels(self.bias, normalised)
        return normalised.to(images.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self.num_batches_tracked is None:
            BatchNorm2d._load_from_state_dict(self, state_dict, prefix, *rest)  # type: ignore[arg-type]
        else:
            super()._load_from_state_dict(state_dict, prefix, *rest)


_KINDS = (BatchNorm2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synchronise(network: nn.Module, group: Group) -> None:
    """Replace the batch norm layers of a network, in place, by those over the batches of all processes.

    ConfigError for a layer that computes something else too, or whose running statistics are a mean over all batches.
    """
    for name, module in list(network.named_modules()):
        for child, layer in list(module.named_children()):
            if not isinstance(layer, _BatchNorm):
                continue
            where = f"{name}.{child}" if name else child
            if type(layer) not in _KINDS or layer.momentum is None:
                raise ConfigError(
                    f"--batch-norm sync: the layer {where} ({type(layer).__name__}) is no batch norm as PyTorch's with "
                    "a momentum; take --batch-norm local, or another --model"
                )
            setattr(module, child, SyncedBatchNorm(layer, group))


@contextmanager
def each_by_itself(network: nn.Module) -> Iterator[None]:
    """Within it, each process normalises its batches by themselves."""
    layers = [layer for layer in network.modules() if isinstance(layer, SyncedBatchNorm)]
    for layer in layers:
        layer.alone = True
    try:
        yield
    finally:
        for layer in layers:
            layer.alone = False
