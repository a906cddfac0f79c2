"""Noise that depends on what a sample looks like (`idn`) or on how sure a trained network is of it (`pmd`).

The numbers drawn are those of the counter-based generator, keyed by seed, position and purpose. What the inputs are
multiplied with goes through the BLAS, whose rounding may differ between machines: the same inputs give the same labels
on one machine, and the same but for ties to within rounding on all.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import as_array, integer, require_memory
from ..errors import ConfigError, DataError
from .draws import Purpose, Reals, normals, quota, uniforms
from .spec import NoiseSpec

Labels = NDArray[np.int64]

_RATE_SPREAD = 0.1  # standard deviation of the samples' flip rates, Xia et al.
_ROWS = 4096  # inputs in float64 at a time
_SUM_TOLERANCE = 1e-3  # of posteriors, so that half-precision softmax passes


def idn(
    labels: NDArray[np.integer], spec: NoiseSpec, num_classes: int, seed: int, inputs: Any, posteriors: Any
) -> Labels:
    """Instance-dependent noise on checked labels; see `NoiseSpec`.

    xia     Xia et al., "Part-dependent label noise" (NeurIPS 2020), algorithm 2: sample i flips with its own rate
            q_i ~ N(rate, 0.1^2) cut to [0, 1], to class k != y with probability softmax(x_i W_y)_k. W_y [S, C] is
            standard normal, one for each class. With the paper's code, x is the raw pixels 0..255, and the softmax is
            nearly one-hot: most flips of a class go to one other. Centred inputs spread them.
    shared  as in the public code of CORES^2 (Cheng et al., ICLR 2021): one W for all classes.
    score   as SEAL (Chen et al., AAAI 2021): the floor(rate N) samples of the highest posterior of a wrong class take
            that class. Nothing is drawn; of equal ones, the first in order.
    """
    rate = float(spec.rate or 0.0)
    if spec.variant == "score":
        scores = check_posteriors(posteriors, len(labels), num_classes, "noise 'idn': variant=score").copy()
        scores[np.arange(len(labels)), labels] = -1.0
        chosen = np.argsort(-scores.max(1), kind="stable")[: quota(rate, len(labels))]
        noisy = labels.astype(np.int64)
        noisy[chosen] = scores[chosen].argmax(1)
        return noisy
    if rate == 0:
        raise ConfigError(
            "noise 'idn': at rate 0 the mean flip rate is still 0.08 (N(0, 0.1^2), cut to [0, 1]); write none"
        )
    if inputs is None:
        raise ConfigError("noise 'idn' needs the samples' inputs; give inputs=, or images by --dataset")
    array = check_inputs(inputs, len(labels))
    scaled = _scaling(array, spec.inputs)
    flips = uniforms(seed, Purpose.FLIP, len(labels)) < _sample_rates(rate, seed, len(labels))
    u = uniforms(seed, Purpose.TARGET, len(labels))
    size = array[0].size
    noisy = labels.astype(np.int64)
    shared = _projection(seed, size, num_classes, 0) if spec.variant == "shared" else None
    for label in np.unique(labels):
        weight = _projection(seed, size, num_classes, int(label)) if shared is None else shared
        members = np.flatnonzero((labels == label) & flips)
        for first in range(0, len(members), _ROWS):
            rows = members[first : first + _ROWS]
            logits = scaled(array[rows]) @ weight
            logits[:, label] = -np.inf
            noisy[rows] = _sample(logits, u[rows])
    return noisy


def _projection(seed: int, size: int, num_classes: int, label: int) -> Reals:
    """W_label [S, C]; its entries are drawn by their place in W [C, S, C]."""
    count = size * num_classes
    require_memory(f"noise 'idn': a projection of inputs of size {size} on {num_classes} classes", 40 * count)
    return normals(seed, Purpose.PROJECTION, count, start=label * count).reshape(size, num_classes)


def _sample_rates(rate: float, seed: int, count: int) -> Reals:
    """N(rate, 0.1^2) cut to [0, 1], by the inverse of its distribution function."""
    from scipy.special import ndtr, ndtri

    low, high = ndtr(-rate / _RATE_SPREAD), ndtr((1 - rate) / _RATE_SPREAD)
    u = uniforms(seed, Purpose.SAMPLE_RATE, count)
    return np.clip(rate + _RATE_SPREAD * ndtri(low + u * (high - low)), 0, 1)


def _sample(logits: Reals, u: Reals) -> Labels:
    """One class a row from softmax(logits), by the inverse of its distribution function."""
    probs = np.exp(logits - logits.max(1, keepdims=True))
    below = np.cumsum(probs, 1)
    above = below > (u * below[:, -1])[:, None]
    return np.where(above.any(1), above.argmax(1), probs.argmax(1))  # none above: u times the sum rounded up to it


def check_inputs(inputs: Any, num_samples: int) -> NDArray[Any]:
    """Finite real numbers [N, ...] as they are; DataError if they aren't that."""
    array = as_array("inputs", inputs)
    if array.dtype.kind not in "iuf" or array.ndim < 2:
        raise DataError(f"inputs: must be real numbers [N, ...], got {array.dtype} {list(array.shape)}")
    if len(array) != num_samples:
        raise DataError(f"inputs: {len(array)} inputs for {num_samples} samples")
    if not array[0].size:
        raise DataError(f"inputs: of no size, got {list(array.shape)}")
    require_memory("inputs", array.size + 16 * array[0].size * min(_ROWS, num_samples))
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError("inputs: some are not finite")
    return array


