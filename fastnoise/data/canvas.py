"""A multi-label set of real pixels without COCO: several MNIST digits on a canvas, labelled with which are there."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..checks import integer, require_memory
from ..errors import ConfigError, DataError
from .names import read_options
from .table import ImageDataset, ImageTable

MOST_DIGITS = 4
_INK = 20  # MNIST's digits are fitted into 20 x 20 pixels, and put into 28 x 28 by their centre of mass
_ROOM = 36
_LAYOUTS = 16  # drawn at once for each canvas that has none yet


def load_canvas(name: str, root: Path, download: bool) -> ImageDataset:
    """`images` canvases to train on and `test` ones, `side` pixels wide, of the digits in ROOT/MNIST/raw.

    first_group, 0 for five eighths, is the number of labels in the first of two groups, of which no canvas holds more
    than half; `seed` draws the canvases.
    """
    from .datasets import load_dataset

    options = {key: int(value) for key, value in read_options(name).items()}
    for key in ("images", "test"):
        if not options[key]:
            raise ConfigError(f"--dataset mnist-canvas: {key}=0 must be at least 1")
    digits = load_dataset("mnist", root, download=download)
    groups = group_ranges(digits.num_classes, options["first_group"] or None)
    tables = []
    for number, (source, count) in enumerate(((digits.train, options["images"]), (digits.test, options["test"]))):
        seed = int(np.random.SeedSequence([options["seed"], 1, number]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        pixels, labels = compose_canvases(source, count, options["side"], seed=seed, groups=groups)
        tables.append(ImageTable(labels, images=pixels, form="labels"))
    assert tables[0].images is not None
    mean, std = (float(value) / 255 for value in (tables[0].images.mean(), tables[0].images.std()))
    return ImageDataset(name, tables[0], tables[1], digits.class_names, (mean,), (std,), task="multilabel")


def group_ranges(num_classes: int, first_group: int | None) -> tuple[range, range]:
    """The two groups of labels, of which the first has five eighths by default: COCO's 1 to 50 and 51 to 80."""
    first = round(num_classes * 5 / 8) if first_group is None else first_group
    if not 2 <= first <= num_classes - 2:
        raise ConfigError(
            f"a first group of {first} labels: of {num_classes} labels each group needs at least 2, as one has no "
            "other to be swapped for"
        )
    return range(first), range(first, num_classes)


def compose_canvases(
    digits: ImageTable, count: int, side: int, *, seed: int, groups: Sequence[range]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Canvases uint8 [count, side, side, channels] and their labels uint8 [count, C], zeros and ones.

    A canvas holds one to four different digits, each number equally likely, at uniform places so far apart that the
    inner 20 x 20 pixels of no two of them meet, beyond which MNIST's digits seldom reach. Of each of `groups`, ranges
    of labels that together are all of them, it holds at most half: all of those can then be swapped for absent ones of
    their group. Which digits, which images of them and where is a function of the arguments.

    Args:
        digits: images of single digits with their labels, such as MNIST's.
        side: at least 36 pixels more than the digits', as else four don't fit, or hardly.

    Raises:
        DataError: the canvas is too small, a digit has no image, or a group has a single label.
    """
    source = digits.images
    if source is None:
        raise DataError("canvases are composed of images in memory, not of files")
    num_classes = groups[-1].stop
    height = max(digits.size)
    if side < height + _ROOM:
        needed = f"{height + _ROOM} x {height + _ROOM} or more"
        raise DataError(f"a canvas of {side} x {side} has no room for {MOST_DIGITS} digits; it takes {needed}")
    require_memory(f"{count} canvases of {side} x {side}", count * side * side * source.shape[3])
    positions = [np.flatnonzero(digits.labels == label) for label in range(num_classes)]
    for label, members in enumerate(positions):
        if not len(members):
            raise DataError(f"there is no image of the digit {label} to put on a canvas")
    for group in groups:
        if len(group) < 2:
            raise DataError(f"label {group.start} is a group of its own, and has no other to be swapped for")
    random = np.random.default_rng(integer("the seed", seed, 0, 2**64 - 1))
    order = random.permuted(np.tile(np.arange(num_classes), (count, 1)), axis=1)
    allowed = np.ones((count, num_classes), bool)
    for group in groups:
        inside = (order >= group.start) & (order < group.stop)
        allowed &= ~inside | (inside.cumsum(1) <= len(group) // 2)
    place = allowed.cumsum(1)
    wanted = random.integers(1, 1 + min(MOST_DIGITS, sum(len(group) // 2 for group in groups)), count)
    chosen = allowed & (place <= wanted[:, None])
    corners = _layouts(random, count, side - height + 1)
    canvases = np.zeros((count, side, side, source.shape[3]), np.uint8)
    labels = np.zeros((count, num_classes), np.uint8)
    for canvas, rank in np.argwhere(chosen).tolist():
        label = order[canvas, rank]
        labels[canvas, label] = 1
        image = source[random.choice(positions[label])]
        top, left = corners[canvas, place[canvas, rank] - 1]
        part = canvases[canvas, top : top + image.shape[0], left : left + image.shape[1]]
        np.maximum(part, image, out=part)
    return canvases, labels


def _layouts(random: np.random.Generator, count: int, room: int) -> NDArray[np.int64]:
    """[count, MOST_DIGITS, 2]: corners in [0, room), in each row uniform over those that are far enough apart."""
    corners = np.empty((count, MOST_DIGITS, 2), np.int64)
    left = np.arange(count)
    while len(left):
        drawn = random.integers(0, room, (len(left), _LAYOUTS, MOST_DIGITS, 2))
        gaps = np.abs(drawn[:, :, :, None] - drawn[:, :, None]).max(-1)
        apart = (gaps >= _INK).sum((2, 3)) == MOST_DIGITS * (MOST_DIGITS - 1)
        found = apart.any(1)
        corners[left[found]] = drawn[found, apart[found].argmax(1)]
        left = left[~found]
    return corners
