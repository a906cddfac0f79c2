"""Wide residual networks."""

from torch import Tensor, nn

from .heads import Backbone
from .norm import BatchNorm2d, Layers
from .pool import GlobalAveragePool2d
from .resnet import PreActBlock

_GROUPS = (16, 32, 64)
"""Channels of the three groups at widening factor 1."""


class WideResNet(Backbone):
    """WRN-d-k: three groups of (d - 4) / 6 pre-activation blocks, k times as wide as a ResNet for CIFAR.

    Zagoruyko & Komodakis 2016 (arXiv:1605.07146), table 1, without dropout. Features: [B, 64 * k * width], the average
    over all pixels after the last batch norm and ReLU.

    Args:
        depth: d, 6 n + 4.
        widening: k.
        channels: of the images.
        width: factor on the channels of every layer, the stem's too.
    """

    def __init__(self, depth: int, widening: int, channels: int, width: float = 1.0):
        super().__init__()
        before = round(16 * width)
        layers: list[nn.Module] = [nn.Conv2d(channels, before, 3, padding=1, bias=False)]
        for group, planes in enumerate(_GROUPS):
            after = round(planes * widening * width)
            for position in range((depth - 4) // 6):
                layers.append(PreActBlock(before, after, 2 if group and position == 0 else 1))
                before = after
        self.num_features = before
        self.layers = Layers(*layers, BatchNorm2d(before), nn.ReLU(inplace=True), GlobalAveragePool2d())
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


def wrn28_10(channels: int, image_size: tuple[int, int], width: float = 1.0) -> WideResNet:
    """WRN-28-10, see `WideResNet`; 36.5 million parameters."""
    return WideResNet(28, 10, channels, width)
