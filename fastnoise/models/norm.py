"""Batch norm without the counter of batches. Nothing reads the counter, and it costs a launch per layer and step.

In training it can run as one op with the ReLU and the sum of a residual after it (`fastnoise.ops.batch_norm`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..ops.batch_norm import batch_norm

COUNTER = "num_batches_tracked"

AUTO_FUSED = False
"""Whether --fused-norm auto fuses on CUDA: only once a GPU has shown that steps are faster by it. The step `batch_norm`
of the third programme of benchmarks.gpu measures that; no GPU has run it yet (benchmarks/results/gpu)."""


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that doesn't count batches: [B, num_features, H, W] -> the same shape, the same numbers.

    PyTorch reads the counter only if the momentum is None, to average over all batches. On CUDA each layer needs a
    launch to raise it, 36 in a step of ResNet-34. A state with counters, from an older run or from torchvision, loads
    as before; the counters are ignored. A state without counters loads in `nn.BatchNorm2d`, which keeps its own
    counter.

    A training batch raises ConfigError if the momentum is None, as `torch.optim.swa_utils.update_bn` sets it: PyTorch
    would silently leave the running statistics unchanged.
    """

    fused = False
    """Whether training batches go through `fastnoise.ops.batch_norm` (`fuse_norms`); evaluation always is PyTorch's."""
    _version = 1
    """Version of the state's form. nn.BatchNorm2d has counters since version 2, and needs none in version 1 states."""

    def __init__(self, num_features: int):
        super().__init__(num_features)
        self.num_batches_tracked = None

    def reset_running_stats(self) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        self.running_mean.zero_()
        self.running_var.fill_(1)

    def forward(self, images: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """relu(normalised images + residual). Only `normalised` gives residual and ReLU, to a layer that is fused."""
        if self.momentum is None and self.training:
            raise ConfigError("fastnoise's batch norm counts no batches: give it a momentum, such as 0.1, not None")
        if not is_fused(self):
            assert residual is None
            assert not relu
            return super().forward(images)
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        return batch_norm(
            images,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            residual=residual,
            momentum=self.momentum,
            eps=self.eps,
            relu=relu,
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.pop(prefix + COUNTER, None)
        # Not batch norm's own form of it, which would put a counter into states of version 1.
        nn.Module._load_from_state_dict(self, state_dict, prefix, *rest)


def is_fused(layer: nn.Module | None) -> bool:
    """Whether a layer now runs as the op that can take the residual and the ReLU with it."""
    return isinstance(layer, BatchNorm2d) and layer.fused and layer.training


def normalised(
    layer: nn.Module,
    images: Tensor,
    activation: Callable[[Tensor], Tensor] | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """activation(layer(images) + residual), in one op as far as the layer can.

    Args:
        layer: a normalisation, [B, C, H, W] -> the same shape.
        images: [B, C, H, W].
        activation: a function or module; None for none.
        residual: as images; None for none.
    """
    if is_fused(layer):
        relu = activation is torch.relu or isinstance(activation, nn.ReLU)
        out: Tensor = layer(images, residual, relu)
        activation = None if relu else activation
    else:
        out = layer(images)
        out = out if residual is None else out + residual
    return out if activation is None else activation(out)


class Layers(nn.Sequential):
    """`nn.Sequential` in which a batch norm and the ReLU after it can be one op: the same names, the same numbers."""

    def forward(self, images: Tensor) -> Tensor:
        done = False
        for layer, following in zip(self, [*[*self][1:], None], strict=True):
            if done:
                done = False
                continue
            done = isinstance(following, nn.ReLU) and is_fused(layer)
            images = normalised(layer, images, following) if done else layer(images)
        return images


def chooses_fused(setting: str, device: torch.device) -> bool:
    """Whether --fused-norm fuses on this device."""
    return setting == "on" or (setting == "auto" and AUTO_FUSED and device.type == "cuda")


def fuse_norms(network: nn.Module) -> int:
    """Let the batch norms of fastnoise's own networks run as one op with what follows them; returns their number."""
    layers = [layer for layer in network.modules() if isinstance(layer, BatchNorm2d)]
    for layer in layers:
        layer.fused = True
    return len(layers)
