"""Networks on frozen features: what lies before the classifier is nothing, or one hidden layer."""

from torch import Tensor, nn

from ..errors import ConfigError
from .heads import Backbone


class Linear(Backbone):
    """Nothing before the linear classifier: the features are the numbers that come in, [B, C * H * W]."""

    def __init__(self, channels: int, image_size: tuple[int, int], width: float = 1.0):
        super().__init__()
        if width != 1:
            raise ConfigError(f"--width {width}: linear has no hidden layer; drop the option, or take --model mlp")
        self.num_features = channels * image_size[0] * image_size[1]

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class MLP(Backbone):
    """One hidden layer of 512 * width units with ReLU. Features: [B, 512 * width].

    Training with dropout p sets each unit to zero with probability p and multiplies the others by 1 / (1 - p).
    """

    def __init__(self, channels: int, image_size: tuple[int, int], width: float = 1.0, dropout: float = 0.0):
        super().__init__()
        self.num_features = round(512 * width)
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * image_size[0] * image_size[1], self.num_features),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
