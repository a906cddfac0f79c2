"""SimCLR's augmentations (Chen et al. 2020, appendix A) of whole batches by tensors, inside a captured step."""

import math

import torch
from torch import Tensor, nn

from ..errors import ConfigError

LUMA = (0.299, 0.587, 0.114)
YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
DRAWS = 12
"""Uniform numbers that say how one image is augmented."""


def uniform(key: Tensor, count: int) -> Tensor:
    """float32 [count] in [0, 1), a function of `key` alone (int64 [], 63 bits) that a captured graph can compute.

    A counter is hashed with each half of the key by two rounds of shift, xor and multiplication. Factors below 2^31
    keep every product of int64 from overflowing, so that all backends agree.
    """
    x = torch.arange(count, device=key.device)
    for half in (key & 0xFFFFFFFF, key >> 32):
        x = x ^ half
        for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
            x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
        x = x ^ (x >> 15)
    return (x >> 8).float() * 2.0**-24


class SimCLRViews(nn.Module):
    """Random resized crop, colour jitter, greyscale and blur, each image by draws of its own.

    Flips are left to the loader. As in SimCLR, with jitter strength s: brightness, contrast and saturation by factors
    in 1 +- 0.8 s and hue by +- 0.2 s of the circle, in this order and together with probability 0.8; greyscale with
    probability 0.2; Gaussian blur of sigma 0.1 to 2 pixels with probability 1/2, its kernel about a tenth of the image
    wide. Deviations: hue is turned in YIQ, where the whole jitter is one affine map of each pixel, and values are
    clamped to [0, 1] once at its end; a crop wider or higher than the image is cut to it instead of drawn again. Images
    of other than three channels have no saturation, hue and greyscale.

    Args:
        mean, std: per channel, by which the images are normalised.
        min_area: of the crop, as a share of the image, in (0, 1]; its area is uniform up to 1, and the logarithm of its
            aspect ratio between log 3/4 and log 4/3.
        jitter: s, 0 or more.
    """

    key: Tensor
    mean: Tensor
    std: Tensor
    luma: Tensor
    turned: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], *, min_area: float = 0.08, jitter: float = 0.5):
        super().__init__()
        if not 0 < min_area <= 1:
            raise ConfigError(f"min_area is {min_area}: it must lie in (0, 1]")
        if not 0 <= jitter < math.inf:
            raise ConfigError(f"jitter is {jitter}: it must be 0 or more")
        self.min_area, self.jitter = min_area, jitter
        yiq = torch.tensor(YIQ, dtype=torch.float64)
        quarter_turn = torch.tensor([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
        self.register_buffer("key", torch.zeros((), dtype=torch.int64))
        for name, value in (
            ("mean", torch.tensor(mean).view(-1, 1, 1)),
            ("std", torch.tensor(std).view(-1, 1, 1)),
            ("luma", torch.tensor(LUMA).view(3, 1, 1)),
            ("turned", (yiq.inverse() @ quarter_turn @ yiq).float()),
        ):
            self.register_buffer(name, value, persistent=False)

    def draw(self, key: int) -> None:
        """Set the draws of the next batch, 0 <= key < 2^63; without a wait for the device."""
        self.key.fill_(key)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """images: float32 [B, C, H, W], normalised; returns the same form, channels_last."""
        draws = uniform(self.key, len(images) * DRAWS).view(-1, DRAWS, 1, 1, 1).unbind(1)
        pixels = self._crop(images.float(), *draws[:4]) * self.std + self.mean
        pixels = self._recolour(pixels, *draws[4:10])
        pixels = self._blur(pixels, *draws[10:])
        return ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _crop(self, images: Tensor, area: Tensor, ratio: Tensor, across: Tensor, down: Tensor) -> Tensor:
        count, _, height, width = images.shape
        area, log_ratio = self.min_area + (1 - self.min_area) * area, math.log(4 / 3) * (2 * ratio - 1)
        axes = []
        for side, other, sign, place in ((width, height, 1, across), (height, width, -1, down)):
            size = (area * (sign * log_ratio).exp() * (other / side)).sqrt().clamp(max=1).view(-1, 1)
            centre = (1 - size) * (2 * place.view(-1, 1) - 1)
            pixel = (2 * torch.arange(side, device=images.device) + 1) / side - 1  # grid_sample's coordinates
            axes.append(centre + size * pixel)
        x, y = axes[0][:, None, :].expand(count, height, width), axes[1][:, :, None].expand(count, height, width)
        grid = torch.stack([x, y], -1)
        return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _recolour(
        self, pixels: Tensor, chance: Tensor, light: Tensor, contrast: Tensor, colour: Tensor, hue: Tensor, grey: Tensor
    ) -> Tensor:
        """With Y the luma, c and b the factors of contrast and brightness, and m the mean of Y over the image: pixels
        become x' = c b x + (1 - c) b m, and then, turned by the angle a and saturated by s,
        Y' + s cos(a) (x' - Y') + s sin(a) (x' turned by 90 degrees). A grey image has s = 0."""
        jittered = chance < 0.8
        factors = [(1 + 0.8 * self.jitter * (2 * part - 1)).clamp(min=0) for part in (light, contrast, colour)]
        light, contrast, saturation = (torch.where(jittered, factor, 1.0) for factor in factors)
        chromatic = pixels.shape[1] == 3
        luma = (pixels * self.luma).sum(1, keepdim=True) if chromatic else pixels.mean(1, keepdim=True)
        pixels = light * (contrast * pixels + (1 - contrast) * luma.mean((2, 3), keepdim=True))
        if chromatic:
            angle = torch.where(jittered, 2 * math.pi * 0.2 * self.jitter * (2 * hue - 1), 0.0)
            saturation = torch.where(grey < 0.2, 0.0, saturation)
            luma = (pixels * self.luma).sum(1, keepdim=True)
            turned = (self.turned[:, :, None, None] * pixels[:, None]).sum(2)
            pixels = luma + saturation * (angle.cos() * (pixels - luma) + angle.sin() * turned)
        return pixels.clamp(0, 1)

    def _blur(self, pixels: Tensor, chance: Tensor, spread: Tensor) -> Tensor:
        radius = max(1, min(pixels.shape[2:]) // 20)
        offsets = torch.arange(-radius, radius + 1, device=pixels.device)
        sigma = 0.1 + 1.9 * spread.view(-1, 1)
        weights = (-(offsets**2) / (2 * sigma**2)).softmax(1)
        weights = torch.where(chance.view(-1, 1) < 0.5, weights, (offsets == 0).float())
        for dim, padding in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
            padded = nn.functional.pad(pixels, padding, mode="reflect")
            size = pixels.shape[dim]
            shifted = [weights[:, t].view(-1, 1, 1, 1) * padded.narrow(dim, t, size) for t in range(2 * radius + 1)]
            pixels = torch.stack(shifted).sum(0) if len(shifted) > 3 else shifted[0] + shifted[1] + shifted[2]
        return pixels
