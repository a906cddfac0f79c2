"""Image files that are the same, or look it: by their content and by their likeness."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MOST = 10
"""Bits of 256 by which the likenesses of near-duplicates differ at most."""
SHARE = 1 / 16
"""Of the bits that either has set: the most that differ. In an image that is flat but for a few strokes few bits are
set, and ten of them may be all that there is to see."""
LEAST = 16
"""Bits that are set at least. An image with fewer is flat, and looks like all flat ones."""

_BANDS = MOST + 1  # of two likenesses that differ in MOST bits, one of these parts must be the same in both
_AHEAD = 200  # neighbours in a band's order that an image is compared with
_BITS = np.array([value.bit_count() for value in range(256)], np.int64)


def same_content(digest: NDArray[np.uint8], chosen: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Groups of two or more of the `chosen` positions whose digests [F, 16] are equal, in the order of their first."""
    _, group = np.unique(digest[chosen], axis=0, return_inverse=True)
    return _groups(chosen, group.reshape(-1))


def alike(digest: NDArray[np.uint8], likeness: NDArray[np.uint8], chosen: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Groups of the `chosen` positions whose images look the same though their files differ.

    Two images are near-duplicates if their likenesses [F, 32] differ in at most MOST of 256 bits and in at most SHARE
    of those that are set: copies in another size or quality do, other images of a scene do not. A group holds what is
    linked by such pairs. Of files with equal content one stands for all. Few pairs are compared: only those that share
    a part of their likeness, found by sorting. Where more than 200 images share a part, as flat ones may, each is
    compared with its nearest 200 in that order.
    """
    _, first = np.unique(digest[chosen], axis=0, return_index=True)
    places = chosen[np.sort(first)]
    bits = np.unpackbits(likeness[places], axis=1)
    bright = bits.sum(1) >= LEAST
    places, bits = places[bright], bits[bright]
    packed = likeness[places]
    links = [pair for columns in np.array_split(np.arange(256), _BANDS) for pair in _pairs(bits[:, columns], packed)]
    if not links:
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, other = (np.concatenate(part) for part in zip(*links, strict=True))
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(len(places), len(places)))
    return _groups(places, connected_components(graph, directed=False)[1])


def _pairs(band: NDArray[np.uint8], packed: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of rows of `packed` [F, 32] that are near-duplicates and agree in a band of their bits [F, B]."""
    key = np.packbits(band, axis=1)
    order = np.lexsort((*packed.T[:4], *key.T))
    key, sorted_ = key[order], packed[order]
    for ahead in range(1, min(_AHEAD, len(order) - 1) + 1):
        one = np.flatnonzero((key[ahead:] == key[:-ahead]).all(1))
        if not len(one):
            return
        a, b = sorted_[one], sorted_[one + ahead]
        different = _BITS[a ^ b].sum(1)
        near = (different <= MOST) & (different <= SHARE * _BITS[a | b].sum(1))
        if near.any():
            yield order[one[near]], order[one[near] + ahead]


def _groups(places: NDArray[np.int64], group: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The places of each group of more than one, in the order of their first."""
    order = np.argsort(group, kind="stable")
    parts = np.split(places[order], np.flatnonzero(np.diff(group[order])) + 1) if len(order) else []
    return sorted((np.sort(part) for part in parts if len(part) > 1), key=lambda part: int(part[0]))
