"""Convolutional networks for 8x8 images, without and with batch norm."""

from torch import Tensor, nn


class SmallNet(nn.Module):
    num_features = 32

    def __init__(self, channels: int, image_size: tuple[int, int]):
        super().__init__()
        pixels = 16 * (image_size[0] // 2) * (image_size[1] // 2)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(pixels, self.num_features),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


class NormNet(nn.Module):
    """With batch norm and without a bend: where a ReLU meets a zero, the last bit of a sum decides on a gradient."""

    num_features = 16

    def __init__(self, channels: int, image_size: tuple[int, int]):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.SiLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features
