"""torchvision's ResNet-50 as a backbone, apart from the other ResNets since torchvision takes a second to import."""

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from ..errors import ConfigError
from .heads import Backbone
from .norm import BatchNorm2d, normalised
from .pool import GlobalAveragePool2d


class _Bottleneck(Bottleneck):
    """torchvision's block, whose batch norms can be one op with what follows them."""

    def forward(self, x: Tensor) -> Tensor:
        out = normalised(self.bn1, self.conv1(x), self.relu)
        out = normalised(self.bn2, self.conv2(out), self.relu)
        return normalised(self.bn3, self.conv3(out), self.relu, x if self.downsample is None else self.downsample(x))


class ResNet50(Backbone):
    """torchvision's ResNet-50 as a backbone; features [B, 2048].

    `width` widens only the 3x3 convolutions, as torchvision's wide_resnet50_2 does (width 2); the number of features
    stays. The stem is ImageNet's for every image size.
    """

    smallest = 32

    def __init__(self, channels: int, image_size: tuple[int, int], width: float = 1.0):
        super().__init__()
        if round(64 * width) < 1:
            raise ConfigError(f"--width {width} leaves resnet50 with no channels; give at least {1 / 64}")
        network = ResNet(_Bottleneck, [3, 4, 6, 3], width_per_group=round(64 * width), norm_layer=BatchNorm2d)
        if channels != 3:
            network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.num_features = network.fc.in_features
        network.avgpool, network.fc = GlobalAveragePool2d(), nn.Identity()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)
