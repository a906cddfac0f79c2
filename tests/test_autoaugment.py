"""AutoAugment's policies: the table beside torchvision's, the operations beside the authors' written out."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from fastnoise.data import autoaugment
from fastnoise.data.augment import POLICIES


def picture(channels: int) -> Image.Image:
    rng = np.random.default_rng(3)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((24, 20), Image.Resampling.BILINEAR)
    return image if channels == 3 else image.convert("L")


def authors(name: str, level: int, sign: int, image: Image.Image) -> Image.Image:
    """SubPolicy of SSR's utils/autoaugment.py; `sign` is its random.choice([-1, 1])."""
    grey = (128,) * 3 if image.mode == "RGB" else 128

    def affine(*matrix: float, how: Image.Resampling = Image.Resampling.NEAREST) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, how, fillcolor=grey)

    def rotate() -> Image.Image:
        turned = image.convert("RGBA").rotate(np.linspace(0, 30, 10)[level])
        return Image.composite(turned, Image.new("RGBA", turned.size, (128,) * 4), turned).convert(image.mode)

    shear, move, enhance = (np.linspace(0, end, 10)[level] for end in (0.3, 150 / 331, 0.9))
    bits = int(np.round(np.linspace(8, 4, 10), 0)[level])
    return {
        "shear_x": lambda: affine(1, shear * sign, 0, 0, 1, 0, how=Image.Resampling.BICUBIC),
        "shear_y": lambda: affine(1, 0, 0, shear * sign, 1, 0, how=Image.Resampling.BICUBIC),
        "translate_x": lambda: affine(1, 0, move * image.size[0] * sign, 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, move * image.size[1] * sign),
        "rotate": rotate,
        "color": lambda: ImageEnhance.Color(image).enhance(1 + enhance * sign),
        "posterize": lambda: ImageOps.posterize(image, bits),
        "solarize": lambda: ImageOps.solarize(image, np.linspace(256, 0, 10)[level]),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(1 + enhance * sign),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(1 + enhance * sign),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(1 + enhance * sign),
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
    }[name]()


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_are_torchvision_s_but_for_one_probability(policy: str) -> None:
    from torchvision.transforms.autoaugment import AutoAugment, AutoAugmentPolicy

    theirs = [
        [(name.lower(), chance, level) for name, chance, level in pair]
        for pair in AutoAugment(AutoAugmentPolicy[policy.upper()]).policies
    ]
    bare = {"autocontrast", "equalize", "invert"}  # which have no level
    ours = [
        [(name.replace("_", ""), chance, None if name in bare else level) for name, chance, level in pair]
        for pair in autoaugment.POLICIES[policy]
    ]
    if policy == "cifar10":
        assert ours[16][1] == ("equalize", 0.8, None)
        ours[16][1] = ("equalize", 0.6, None)
    assert ours == theirs


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_pairs_are_applied_as_the_authors_do(policy: str, channels: int) -> None:
    """Both operations, each alone or none, and both signs, at every pair of the policy."""
    image, pairs = picture(channels), autoaugment.POLICIES[policy]
    changed = 0
    for number, pair in enumerate(pairs):
        for done in ((0, 0), (0, 1), (1, 0), (1, 1)):
            for signs in ((-1, 1), (1, -1)):
                # a draw at the probability itself is not below it
                chances = [max(0, step[1] - 1e-9 * do) for step, do in zip(pair, done, strict=True)]
                draws = [(number + 0.5) / len(pairs)]
                for chance, sign in zip(chances, signs, strict=True):
                    draws += [chance, 0.25 if sign < 0 else 0.75]
                expected = image
                for (name, probability, level), do, sign in zip(pair, done, signs, strict=True):
                    if do and probability:
                        expected = authors(name, level, sign, expected)
                found = np.asarray(autoaugment.augment(image, policy, draws))
                assert np.array_equal(found, np.asarray(expected)), (pair, done, signs)
                changed += not np.array_equal(found, np.asarray(image))
    assert changed > len(pairs) * 5
