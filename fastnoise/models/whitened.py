"""Networks for short courses: a frozen whitening convolution and three groups of convolutions.

After Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv:2404.00498 (airbench94 and
airbench96). Theirs also have learning rates of their own for biases, which these have not.
"""

import torch
from torch import Tensor, nn

from .heads import Backbone
from .norm import BatchNorm2d, normalised
from .pool import MaxPool2x2

SIDE = 2
"""Of the patches that are whitened, in pixels."""

FLOOR = 5e-4
"""Added to the patches' variances (section 3.2 there): directions without any stay finite."""

SCALE = 1 / 9
"""Of the features, and so of the logits."""


class Whitening(nn.Module):
    """A frozen 2x2 convolution without padding: [B, channels, H, W] -> [B, 8 * channels, H - 1, W - 1].

    Its filters are the eigenvectors of the covariance of 2x2 patches, each divided by the square root of its eigenvalue
    plus FLOOR, and the same negated. So it whitens patches, and the activation that follows loses nothing. They are a
    buffer, which checkpoints and model files hold; the bias is trained. Until `fit` the filters are drawn at random.
    """

    weight: Tensor

    def __init__(self, channels: int):
        super().__init__()
        size = SIDE * SIDE * channels
        self.num_maps = 2 * size
        drawn = torch.empty(size, channels, SIDE, SIDE)
        nn.init.orthogonal_(drawn)
        self.register_buffer("weight", torch.cat((drawn, -drawn)))
        self.bias = nn.Parameter(torch.zeros(self.num_maps))

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take the filters from images, float32 [N, channels, H, W] as the network gets them.

        Computed in float64 on the CPU. Of each eigenvector the entry of largest magnitude is positive, so that the
        filters do not depend on the library.
        """
        size = self.num_maps // 2
        total, squares, count = (torch.zeros(shape, dtype=torch.float64) for shape in ((size,), (size, size), ()))
        for part in images.split(256):
            patches = nn.functional.unfold(part.float().cpu(), SIDE).transpose(1, 2).reshape(-1, size).double()
            total += patches.sum(0)
            squares += patches.T @ patches
            count += len(patches)
        mean = total / count
        values, vectors = torch.linalg.eigh(squares / count - mean[:, None] * mean)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1).T
        signs = vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()
        filters = vectors * signs / (values[:, None] + FLOOR).sqrt()
        self.weight.copy_(torch.cat((filters, -filters)).reshape(self.weight.shape))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.conv2d(images, self.weight, self.bias)


def batch_norm(num_features: int) -> BatchNorm2d:
    """Batch norm whose scale stays 1; its shift is trained."""
    norm = BatchNorm2d(num_features)
    norm.weight.requires_grad_(False)
    return norm


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with padding 1 and without bias, whose first filters begin as the identity (`nn.init.dirac_`);
    the others are drawn as PyTorch draws them."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(channels_in, channels_out, 3, padding=1, bias=False)
        nn.init.dirac_(self.weight.data[:channels_in])


class ConvGroup(nn.Module):
    """A convolution, 2x2 max pooling, batch norm and GELU, and then further convolutions with batch norm and GELU.

    [B, channels_in, H, W] -> [B, channels_out, H // 2, W // 2]. With three convolutions, what leaves the first is added
    to what leaves the last, before its GELU.
    """

    def __init__(self, channels_in: int, channels_out: int, depth: int):
        super().__init__()
        self.pool, self.activation = MaxPool2x2(), nn.GELU()
        sources = (channels_in, *(channels_out,) * (depth - 1))
        self.convs = nn.ModuleList(Conv3x3(source, channels_out) for source in sources)
        self.norms = nn.ModuleList(batch_norm(channels_out) for _ in sources)
        self.residual = depth > 2

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.activation(self.norms[0](self.pool(self.convs[0](x))))
        last = len(self.convs) - 1
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if number:
                residual = first if self.residual and number == last else None
                x = normalised(norm, conv(x), self.activation, residual)
        return x


class WhitenedCNN(Backbone):
    """The whitening convolution with GELU, three groups of `depth` convolutions, and the maxima over all pixels,
    divided by 9.

    By default groups of three convolutions with 128, 384 and 512 maps times `width`, as in airbench96. Features:
    [B, 512 * width]. The smallest images are 9x9.
    """

    smallest = 9

    def __init__(
        self,
        channels: int,
        image_size: tuple[int, int],
        width: float = 1.0,
        *,
        maps: tuple[int, int, int] = (128, 384, 512),
        depth: int = 3,
    ):
        super().__init__()
        narrow, middle, wide = (max(1, round(count * width)) for count in maps)
        self.num_features = wide
        self.whitening = Whitening(channels)
        self.layers = nn.Sequential(
            nn.GELU(),
            ConvGroup(self.whitening.num_maps, narrow, depth),
            ConvGroup(narrow, middle, depth),
            ConvGroup(middle, wide, depth),
        )

    def fit(self, images: Tensor) -> None:
        self.whitening.fit(images)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(self.whitening(images)).amax((2, 3)) * SCALE
        return features


def whitened_cnn6(channels: int, image_size: tuple[int, int], width: float = 1.0) -> WhitenedCNN:
    """Groups of two convolutions with 64, 256 and 256 maps times `width`, as in airbench94. Features:
    [B, 256 * width]."""
    return WhitenedCNN(channels, image_size, width, maps=(64, 256, 256), depth=2)


whitened_cnn6.smallest = WhitenedCNN.smallest  # type: ignore[attr-defined]
