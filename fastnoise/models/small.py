"""Small networks for small images: narrow convolutional networks with batch norm, and LeNet-5."""

from itertools import pairwise

from torch import Tensor, nn

from .heads import Backbone
from .norm import BatchNorm2d, Layers
from .pool import GlobalAveragePool2d, MaxPool2x2


def _conv(channels_in: int, channels_out: int) -> Layers:
    return Layers(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class SmallCNN(Backbone):
    """Four 3x3 convolutions with batch norm, a stride of 2 after each pair, global average pooling.

    Features: [B, 64 * width]. Takes images of any size from 4x4 up.
    """

    smallest = 4

    def __init__(self, channels: int, image_size: tuple[int, int], width: float = 1.0):
        super().__init__()
        narrow, wide = round(32 * width), round(64 * width)
        self.num_features = wide
        self.layers = nn.Sequential(
            _conv(channels, narrow),
            _conv(narrow, narrow),
            MaxPool2x2(),
            _conv(narrow, wide),
            _conv(wide, wide),
            GlobalAveragePool2d(),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class CNN4(Backbone):
    """The network of SCE's and APL's code for MNIST: two 3x3 convolutions and two fully connected layers.

    32 and 64 maps, each with batch norm, ReLU and max pooling, then 128 units with batch norm and ReLU. Features:
    [B, 128 * width]. With 10 classes and 28x28 images it has 422,090 parameters. The fully connected layer is a
    convolution as large as its input. The smallest images are 4x4.
    """

    smallest = 4

    def __init__(self, channels: int, image_size: tuple[int, int], width: float = 1.0):
        super().__init__()
        narrow, middle, wide = (round(maps * width) for maps in (32, 64, 128))
        self.num_features = wide

        def layer(channels_in: int, channels_out: int, kernel: tuple[int, int], padding: int) -> list[nn.Module]:
            conv = nn.Conv2d(channels_in, channels_out, kernel, padding=padding)
            return [conv, BatchNorm2d(channels_out), nn.ReLU(inplace=True)]

        self.layers = Layers(
            *layer(channels, narrow, (3, 3), 1),
            MaxPool2x2(),
            *layer(narrow, middle, (3, 3), 1),
            MaxPool2x2(),
            *layer(middle, wide, (image_size[0] // 4, image_size[1] // 4), 0),
            nn.Flatten(),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class CNN7(Backbone):
    """The network of JoCoR's code for CIFAR: six 3x3 convolutions with batch norm and ReLU (Wei et al. 2020, Table 2).

    64, 64, 128, 128, 196 and 16 maps; max pooling follows each pair. Features: what is left of the 16 maps, [B, 256 *
    width] of 32x32 images. With 10 classes and three channels it has 518,150 parameters. The smallest images are 8x8.
    """

    smallest = 8

    def __init__(self, channels: int, image_size: tuple[int, int], width: float = 1.0):
        super().__init__()
        maps = [round(n * width) for n in (64, 64, 128, 128, 196, 16)]
        self.num_features = maps[-1] * (image_size[0] // 8) * (image_size[1] // 8)
        layers: list[nn.Module] = []
        for place, (before, after) in enumerate(pairwise([channels, *maps])):
            layers += [nn.Conv2d(before, after, 3, padding=1), BatchNorm2d(after), nn.ReLU(inplace=True)]
            layers += [MaxPool2x2()] if place % 2 else []
        self.layers = Layers(*layers, nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class LeNet5(Backbone):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling, as the noisy-label papers use it on MNIST.

    Features: [B, 84 * width]. Two 5x5 convolutions have 6 and 16 maps; the first is padded by 2, so that 28x28 images
    give the original's 5x5 maps. Fully connected layers of 120 and 84 units follow. The smallest images are 12x12.
    Training with dropout p sets each of these units to zero with probability p and multiplies the others by 1 / (1 -
    p).
    """

    smallest = 12

    def __init__(self, channels: int, image_size: tuple[int, int], width: float = 1.0, dropout: float = 0.0):
        super().__init__()

        def hidden_activation() -> nn.Module:  # one module either way, so that weights are called the same in files
            relu = nn.ReLU(inplace=True)
            return nn.Sequential(relu, nn.Dropout(dropout)) if dropout else relu

        maps1, maps2, hidden, features = (round(n * width) for n in (6, 16, 120, 84))
        height, breadth = ((side // 2 - 4) // 2 for side in image_size)
        self.num_features = features
        self.layers = nn.Sequential(
            nn.Conv2d(channels, maps1, 5, padding=2),
            MaxPool2x2(),  # before the ReLU, which it commutes with: a quarter of the work, the same numbers
            nn.ReLU(inplace=True),
            nn.Conv2d(maps1, maps2, 5),
            MaxPool2x2(),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(maps2 * height * breadth, hidden),
            hidden_activation(),
            nn.Linear(hidden, features),
            hidden_activation(),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
