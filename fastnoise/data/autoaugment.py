"""AutoAugment's policies (Cubuk et al. 2019) by Pillow, as in the code that methods of this field share.

That code is github.com/DeepVoltaire/AutoAugment in the form of SSR. Unlike torchvision's it turns in one direction
only, moves by fractions of a pixel, shears bicubically, and is grey outside the image.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from PIL import Image, ImageEnhance, ImageOps

DRAWS = 5
"""Uniform numbers of one image: its pair of operations, and of each operation whether it is done and its sign."""

GREY = 128
LEVELS = 9
"""The highest level."""

Operation = Callable[[Image.Image, float, int], Image.Image]
"""Takes an image, a level as a share of the highest, and a sign."""


def augment(image: Image.Image, policy: str, draws: Sequence[float]) -> Image.Image:
    """Apply one pair of operations of a policy; `draws` are DRAWS numbers in [0, 1)."""
    pairs = POLICIES[policy]
    steps = zip(pairs[int(draws[0] * len(pairs))], (draws[1:3], draws[3:5]), strict=True)
    for (name, chance, level), (done, sign) in steps:
        if done < chance:
            image = OPERATIONS[name](image, level / LEVELS, -1 if sign < 0.5 else 1)
    return image


def _outside(image: Image.Image) -> int | tuple[int, int, int]:
    """The colour of what comes in from outside the image."""
    return GREY if image.mode == "L" else (GREY, GREY, GREY)


def _affine(image: Image.Image, matrix: tuple[float, ...], resample: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=_outside(image))


def _shear_x(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return _affine(image, (1, 0.3 * strength * sign, 0, 0, 1, 0), Image.Resampling.BICUBIC)


def _shear_y(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return _affine(image, (1, 0, 0, 0.3 * strength * sign, 1, 0), Image.Resampling.BICUBIC)


def _translate_x(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return _affine(image, (1, 0, 150 / 331 * strength * image.width * sign, 0, 1, 0), Image.Resampling.NEAREST)


def _translate_y(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, 150 / 331 * strength * image.height * sign), Image.Resampling.NEAREST)


def _rotate(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return image.rotate(30 * strength, fillcolor=_outside(image))


def _enhance(by: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, strength, sign: by(image).enhance(1 + 0.9 * strength * sign)


def _posterize(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.posterize(image, round(8 - 4 * strength))


def _solarize(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.solarize(image, math.ceil(256 * (1 - strength)))


OPERATIONS: Mapping[str, Operation] = {
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "brightness": _enhance(ImageEnhance.Brightness),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": lambda image, strength, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, sign: ImageOps.equalize(image),
    "invert": lambda image, strength, sign: ImageOps.invert(image),
}

Step = tuple[str, float, int]
"""An operation, the probability that it is done, and its level from 0 to LEVELS."""


def _read(table: str) -> tuple[tuple[Step, Step], ...]:
    """A policy of a pair a line: `invert .1 7, contrast .2 6`."""
    lines = [[step.split() for step in line.split(",")] for line in table.strip().splitlines()]
    steps = [[(name, float(chance), int(level)) for name, chance, level in line] for line in lines]
    return tuple((first, second) for first, second in steps)


POLICIES: Mapping[str, tuple[tuple[Step, Step], ...]] = {
    # In torchvision and the paper the second equalize of the 17th pair has probability .6.
    "cifar10": _read("""
        invert .1 7, contrast .2 6
        rotate .7 2, translate_x .3 9
        sharpness .8 1, sharpness .9 3
        shear_y .5 8, translate_y .7 9
        autocontrast .5 8, equalize .9 2
        shear_y .2 7, posterize .3 7
        color .4 3, brightness .6 7
        sharpness .3 9, brightness .7 9
        equalize .6 5, equalize .5 1
        contrast .6 7, sharpness .6 5
        color .7 7, translate_x .5 8
        equalize .3 7, autocontrast .4 8
        translate_y .4 3, sharpness .2 6
        brightness .9 6, color .2 8
        solarize .5 2, invert .0 3
        equalize .2 0, autocontrast .6 0
        equalize .2 8, equalize .8 4
        color .9 9, equalize .6 6
        autocontrast .8 4, solarize .2 8
        brightness .1 3, color .7 0
        solarize .4 5, autocontrast .9 3
        translate_y .9 9, translate_y .7 9
        autocontrast .9 2, solarize .8 3
        equalize .8 8, invert .1 3
        translate_y .7 9, autocontrast .9 1
    """),
    "imagenet": _read("""
        posterize .4 8, rotate .6 9
        solarize .6 5, autocontrast .6 5
        equalize .8 8, equalize .6 3
        posterize .6 7, posterize .6 6
        equalize .4 7, solarize .2 4
        equalize .4 4, rotate .8 8
        solarize .6 3, equalize .6 7
        posterize .8 5, equalize 1 2
        rotate .2 3, solarize .6 8
        equalize .6 8, posterize .4 6
        rotate .8 8, color .4 0
        rotate .4 9, equalize .6 2
        equalize .0 7, equalize .8 8
        invert .6 4, equalize 1 8
        color .6 4, contrast 1 8
        rotate .8 8, color 1 2
        color .8 8, solarize .8 7
        sharpness .4 7, invert .6 8
        shear_x .6 5, equalize 1 9
        color .4 0, equalize .6 3
        equalize .4 7, solarize .2 4
        solarize .6 5, autocontrast .6 5
        invert .6 4, equalize 1 8
        color .6 4, contrast 1 8
        equalize .8 8, equalize .6 3
    """),
}
