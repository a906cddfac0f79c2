"""Noise on labels that aren't one class a sample: several at once, and real numbers.

As with heterogeneous noise on classes, a group of labels or a range of values is corrupted and the rest stays clean.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import as_array, integer, real, require_memory
from ..errors import ConfigError, DataError
from .draws import Purpose, uniforms
from .spec import class_ranges


def corrupt_multilabel(
    labels: ArrayLike,
    rate: float,
    *,
    seed: int,
    group: str,
    cardinality: Literal["kept", "free"] = "kept",
) -> NDArray[np.uint8]:
    """Swap positive labels of a group for other labels of that group; returns uint8 [N, C] of zeros and ones.

    labels       [N, C], bool or integer, 0 or 1
    rate         probability in [0, 1] that a positive label of the group is swapped, independently of others
    group        the labels that are corrupted, such as "0-49"; nothing enters or leaves the group
    cardinality  "kept": the new label is uniform over the group's labels that the sample neither had nor got, so that
                 its number of labels stays and every swap makes two errors; "free": uniform over the group's other
                 labels, so that it may fall on one that is there, and the number shrinks

    A sample's fate depends on the seed, its position and its row. Raises ConfigError for a bad rate, seed, group or
    cardinality, DataError for bad labels, and for a sample without enough absent labels to swap to.
    """
    array = as_array("labels", labels)
    if array.ndim != 2 or array.dtype.kind not in "biu" or not array.size:
        raise DataError(f"labels: must be zeros and ones [N, C], got {array.dtype} {list(array.shape)}")
    require_memory("labels", 80 * array.size)
    if ((array != 0) & (array != 1)).any():
        row, column = np.argwhere((array != 0) & (array != 1))[0]
        raise DataError(f"labels: entry [{row}, {column}] is {array[row, column]}, neither 0 nor 1")
    rate = real("rate", rate)
    if not 0 <= rate <= 1:
        raise ConfigError(f"the rate must be in [0, 1], got {rate!r}")
    seed = integer("the noise seed", seed, 0, 2**64 - 1)
    if not isinstance(cardinality, str) or cardinality not in ("kept", "free"):
        raise ConfigError(f"unknown cardinality {str(cardinality)!r}: valid: free, kept")
    num_samples, num_classes = array.shape
    ranges = class_ranges(str(group))
    if ranges[-1][1] >= num_classes:
        raise ConfigError(f"group={group}: label {ranges[-1][1]} is outside [0, {num_classes})")
    members = np.concatenate([np.arange(first, last + 1) for first, last in ranges])
    if len(members) < 2:
        raise ConfigError(f"group={group}: one label has no other to be swapped for")
    shape = (num_samples, num_classes)
    u = uniforms(seed, Purpose.SWAP, array.size).reshape(shape)[:, members]
    target = uniforms(seed, Purpose.SWAP_TARGET, array.size).reshape(shape)[:, members]
    given = array[:, members] == 1
    swapped = given & (u < rate)
    noisy = given & ~swapped
    if cardinality == "kept":
        short = swapped.sum(1) > (~given).sum(1)
        if short.any():
            row = int(short.argmax())
            raise DataError(
                f"sample {row}: {swapped[row].sum()} labels to swap and {(~given[row]).sum()} absent ones in "
                f"group={group}: take cardinality='free' or a larger group"
            )
        absent = ~given
    for column in range(len(members)):
        rows = np.flatnonzero(swapped[:, column])
        if cardinality == "free":
            other = (target[rows, column] * (len(members) - 1)).astype(np.int64)
            other += other >= column
        else:
            count = np.cumsum(absent[rows], 1)
            other = (count > np.floor(target[rows, column] * count[:, -1])[:, None]).argmax(1)
            absent[rows, other] = False
        noisy[rows, other] = True
    result = array.astype(np.uint8)
    result[:, members] = noisy
    return result


def corrupt_regression(values: ArrayLike, sigma: float, *, seed: int, low: float, high: float) -> NDArray[np.float64]:
    """Add Gaussian noise to the values in [low, high], cut so that they stay there; float64 [N].

    A value v in the range becomes a draw from N(v, sigma^2) conditioned on [low, high]; others are left as they are.
    values are finite and real, sigma > 0 in their unit. ConfigError for bad numbers, DataError for bad values.
    """
    from scipy.special import ndtr, ndtri

    array = as_array("values", values)
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not array.size:
        raise DataError(f"values: must be real numbers [N], got {array.dtype} {list(array.shape)}")
    require_memory("values", 100 * array.size)
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise DataError(f"values: position {int((~np.isfinite(array)).argmax())} is not finite")
    sigma, low, high = real("sigma", sigma), real("low", low), real("high", high)
    if not (np.isfinite([sigma, low, high]).all() and sigma > 0 and low < high):
        raise ConfigError(f"sigma must be above 0 and low below high, got sigma={sigma}, low={low}, high={high}")
    seed = integer("the noise seed", seed, 0, 2**64 - 1)
    inside = (array >= low) & (array <= high)
    v, u = array[inside], uniforms(seed, Purpose.REGRESSION, len(array))[inside]
    if high - low < 1e-6 * sigma:  # the density is even to within 1e-12, and its tails have no digits left
        array[inside] = np.clip(low + u * (high - low), low, high)
        return array
    # v lies inside, so that the range never lies in one tail, where the distribution function would lose its digits.
    with np.errstate(over="ignore"):  # infinitely many sigma away, which is right
        below, above = ndtr((low - v) / sigma), ndtr((high - v) / sigma)
        array[inside] = np.clip(v + sigma * ndtri(below + u * (above - below)), low, high)
    return array