def _scaling(inputs: NDArray[Any], how: str) -> Callable[[NDArray[Any]], Reals]:
    """Rows of `inputs` to float64 [rows, S], scaled by the statistics of all inputs; channels lie last."""
    mean: Any = 0.0
    std: Any = 1.0
    if how == "centred":
        mean = inputs.mean(0, dtype=np.float64)
    elif how == "normalised":
        rest = tuple(range(inputs.ndim - 1))
        mean = inputs.mean(rest, dtype=np.float64)
        squares = np.zeros_like(mean)
        for first in range(0, len(inputs), _ROWS):  # numpy's std would make a float64 copy of all inputs
            apart = np.subtract(inputs[first : first + _ROWS], mean, dtype=np.float64)
            squares += np.square(apart, out=apart).sum(rest)
        std = np.sqrt(squares / (inputs.size // inputs.shape[-1]))
        std[std == 0] = 1.0
    return lambda rows: ((rows.astype(np.float64) - mean) / std).reshape(len(rows), -1)


def check_posteriors(posteriors: Any, num_samples: int, num_classes: int, what: str) -> Reals:
    """Class probabilities as float64 [N, C]. ConfigError if there are none, DataError where they aren't that."""
    if posteriors is None:
        raise ConfigError(f"{what} needs the posteriors of a trained network: give posteriors=FILE.npy in the spec")
    array = as_array("posteriors", posteriors)
    if array.dtype.kind != "f" or array.shape != (num_samples, num_classes):
        expected = [num_samples, num_classes]
        raise DataError(f"posteriors: must be floats {expected}, got {array.dtype} {list(array.shape)}")
    require_memory("posteriors", 32 * array.size)
    array = array.astype(np.float64)
    sums = array.sum(1)
    bad = ~(np.abs(sums - 1) <= _SUM_TOLERANCE) | ~(array >= 0).all(1)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"posteriors: row {row} holds no probabilities (sum {sums[row]:.6g}); apply the softmax first")
    return array


def _keep(margin: Reals, kind: int) -> Reals:
    """The probability at factor 1 that the likeliest class stays: 1 - tau of Zhang et al. (ICLR 2021), type I to III.

    The exact thresholds are those of the public code; margin is the difference of the two highest posteriors.
    """
    match kind:
        case 1:
            return 0.5 + 0.5 * margin**2
        case 2:
            return margin**3
        case _:
            return (margin + margin**2 + margin**3) / 3


def _top_two(posteriors: Reals) -> tuple[Labels, Labels, Reals]:
    """The likeliest and second class of each row (of equal ones, the first) and the margin between them."""
    rows = np.arange(len(posteriors))
    first = posteriors.argmax(1)
    rest = posteriors.copy()
    rest[rows, first] = -1.0
    second = rest.argmax(1)
    return first, second, posteriors[rows, first] - posteriors[rows, second]


def pmd_factor(labels: ArrayLike, posteriors: ArrayLike, rate: float, kind: int) -> float:
    """The factor F with which PMD noise of type 1, 2 or 3 has the expected rate `rate` against `labels`, by bisection.

    labels integers [N], posteriors float [N, C]. F divides the probability that the likeliest class stays, which is cut
    at 1. Since errors of the network count as noise, rates below the error of the first and above that of the second
    class (or the other way round, for a network that is wrong more often than not) don't exist: ConfigError. DataError
    for arrays of another form.
    """
    given = as_array("labels", labels)
    if given.ndim != 1 or given.dtype.kind not in "iu" or not given.size:
        raise DataError(f"labels: must be integers [N], got {given.dtype} {list(given.shape)}")
    kind = integer("kind", kind, 1, 3)
    rate = NoiseSpec("pmd", rate).rate or 0.0
    shape = np.shape(as_array("posteriors", posteriors))
    probs = check_posteriors(posteriors, len(given), shape[1] if len(shape) == 2 and shape[1] > 1 else 2, "pmd_factor")
    return _factor(given, probs, rate, kind)


def _factor(labels: NDArray[np.integer], posteriors: Reals, rate: float, kind: int) -> float:
    first, second, margin = _top_two(posteriors)
    keep, first_wrong, second_wrong = _keep(margin, kind), first != labels, second != labels

    def expected(factor: float) -> float:
        kept = np.minimum(keep / factor, 1.0)
        return float(np.mean(kept * first_wrong + (1 - kept) * second_wrong))

    low, high = 1e-12, 1e12
    always_first, always_second = expected(low), expected(high)
    rises = always_first <= always_second
    least, most = sorted((always_first, always_second))
    if not least <= rate <= most:
        raise ConfigError(
            f"noise 'pmd': rate {rate:g} is impossible: these posteriors allow {least:.4f} to {most:.4f} "
            f"(likeliest class always: {always_first:.4f}, second class always: {always_second:.4f})"
        )
    for _ in range(100):  # in the logarithm: 80 halvings reach the last bit
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if (expected(middle) < rate) == rises else (low, middle)
    return high


def pmd(
    labels: NDArray[np.integer], spec: NoiseSpec, num_classes: int, seed: int, posteriors: Any
) -> tuple[Labels, float]:
    """Polynomial-margin diminishing noise (Zhang et al., "Learning with feature-dependent label noise", ICLR 2021).

    Each label is the likeliest class of `posteriors` with probability keep / F, else the second; the clean label is
    used for nothing but F (`pmd_factor`), which is returned too.
    """
    probs = check_posteriors(posteriors, len(labels), num_classes, "noise 'pmd'")
    factor = _factor(labels, probs, float(spec.rate or 0.0), spec.type)
    first, second, margin = _top_two(probs)
    stays = uniforms(seed, Purpose.POSTERIOR, len(labels)) < _keep(margin, spec.type) / factor
    return np.where(stays, first, second), factor
