"""Noisy labels of one model for many rates and seeds at once."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _C
from ..checks import integer, require_memory, shown
from ..errors import ConfigError, DataError
from .corrupt import _MAX_CLASSES, _checked, _map_name
from .maps import class_map
from .spec import NoiseSpec, parse


def corrupt_sweep(
    labels: ArrayLike,
    spec: str | NoiseSpec,
    rates: Sequence[float],
    seeds: Sequence[int],
    *,
    num_classes: int,
    dataset: str | None = None,
    threads: int = 0,
    out: NDArray[np.integer] | None = None,
) -> NDArray[np.integer]:
    """Noisy labels for every rate and seed: [R, S, N] of the labels' dtype, of which [r, s] equals
    `corrupt(labels, spec at rates[r], seed=seeds[s], ...)`.

    Each seed's numbers are drawn once for all its rates. They are the same for all ("common random numbers"): a label
    that one rate flips is flipped, to the same class, by every higher rate, so that runs differ by the rate alone.

    labels       clean labels, any integer dtype that has room for num_classes, [N], each in [0, num_classes)
    spec         symmetric, asymmetric or pair noise without a quota, and without a rate: "symmetric",
                 "asymmetric,map=block5"; the rate of a NoiseSpec is not used
    rates        [R], each in [0, 1]
    seeds        [S], each in [0, 2**64)
    dataset      as for `corrupt`
    threads      0 for one per core
    out          a C-contiguous array [R, S, N] of the labels' dtype to write to, apart from the labels; it is returned

    Raises ConfigError for a bad spec, rate, seed, number of classes or threads, DataError for bad labels or `out`.
    """
    noise = _without_rate(spec)
    num_classes = integer("num_classes", num_classes, 2, _MAX_CLASSES)
    threads = integer("threads", threads, 0, 2**16)
    given = _checked("labels", labels, num_classes)
    if np.iinfo(given.dtype).max < num_classes - 1:
        raise DataError(f"labels: {given.dtype} has no room for {num_classes} classes, give a wider dtype")
    each_rate = [float(replace(noise, rate=rate).rate or 0.0) for rate in _listed("rates", rates)]
    each_seed = [integer("the noise seed", seed, 0, 2**64 - 1) for seed in _listed("seeds", seeds)]
    shape = len(each_rate), len(each_seed), len(given)
    if out is None:
        require_memory(f"out: {list(shape)}", math.prod(shape) * given.itemsize)
        out = np.empty(shape, given.dtype)
    elif not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != given.dtype:
        form = f"{out.dtype} {list(out.shape)}" if isinstance(out, np.ndarray) else type(out).__name__
        raise DataError(f"out: must be an array, {given.dtype} {list(shape)}, got {form}")
    elif not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        raise DataError("out: must be C-contiguous, aligned and writeable")
    elif np.may_share_memory(out, given):
        raise DataError("out: overlaps the labels")
    options: dict[str, Any] = {"kind": noise.kind}
    if noise.kind == "symmetric":
        options["kind"] = noise.true_class
    elif noise.kind == "asymmetric":
        name = _map_name(noise.map, dataset, num_classes)
        if name == "sce":
            raise ConfigError("a sweep has one class map for all seeds, and map=sce draws its own for each")
        options = {"kind": "mapped", "class_map": class_map(name, 0)}
    _C.corrupt_sweep(given, out, num_classes=num_classes, rates=each_rate, seeds=each_seed, threads=threads, **options)
    return out


def _without_rate(spec: Any) -> NoiseSpec:
    if isinstance(spec, str):
        kind, comma, options = spec.partition(",")
        if ":" in kind:
            raise ConfigError(f"a sweep takes its rates from rates=, so write the spec without one, got {spec!r}")
        noise = parse(f"{kind}:0{comma}{options}" if kind.strip() in ("symmetric", "asymmetric", "pair") else spec)
    elif isinstance(spec, NoiseSpec):
        noise = spec
    else:
        raise ConfigError(f"a noise spec is a text such as 'symmetric', got {type(spec).__name__}")
    if (
        noise.kind not in ("symmetric", "asymmetric", "pair")
        or noise.quota != "none"
        or noise.classes is not None
        or noise.sequential
    ):
        raise ConfigError(
            f"a sweep can't draw {str(noise)!r}: it takes symmetric, asymmetric and pair noise "
            "without quota=, classes= or sequential="
        )
    return noise


def _listed(what: str, values: Any) -> list[Any]:
    try:
        listed = np.asarray(values).tolist() if isinstance(values, np.ndarray) else list(values)
    except TypeError:
        raise ConfigError(f"{what} must be a sequence, got {type(values).__name__}") from None
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"{what} must hold at least one number, got {shown(values)}")
    return listed
