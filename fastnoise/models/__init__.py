"""Networks by name, with the heads that methods add."""

from collections.abc import Callable

import torch

from ..errors import ConfigError, nearest
from .cnn9 import CNN9
from .heads import Backbone, Network, Outputs
from .resnet import BasicBlock, PreActBlock, ResNet, ResNet50
from .small import LeNet5, SmallCNN

_Size = tuple[int, int]

_BACKBONES: dict[str, Callable[[int, _Size, float], Backbone]] = {
    "small_cnn": lambda channels, size, width: SmallCNN(channels, width),
    "lenet5": LeNet5,
    "cnn9": CNN9,
    "resnet18": lambda *shape: ResNet(BasicBlock, (2, 2, 2, 2), *shape),
    "resnet34": lambda *shape: ResNet(BasicBlock, (3, 4, 6, 3), *shape),
    "preact_resnet18": lambda *shape: ResNet(PreActBlock, (2, 2, 2, 2), *shape),
    "preact_resnet34": lambda *shape: ResNet(PreActBlock, (3, 4, 6, 3), *shape),
    "resnet50": lambda channels, size, width: ResNet50(channels, width),
}
_SMALLEST = {"small_cnn": 4, "lenet5": 12, "cnn9": 28, "resnet50": 32}
"""Smallest image side that leaves at least one pixel after every reduction, where that isn't 1."""
_WITH_DROPOUT: dict[str, Callable[..., Backbone]] = {"lenet5": LeNet5, "cnn9": CNN9}

MODELS = tuple(_BACKBONES)


def create_model(
    name: str,
    *,
    num_classes: int,
    channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    width: float = 1.0,
    attention: bool = False,
    dropout: float = 0.0,
) -> Network:
    """Build a network by name, in channels_last memory format.

    Args:
        name: one of MODELS.
        num_classes: C, at least 2.
        channels: of the images.
        image_size: (H, W); up to 64 the ResNets with basic blocks take the CIFAR stem.
        width: factor on the channels of every layer.
        attention: adds NAL's attention branch (Lu et al. 2022, section 3.1).
        dropout: in [0, 1), of lenet5's fully connected layers or after cnn9's pooling.

    Returns:
        A network that maps images [B, channels, H, W] to `Outputs`.

    Raises:
        ConfigError: unknown name, images too small for the network, a width that leaves no channels, or dropout for
            a network that has none.
    """
    if name not in _BACKBONES:
        raise ConfigError(f"unknown model {name!r}; {nearest(name, list(MODELS))}")
    if num_classes < 2:
        raise ConfigError(f"a classifier needs at least 2 classes, not {num_classes}")
    if not width > 0 or round(6 * width) < 1:
        raise ConfigError(f"--width {width} leaves layers with no channels; give a larger one")
    if min(image_size) < _SMALLEST.get(name, 1):
        raise ConfigError(
            f"{name} takes images of at least {_SMALLEST[name]}x{_SMALLEST[name]}, not "
            f"{image_size[0]}x{image_size[1]}; choose another --model"
        )
    if dropout and name not in _WITH_DROPOUT:
        raise ConfigError(
            f"--dropout {dropout}: {name} has no dropout; drop the option, or take one of: {', '.join(_WITH_DROPOUT)}"
        )
    shape = channels, image_size, width
    backbone = _WITH_DROPOUT[name](*shape, dropout) if dropout else _BACKBONES[name](*shape)
    network = Network(backbone, num_classes, attention)
    return network.to(memory_format=torch.channels_last)


__all__ = ["MODELS", "Backbone", "Network", "Outputs", "create_model"]
