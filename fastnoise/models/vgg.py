"""VGG-19 with batch normalisation and its two fully connected layers, as the papers train it on ANIMAL-10N."""

from torch import Tensor, nn

from .heads import Backbone
from .norm import BatchNorm2d, Layers

_STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and convolutions of each stage: configuration E of Simonyan & Zisserman 2015 (arXiv:1409.1556)."""
_POOLED = 7


class VGG19BN(Backbone):
    """VGG-19 with batch norm; features [B, 4096 * width] of the second fully connected layer.

    Each stage ends in 2x2 max pooling. An average over 7x7 parts follows, as in torchvision, so that images of 64x64
    pixels (ANIMAL-10N: SELFIE, PLC, SELC and NAL) have 25088 inputs to the first fully connected layer too. Weights
    begin as torchvision's do. With 10 classes it has 139.6 million parameters. The smallest images are 32x32.

    Args:
        channels: of the images.
        image_size: (H, W).
        width: factor on the units of every layer.
        dropout: after each fully connected layer.
    """

    smallest = 32

    def __init__(self, channels: int, image_size: tuple[int, int], width: float = 1.0, dropout: float = 0.5):
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for planes, depth in _STAGES:
            after = round(planes * width)
            for _ in range(depth):
                layers += [nn.Conv2d(before, after, 3, padding=1), BatchNorm2d(after), nn.ReLU(inplace=True)]
                before = after
            layers.append(nn.MaxPool2d(2))
        units = round(4096 * width)
        self.num_features = units
        self.layers = Layers(*layers, nn.AdaptiveAvgPool2d(_POOLED))
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Linear(before * _POOLED * _POOLED, units),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(units, units),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
            if isinstance(module, nn.Conv2d | nn.Linear):
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.hidden(self.layers(images))
        return features
