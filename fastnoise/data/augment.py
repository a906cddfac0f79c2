"""How images are augmented, in one short line of words: `resize:256,crop:224,flip`. Imports no torch and no NumPy.

A spec is words with commas between them. What it asks for happens in this order, in which the words have to stand:

    resize:S | resize:HxW                               shorter side to S, aspect kept; or to H x W pixels
    random_resized_crop:S[,scale=0.08-1][,ratio=0.75-1.333]   a random part of the image, resized to S x S
    crop[:S][,pad=P] | center_crop:S                    S x S pixels at a random place, or from the middle
    flip | alternating_flip                             left to right, with probability 1/2 or in every other epoch
    rotate:DEG                                          by a random angle of at most DEG degrees
    jitter:J                                            brightness, contrast and saturation times 1 - J to 1 + J
    randaugment:N,M | autoaugment:POLICY                N random operations of magnitude M, or a pair of a policy
    cutout:SIDE                                         a square of the mean colour

S may be HxW everywhere. The name of a preset, or `none`, stands alone.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..errors import ConfigError, alternatives, nearest
from .facts import FACTS

Size = tuple[int, int]
"""Height and width in pixels."""

MOST_PIXELS = 65535
"""Of a side."""

POLICIES = ("cifar10", "imagenet")
"""Of AutoAugment."""

MOST_MAGNITUDE = 30
"""Of RandAugment's operations, as in torchvision, whose magnitudes are 0 to 30."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to each image, in the order of the fields, and then it is normalised and cut out.

    With `Augmentation(4, True)` images are cropped from their own size with 4 pixels of padding, and flipped.
    """

    crop_padding: int = 0
    """Pixels of zeros on each side from which a random crop may take; each place is equally likely."""
    flip: bool = False
    """Mirror each image with probability one half."""
    cutout: int = 0
    """Side of a square that is set to 0 after normalisation, which makes it the mean colour. Its centre is uniform over
    the pixels and what reaches over the border is clipped (DeVries and Taylor, "Improved Regularization of
    Convolutional Neural Networks with Cutout", 2017, section 3.2): rows c - side // 2 to c - side // 2 + side - 1
    around the centre's row c, and columns alike. 0: none."""
    resize: int | Size | None = None
    """First of all the shorter side becomes so many pixels and the other, in proportion, is rounded down as torchvision
    does; or both sides are given. Bilinear with antialiasing."""
    resized_crop: Size | None = None
    """A random part of the image is resized to this (Szegedy et al., "Going Deeper with Convolutions", 2015). It has a
    share of the image's pixels that is uniform in `scale` and a ratio of width to height whose logarithm is uniform in
    `ratio`. If ten draws give no part that fits, the largest part of an allowed ratio is taken from the middle, as in
    torchvision."""
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop: Size | None = None
    """Size of the crop. None: the image's own, and without padding there is no crop."""
    centred: bool = False
    """The crop comes from the middle. If the image is smaller than the crop, zeros surround it."""
    rotate: float = 0.0
    """The largest angle in degrees; the angle is uniform in both directions. Pixels are the nearest ones, and 0 outside
    the image."""
    jitter: float = 0.0
    """Brightness, contrast and saturation are multiplied, in this order, by factors that are uniform in
    [max(0, 1 - jitter), 1 + jitter]. Grey images have no saturation."""
    randaugment: tuple[int, int] | None = None
    """Number and magnitude of RandAugment's operations (Cubuk et al. 2020) with torchvision's table. With several views
    of a sample the first ones have none, as many as the method says: they are the weak views."""
    autoaugment: str | None = None
    """AutoAugment's policy, one of POLICIES, by the operations of `data.autoaugment`. With several views the weak
    ones have none."""
    alternating: bool = False
    """Of flip: a sample is mirrored in every other epoch, from the first or from the second on, which is drawn once for
    it (Jordan 2024, arXiv:2404.00498, section 3.6). So two epochs together show each image and its mirror image."""

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise ConfigError(f"the crop padding must be 0 or more pixels, not {self.crop_padding}")
        if not 0 <= self.cutout < 2**16:
            raise ConfigError(f"the side of the cutout must be 0 to 65535 pixels, not {self.cutout}")

    @classmethod
    def parse(cls, text: str, flag: str = "--augment") -> "Augmentation":
        """Read a spec; ConfigError in one line that begins with `flag` and names the word."""
        return _parse(cls, PRESETS[text].augment if text in PRESETS else text, flag)

    @classmethod
    def parse_evaluation(cls, text: str, flag: str = "--eval-augment") -> "Augmentation":
        """Read a spec for evaluation, in which nothing is random. A preset's name means its evaluation."""
        found = _parse(cls, PRESETS[text].eval_augment if text in PRESETS else text, flag)
        if words := found.random_words():
            raise ConfigError(
                f"{flag} {text}: {words[0]} is random, and evaluation is not; it takes resize and center_crop, as in "
                "resize:256,center_crop:224"
            )
        return found

    def evaluation_words(self) -> str:
        """A spec that `parse_evaluation` reads as this augmentation, of which nothing is random."""
        words = []
        if self.resize is not None:
            words.append(f"resize:{self.resize if isinstance(self.resize, int) else _shown(self.resize)}")
        if self.crop is not None:
            words.append(f"center_crop:{_shown(self.crop)}")
        return ",".join(words) or NONE

    def random_words(self) -> list[str]:
        """The words of the spec that draw."""
        found = {
            "random_resized_crop": self.resized_crop is not None,
            "crop": (self.crop is not None or self.crop_padding > 0) and not self.centred,
            "alternating_flip" if self.alternating else "flip": self.flip,
            "rotate": self.rotate > 0,
            "jitter": self.jitter > 0,
            "randaugment": self.randaugment is not None,
            "autoaugment": self.autoaugment is not None,
            "cutout": self.cutout > 0,
        }
        return [word for word, there in found.items() if there]

    @property
    def resizes(self) -> bool:
        """Whether images of any size are taken, so that files need no size in common."""
        return self.resize is not None or self.resized_crop is not None

    @property
    def places(self) -> bool:
        """Whether the crop is more than one of the image's own size from its padded self."""
        return self.resizes or self.crop is not None

    @property
    def recolours(self) -> bool:
        """Whether pixels change by what needs the whole image, so that loaders do it on the host."""
        return self.rotate > 0 or self.jitter > 0 or self.strong

    @property
    def strong(self) -> bool:
        """Whether views beside the weak ones are changed by operations of Pillow's, which no loader has on a GPU."""
        return self.randaugment is not None or self.autoaugment is not None

    @property
    def keyed(self) -> bool:
        """Whether anything is drawn that needs more than the draws of crop, flip and cutout."""
        varies = isinstance(self.resize, int) and self.crop is not None and not self.centred
        return self.resized_crop is not None or varies or self.recolours

    def simplified(self, size: Size) -> "Augmentation":
        """The same for images of this size, without a crop that says no more than their own size."""
        if isinstance(self.resize, int) or self.crop != self.resized(size):
            return self
        return replace(self, crop=None, centred=False)

    def corners(self, size: Size) -> tuple[list[int], list[int]] | None:
        """The first and last row and column at which the random crop may begin, of images that all have this size; None
        if there is no such crop, or if the images' sizes vary."""
        if self.centred or isinstance(self.resize, int) or (self.crop is None and not self.crop_padding):
            return None
        padding, grid = self.crop_padding, self.resized(size)
        crop = self.crop or grid
        return [-padding] * 2, [side + padding - part for side, part in zip(grid, crop, strict=True)]

    def resized(self, size: Size) -> Size:
        """The size of an image of this size once it is resized."""
        if self.resized_crop is not None:
            return self.resized_crop
        if isinstance(self.resize, int):
            height, width = size
            side = self.resize
            return (side, max(1, side * width // height)) if height <= width else (max(1, side * height // width), side)
        return self.resize or size

    def output_size(self, size: Size) -> Size:
        """The size of all images that come out, if those that go in have this size; ConfigError if it varies.

        For files of several sizes `resizes` must hold, and the size that is given does not matter.
        """
        if self.crop is not None:
            grid = (self.resize,) * 2 if isinstance(self.resize, int) else self.resized(size)
            if not self.centred and any(
                part > side + 2 * self.crop_padding for part, side in zip(self.crop, grid, strict=True)
            ):
                raise ConfigError(
                    f"the augmentation crop:{_shown(self.crop)} does not fit into images of {_shown(grid)} with "
                    f"{self.crop_padding} pixels of padding: resize more, pad more, or crop less"
                )
            return self.crop
        if isinstance(self.resize, int):
            raise ConfigError(
                f"the augmentation resize:{self.resize} keeps the aspect, and images of a batch have one size: add "
                f"crop:{self.resize} or center_crop:{self.resize}, or write resize:{self.resize}x{self.resize}"
            )
        return self.resized(size)


def _shown(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


class Preset(NamedTuple):
    """The published augmentation of a data set."""

    augment: str
    eval_augment: str


NONE = "none"
"""The spec that leaves images as they are."""

_CIFAR = Preset("crop,pad=4,flip", NONE)
_PLAIN = Preset(NONE, NONE)

PRESETS: Mapping[str, Preset] = {
    "digits": _PLAIN,
    "mnist": _PLAIN,
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "cifar10n": _CIFAR,
    "cifar100n": _CIFAR,
    **{name: Preset(facts.augment, facts.eval_augment) for name, facts in FACTS.items()},
}
"""Name -> the specs that it stands for. Those of cifar, mnist and digits are what their recipes have always done."""


# -- reading -------------------------------------------------------------------------------------------------


class _Word(NamedTuple):
    """A word of the grammar."""

    form: str
    """How it is written."""
    read: Callable[[str], dict[str, Any]]
    """From what stands behind the colon to fields; ValueError says what is wrong."""
    options: Mapping[str, Callable[[str], dict[str, Any]]] = {}
    stage: int = 0
    """Words of one stage exclude each other, and stages rise."""
    bare: bool = False
    """Whether nothing needs to stand behind it."""


def _side(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or not 1 <= int(text) <= MOST_PIXELS:
        raise ValueError(f"{text!r} is no number of pixels from 1 to {MOST_PIXELS}")
    return int(text)


def _size(text: str) -> Size:
    height, by, width = text.partition("x")
    return (_side(height), _side(width)) if by else (_side(text), _side(text))


def _number(text: str, low: float, high: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low < value <= high:
        raise ValueError(f"{text!r} is no {what} above {low:g} and up to {high:g}")
    return value


def _span(text: str, high: float, what: str) -> tuple[float, float]:
    first, dash, last = text.partition("-")
    if not dash:
        raise ValueError(f"{text!r} is no range, as in 0.5-1")
    found = _number(first, 0, high, what), _number(last, 0, high, what)
    if found[0] > found[1]:
        raise ValueError(f"{text!r} ends below its beginning")
    return found


def _randaugment(text: str) -> dict[str, Any]:
    parts = text.split(",")
    if len(parts) != 2 or not all(re.fullmatch(r"\d+", part) for part in parts):
        raise ValueError(f"{text!r} is not two integers, as in randaugment:2,10")
    count, magnitude = map(int, parts)
    if not 1 <= count <= 16:
        raise ValueError(f"{count} is no number of operations from 1 to 16")
    if magnitude > MOST_MAGNITUDE:
        raise ValueError(f"{magnitude} is no magnitude from 0 to {MOST_MAGNITUDE}")
    return {"randaugment": (count, magnitude)}


def _autoaugment(text: str) -> dict[str, Any]:
    if text not in POLICIES:
        raise ValueError(f"{text!r} is no policy; {nearest(text, list(POLICIES))}")
    return {"autoaugment": text}


def _padding(text: str) -> dict[str, Any]:
    if not re.fullmatch(r"\d+", text) or int(text) > 4096:
        raise ValueError(f"{text!r} is no number of pixels from 0 to 4096")
    return {"crop_padding": int(text)}


WORDS: Mapping[str, _Word] = {
    "resize": _Word(
        "resize:S or resize:HxW", lambda text: {"resize": _size(text) if "x" in text else _side(text)}, stage=0
    ),
    "random_resized_crop": _Word(
        "random_resized_crop:S,scale=0.08-1,ratio=0.75-1.333",
        lambda text: {"resized_crop": _size(text)},
        {
            "scale": lambda text: {"scale": _span(text, 1, "share")},
            "ratio": lambda text: {"ratio": _span(text, 100, "ratio")},
        },
        stage=0,
    ),
    "crop": _Word(
        "crop:S,pad=P", lambda text: {"crop": _size(text)} if text else {}, {"pad": _padding}, stage=1, bare=True
    ),
    "center_crop": _Word("center_crop:S", lambda text: {"crop": _size(text), "centred": True}, stage=1),
    "flip": _Word("flip", lambda text: {"flip": True}, stage=2, bare=True),
    "alternating_flip": _Word("alternating_flip", lambda text: {"flip": True, "alternating": True}, stage=2, bare=True),
    "rotate": _Word("rotate:DEG", lambda text: {"rotate": _number(text, 0, 180, "angle in degrees")}, stage=3),
    "jitter": _Word("jitter:J", lambda text: {"jitter": _number(text, 0, 10, "strength")}, stage=4),
    "randaugment": _Word("randaugment:N,M", _randaugment, stage=5),
    "autoaugment": _Word("autoaugment:POLICY", _autoaugment, stage=5),
    "cutout": _Word("cutout:SIDE", lambda text: {"cutout": _side(text)}, stage=6),
}
"""The words of the grammar, in the order in which they stand."""

HELP = f"{alternatives([word.form for word in WORDS.values()])}; or a preset: {alternatives([NONE, *PRESETS])}"
"""For help texts: what a spec is made of."""


def _parse(kind: type[Augmentation], text: str, flag: str) -> Augmentation:
    """A spec without presets, as `Augmentation.parse` reads it."""
    said = f"{flag} {text}:"
    if text == NONE:
        return kind()
    found: dict[str, Any] = {}
    last: str | None = None
    for name, value, options in _split(text, said):
        word = WORDS[name]
        if last is not None and word.stage <= WORDS[last].stage:
            if name == last:
                raise ConfigError(f"{said} {name} is given twice; drop one")
            if word.stage == WORDS[last].stage:
                raise ConfigError(f"{said} {last} and {name} exclude each other; drop one")
            raise ConfigError(f"{said} {name} is done before {last}; write {name} before it")
        if not value and not word.bare:
            raise ConfigError(f"{said} {name} needs a value: write {word.form}")
        if value and name == "flip":
            raise ConfigError(f"{said} flip takes no value: write flip")
        if name == "crop" and not value and "pad" not in options:
            raise ConfigError(f"{said} crop needs a size or padding: write crop:224 or crop,pad=4")
        try:
            found |= word.read(value)
            for key, option in options.items():
                found |= word.options[key](option)
        except ValueError as error:
            raise ConfigError(f"{said} {name}: {error}; write {word.form}") from None
        last = name
    return kind(**found)


def _split(text: str, said: str) -> list[tuple[str, str, dict[str, str]]]:
    """Each word of a spec with what stands behind its colon, and its options."""
    found: list[tuple[str, str, dict[str, str]]] = []
    for part in (piece.strip() for piece in text.split(",")):
        found_in = re.search("[:=]", part)
        place = len(part) if found_in is None else found_in.start()
        name, mark, value = part[:place].strip(), part[place : place + 1], part[place + 1 :].strip()
        before = found[-1] if found else None
        if name in WORDS:
            found.append((name, value, {}))
            if mark and not value:
                raise ConfigError(f"{said} {name} needs a value: write {WORDS[name].form}")
        elif before is not None and mark == "=" and name in WORDS[before[0]].options:
            if name in before[2]:
                raise ConfigError(f"{said} {before[0]} has {name} twice; drop one")
            before[2][name] = value
        elif before is not None and before[0] == "randaugment" and not mark and name.isdigit() and "," not in before[1]:
            found[-1] = (before[0], f"{before[1]},{name}", before[2])
        elif not part:
            raise ConfigError(
                f"{said} a word is missing; write words with one comma between them, as in crop,pad=4,flip"
            )
        elif name in PRESETS or name == NONE:
            raise ConfigError(f"{said} {name} stands alone; drop it or the other words")
        else:
            known = [*WORDS, *(WORDS[before[0]].options if before else ()), *([] if found else [NONE, *PRESETS])]
            raise ConfigError(f"{said} unknown word {name!r}; {nearest(name, known)}")
    return found
