"""Class maps of asymmetric noise: class y is taken for `class_map(name, seed)[y]`; one mapped to itself stays.

The MNIST and CIFAR-10 maps are those of Patrini et al., "Making deep neural networks robust to label noise: a loss
correction approach" (CVPR 2017). CIFAR-100 has four, as that paper's description and the public codes that followed
it differ:

`block5`      the field's convention in code: the next id, cyclically, inside consecutive blocks of five fine ids. Fine
              ids are alphabetical, so that only 6 of the 100 pairs lie within one superclass.
`superclass`  what the papers describe: the next of the five members of the true superclass, cyclically in id order.
`sce`         the public code of SCE (Wang et al., ICCV 2019): in each of those blocks of five, one pair of classes,
              drawn with the noise seed, is swapped, so that 40 of the 100 classes change.
`cycle100`    the public code of DISC (Li et al., CVPR 2023): the next of all 100 ids.
"""

from ..checks import integer
from ..errors import ConfigError, nearest
from .draws import Purpose, words

# The superclass (coarse label) of each of CIFAR-100's 100 fine labels, in the data set's own ids.
CIFAR100_COARSE = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11),
    *(6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5),
    *(5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17),
    *(10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13),
    *(16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)


def _pairs(num_classes: int, pairs: dict[int, int]) -> tuple[int, ...]:
    return tuple(pairs.get(label, label) for label in range(num_classes))


def _cyclic(groups: list[list[int]]) -> tuple[int, ...]:
    """CIFAR-100: map each member of a group to the next one, the last to the first."""
    return _pairs(
        100,
        {label: group[(k + 1) % len(group)] for group in groups for k, label in enumerate(group)},
    )


CLASS_MAPS: dict[str, tuple[int, ...]] = {
    "mnist": _pairs(10, {7: 1, 2: 7, 3: 8, 5: 6, 6: 5}),
    "cifar10": _pairs(10, {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}),
    "block5": _cyclic([list(range(first, first + 5)) for first in range(0, 100, 5)]),
    "superclass": _cyclic([[fine for fine in range(100) if CIFAR100_COARSE[fine] == coarse] for coarse in range(20)]),
    "cycle100": _cyclic([list(range(100))]),
}
"""The maps that are the same for every seed."""

MAP_NAMES = (*CLASS_MAPS, "sce")


def class_map(name: str, seed: int) -> tuple[int, ...]:
    """The class map `name`, one of `MAP_NAMES`, of noise with this seed. ConfigError for other names and seeds."""
    if not isinstance(name, str) or name not in MAP_NAMES:
        raise ConfigError(f"unknown class map name {str(name)!r}: {nearest(str(name), list(MAP_NAMES))}")
    seed = integer("the noise seed", seed, 0, 2**64 - 1)
    if name != "sce":
        return CLASS_MAPS[name]
    pairs = [(one, other) for one in range(5) for other in range(one + 1, 5)]
    drawn = [pairs[int(word) * len(pairs) >> 32] for word in words(seed, Purpose.PAIRS, 20)]
    return _cyclic([[5 * block + one, 5 * block + other] for block, (one, other) in enumerate(drawn)])


# The map of a data set where the spec names none.
DATASET_MAPS = {
    "mnist": "mnist",
    "cifar10": "cifar10",
    "cifar10n": "cifar10",
    "cifar100": "block5",
    "cifar100n": "block5",
}
