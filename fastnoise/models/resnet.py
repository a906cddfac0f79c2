"""ResNet and pre-activation ResNet with basic blocks, as backbones."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from .heads import Backbone
from .norm import BatchNorm2d, Layers, normalised
from .pool import GlobalAveragePool2d

SMALL_IMAGE = 64
"""Images up to this side get the CIFAR stem (3x3, stride 1, no pooling), larger ones ImageNet's."""

Activation = Literal["relu", "mish"]
_ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], type[nn.ReLU] | type[nn.Mish]]] = {
    "relu": (torch.relu, nn.ReLU),
    "mish": (nn.functional.mish, nn.Mish),
}
"""Each activation as a function, which leaves its input alone, and as a module that may overwrite its input."""


def _conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)


def _projection(channels_in: int, channels_out: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)


class BasicBlock(nn.Module):
    """conv-bn-relu-conv-bn, added to the shortcut, relu (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, activation: Activation = "relu"):
        super().__init__()
        self.activation = _ACTIVATIONS[activation][0]
        self.conv1, self.bn1 = _conv3x3(channels_in, channels_out, stride), BatchNorm2d(channels_out)
        self.conv2, self.bn2 = _conv3x3(channels_out, channels_out), BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(_projection(channels_in, channels_out, stride), BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        out = normalised(self.bn1, self.conv1(x), self.activation)
        return normalised(self.bn2, self.conv2(out), self.activation, self.shortcut(x))


class PreActBlock(nn.Module):
    """bn-relu-conv-bn-relu-conv, added to the shortcut (He et al. 2016, arXiv:1603.05027).

    A projection shortcut branches off after the first bn-relu. An identity shortcut carries the block's input.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, activation: Activation = "relu"):
        super().__init__()
        self.activation = _ACTIVATIONS[activation][0]
        self.bn1, self.conv1 = BatchNorm2d(channels_in), _conv3x3(channels_in, channels_out, stride)
        self.bn2, self.conv2 = BatchNorm2d(channels_out), _conv3x3(channels_out, channels_out)
        self.projection: nn.Module | None = None
        if stride != 1 or channels_in != channels_out:
            self.projection = _projection(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = normalised(self.bn1, x, self.activation)
        shortcut = self.identity(x, activated) if self.projection is None else self.projection(activated)
        out = self.conv1(activated)
        return self.conv2(normalised(self.bn2, out, self.activation)) + shortcut

    @staticmethod
    def identity(x: Tensor, activated: Tensor) -> Tensor:
        """What a shortcut without a projection carries: the block's input."""
        return x


class ActivatedShortcutBlock(PreActBlock):
    """PreActBlock in which every shortcut branches off after the first bn-relu, the identity too.

    This is the block of the networks of ELR+, DivideMix, SELC and NAL (the authors' code).
    """

    @staticmethod
    def identity(x: Tensor, activated: Tensor) -> Tensor:
        """What a shortcut without a projection carries: relu(bn(x))."""
        return activated


class ResNet(Backbone):
    """Four stages of basic blocks; features [B, 512 * width] after global average pooling.

    Args:
        block: BasicBlock, PreActBlock or ActivatedShortcutBlock. With PreActBlock the stem is a bare convolution, and
            batch norm and activation follow the last block. With the others both stand in the stem instead.
        depths: number of blocks in each stage, (2, 2, 2, 2) for 18 layers and (3, 4, 6, 3) for 34.
        channels: of the images.
        image_size: (H, W); decides the stem (see SMALL_IMAGE).
        width: factor on every layer's channels.
        activation: in place of every ReLU; "mish" is x tanh(log(1 + e^x)) (Misra 2020, arXiv:1908.08681).
    """

    def __init__(
        self,
        block: type[BasicBlock | PreActBlock],
        depths: tuple[int, ...],
        channels: int,
        image_size: tuple[int, int],
        width: float = 1.0,
        activation: Activation = "relu",
    ):
        super().__init__()
        module = _ACTIVATIONS[activation][1]
        planes = [round(64 * width * factor) for factor in (1, 2, 4, 8)]
        preact = block is PreActBlock
        small = max(image_size) <= SMALL_IMAGE
        stem: list[nn.Module] = [
            _conv3x3(channels, planes[0])
            if small
            else nn.Conv2d(channels, planes[0], 7, stride=2, padding=3, bias=False)
        ]
        if not preact:
            stem += [BatchNorm2d(planes[0]), module(inplace=True)]
        if not small:
            stem.append(nn.MaxPool2d(3, stride=2, padding=1))
        blocks: list[nn.Module] = []
        width_in = planes[0]
        for stage, (width_out, depth) in enumerate(zip(planes, depths, strict=True)):
            for position in range(depth):
                blocks.append(block(width_in, width_out, 2 if stage and position == 0 else 1, activation))
                width_in = width_out
        last: list[nn.Module] = [BatchNorm2d(width_in), module(inplace=True)] if preact else []
        self.num_features = width_in
        self.layers = Layers(*stem, *blocks, *last, GlobalAveragePool2d())
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def resnet18(channels: int, image_size: tuple[int, int], width: float = 1.0) -> ResNet:
    """ResNet-18, see `ResNet`."""
    return ResNet(BasicBlock, (2, 2, 2, 2), channels, image_size, width)


def resnet18_mish(channels: int, image_size: tuple[int, int], width: float = 1.0) -> ResNet:
    """ResNet-18 with Mish in place of every ReLU, see `ResNet`."""
    return ResNet(BasicBlock, (2, 2, 2, 2), channels, image_size, width, "mish")


def resnet34(channels: int, image_size: tuple[int, int], width: float = 1.0) -> ResNet:
    """ResNet-34, see `ResNet`."""
    return ResNet(BasicBlock, (3, 4, 6, 3), channels, image_size, width)


def preact_resnet18(channels: int, image_size: tuple[int, int], width: float = 1.0) -> ResNet:
    """Pre-activation ResNet-18, see `ResNet`."""
    return ResNet(PreActBlock, (2, 2, 2, 2), channels, image_size, width)


def preact_resnet18_bn_stem(channels: int, image_size: tuple[int, int], width: float = 1.0) -> ResNet:
    """The pre-activation ResNet-18 of ELR+, DivideMix, SELC and NAL, as their code has it.

    Its stem is conv-bn-relu, nothing follows the last block but the average, and every shortcut branches off after its
    block's first bn-relu. SELC's and NAL's code calls it PreResNet34. See `ResNet` and `ActivatedShortcutBlock`.
    """
    return ResNet(ActivatedShortcutBlock, (2, 2, 2, 2), channels, image_size, width)


def preact_resnet34(channels: int, image_size: tuple[int, int], width: float = 1.0) -> ResNet:
    """Pre-activation ResNet-34, see `ResNet`."""
    return ResNet(PreActBlock, (3, 4, 6, 3), channels, image_size, width)
