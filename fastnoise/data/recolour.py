"""What is done to whole images by Pillow, the same for all loaders: rotation, colour jitter, RandAugment, AutoAugment.

As torchvision does it on Pillow's images: the nearest pixel, and black outside the image. AutoAugment has operations
of its own (`data.autoaugment`).
"""

import math
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from . import autoaugment
from .augment import MOST_MAGNITUDE, Augmentation
from .placing import AUTOAUGMENT, JITTER, RANDAUGMENT, ROTATE, uniforms


def angles(augmentation: Augmentation, key: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Of rotations, [R] in degrees."""
    return augmentation.rotate * (2 * uniforms(key, ROTATE, 1)[:, 0] - 1)


def jitter_factors(augmentation: Augmentation, key: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Of brightness, contrast and saturation, [R, 3]."""
    low, high = max(0.0, 1 - augmentation.jitter), 1 + augmentation.jitter
    return low + (high - low) * uniforms(key, JITTER, 3)


def recolour(
    pixels: NDArray[np.uint8], augmentation: Augmentation, key: NDArray[np.uint64], weak: int, pool: Executor
) -> None:
    """Rotate, jitter and apply RandAugment or AutoAugment to images uint8 [V * B, H, W, C] in place, C being 1 or 3.

    Args:
        key: [V * B], of the draws.
        weak: rows, from the first on, that have neither of the last two.
        pool: whose threads do the work.
    """
    rows = len(pixels)
    angle, factors = angles(augmentation, key), jitter_factors(augmentation, key)
    count, magnitude = augmentation.randaugment or (0, 0)
    drawn = uniforms(key, RANDAUGMENT, 2 * count).reshape(rows, count, 2)
    chosen, negative = (drawn[..., 0] * len(OPERATIONS)).astype(int), drawn[..., 1] < 0.5
    policy = augmentation.autoaugment
    picks = uniforms(key, AUTOAUGMENT, 0 if policy is None else autoaugment.DRAWS)

    def work(row: int) -> None:
        grey = pixels.shape[3] == 1
        image = Image.fromarray(pixels[row, :, :, 0] if grey else pixels[row])
        if augmentation.rotate:
            image = image.rotate(angle[row])
        if augmentation.jitter:
            light, contrast, colour = factors[row].tolist()
            image = ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(light)).enhance(contrast)
            image = image if grey else ImageEnhance.Color(image).enhance(colour)
        if row >= weak:
            for operation, down in zip(chosen[row].tolist(), negative[row].tolist(), strict=True):
                image = OPERATIONS[operation](image, magnitude / MOST_MAGNITUDE, -1 if down else 1)
            if policy is not None:
                image = autoaugment.augment(image, policy, picks[row].tolist())
        pixels[row] = np.asarray(image).reshape(pixels.shape[1:])

    for _ in pool.map(work, range(rows)):
        pass


def _level(value: float) -> float:
    """A magnitude as torchvision has it, in float32."""
    return float(np.float32(value))


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def _identity(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return image


def _shear_x(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return _affine(image, 1, 0.3 * strength * sign, 0, 0, 1, 0)


def _shear_y(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return _affine(image, 1, 0, 0, 0.3 * strength * sign, 1, 0)


def _translate_x(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return _affine(image, 1, 0, -int(_level(150 / 331 * image.width * strength)) * sign, 0, 1, 0)


def _translate_y(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return _affine(image, 1, 0, 0, 0, 1, -int(_level(150 / 331 * image.height * strength)) * sign)


def _rotate(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return image.rotate(30 * strength * sign)


def _brightness(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1 + 0.9 * strength * sign)


def _colour(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return image if image.mode == "L" else ImageEnhance.Color(image).enhance(1 + 0.9 * strength * sign)


def _contrast(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(1 + 0.9 * strength * sign)


def _sharpness(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(1 + 0.9 * strength * sign)


def _posterize(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(4 * strength))


def _solarize(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.solarize(image, math.ceil(_level(255 * (1 - strength))))


def _autocontrast(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.equalize(image)


OPERATIONS: tuple[Callable[[Image.Image, float, int], Image.Image], ...] = (
    *(_identity, _shear_x, _shear_y, _translate_x, _translate_y, _rotate, _brightness, _colour, _contrast),
    *(_sharpness, _posterize, _solarize, _autocontrast, _equalize),
)
"""torchvision's table for RandAugment: from an image, the magnitude as a share of the largest, and a sign."""
