"""The network of nine layers that co-teaching and its successors train on small images."""

from typing import ClassVar

from torch import Tensor, nn

from .heads import Backbone
from .norm import BatchNorm2d
from .pool import GlobalAveragePool2d


def _conv(channels_in: int, channels_out: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=padding),
        BatchNorm2d(channels_out),
        nn.LeakyReLU(0.01, inplace=True),
    )


class AlwaysDropout2d(nn.Dropout2d):
    """Dropout of whole channels in training and in evaluation alike."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.dropout2d(images, self.p, training=True)


class CNN9(Backbone):
    """Nine 3x3 convolutions with batch norm and leaky ReLU (Han et al. 2018, Table 2).

    Three convolutions have 128 maps and three have 256; after each three come max pooling and dropout of single units.
    Then follow 512, 256 and 128 maps without padding, and global average pooling. Features: [B, 128 * width]. The
    smallest images are 28x28.
    """

    smallest = 28
    drop: ClassVar[type[nn.Module]] = nn.Dropout

    def __init__(self, channels: int, image_size: tuple[int, int], width: float = 1.0, dropout: float = 0.0):
        super().__init__()
        narrow, middle, wide = (round(maps * width) for maps in (128, 256, 512))
        self.num_features = narrow
        self.layers = nn.Sequential(
            _conv(channels, narrow, 1),
            _conv(narrow, narrow, 1),
            _conv(narrow, narrow, 1),
            nn.MaxPool2d(2),
            self.drop(dropout),
            _conv(narrow, middle, 1),
            _conv(middle, middle, 1),
            _conv(middle, middle, 1),
            nn.MaxPool2d(2),
            self.drop(dropout),
            _conv(middle, wide, 0),
            _conv(wide, middle, 0),
            _conv(middle, narrow, 0),
            GlobalAveragePool2d(),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class CNN9Dropout2d(CNN9):
    """CNN9 with dropout of whole channels, as in the code of co-teaching, but in training only."""

    drop = nn.Dropout2d


class CNN9Dropout2dAlways(CNN9):
    """CNN9 as the code of co-teaching has it: it drops whole channels, and in evaluation too, so that two evaluations
    of the same images differ. `F.dropout2d` drops unless it is told that the network does not train."""

    drop = AlwaysDropout2d
