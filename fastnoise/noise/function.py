"""Noise by a user's function, FILE.py:NAME."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import own
from ..checks import as_array
from ..errors import ConfigError, DataError, nearest
from .names import OWN
from .spec import NoiseSpec

Labels = NDArray[np.int64]


def corrupt_by_function(
    labels: NDArray[np.integer], spec: NoiseSpec, num_classes: int, seed: int, inputs: Any
) -> Labels:
    """Call the function that `spec` names on checked labels [N]; returns its labels, int64 [N].

    The function gets a copy of the labels, int64 [N], and the spec's settings by name. It also gets `num_classes`,
    `rate`, `seed` and `inputs` by name, each only if it has a parameter of that name. It is called twice to check that
    it returns the same labels for the same seed.

    ConfigError if it doesn't take the arguments or raises an error. DataError if its labels have another dtype or
    shape, or if the second call returns other labels.
    """
    name = str(spec.name)
    what = f"noise {name}"
    function = own.load(name, "noise")
    settings = {key: _value(text) for key, text in spec.settings}
    _check_arguments(function, what, spec, settings, inputs)
    offered = {"num_classes": num_classes, "seed": seed, **settings}
    offered |= {key: value for key, value in (("rate", spec.rate), ("inputs", inputs)) if value is not None}

    def draw() -> Labels:
        found = own.call(function, what, labels.astype(np.int64), **offered)
        return _checked(found, what, len(labels), num_classes)

    first, second = draw(), draw()
    different = np.flatnonzero(first != second)
    if len(different):
        raise DataError(
            f"{what} returns other labels when it is called again with seed {seed} ({len(different)} of {len(labels)} "
            "differ); draw all random numbers from np.random.default_rng(seed)"
        )
    return first


def takes_inputs(spec: NoiseSpec) -> bool:
    """Whether noise is made of inputs, or of a function that has a parameter for them. ConfigError as `own.load`."""
    if spec.kind != OWN:
        return spec.of_inputs
    taken = own.parameters(own.load(str(spec.name), "noise"), f"noise {spec.name}")
    return taken is None or "inputs" in taken


def _check_arguments(
    function: Callable[..., Any], what: str, spec: NoiseSpec, settings: dict[str, Any], inputs: Any
) -> None:
    """ConfigError if the spec's arguments are not those that the function takes."""
    taken, needed = own.parameters(function, what), own.needed(function)
    for key in settings:
        if key in ("num_classes", "seed", "inputs"):
            raise ConfigError(f"{what}: fastnoise passes {key} by itself; drop {key}=")
        if key == "rate":
            raise ConfigError(f"{what}: write the rate after the name, as in {spec.name}:0.4")
        if taken is not None and key not in taken:
            raise ConfigError(f"{what} has no parameter {key!r}; {nearest(key, sorted(taken))}")
    if spec.rate is not None and taken is not None and "rate" not in taken:
        raise ConfigError(f"{what} has no parameter 'rate'; drop :{spec.rate!r}")
    if spec.rate is None and "rate" in needed:
        raise ConfigError(f"{what} needs a rate in [0, 1], as in {spec.name}:0.4")
    if inputs is None and "inputs" in needed:
        raise ConfigError(f"{what} needs the images as inputs, but they are not in memory as one array")


def _checked(labels: Any, what: str, num_samples: int, num_classes: int) -> Labels:
    array = as_array(f"{what}: its result", labels)
    if array.shape != (num_samples,) or array.dtype.kind not in "iu":
        raise DataError(
            f"{what} gives {array.dtype} {list(array.shape)}; it must give integers [{num_samples}], one per sample"
        )
    if array.min() < 0 or array.max() >= num_classes:
        place = int(((array < 0) | (array >= num_classes)).argmax())
        raise DataError(f"{what} gives class {array[place]} at position {place}, outside [0, {num_classes})")
    return array.astype(np.int64)


def _value(text: str) -> Any:
    """A setting as a number or truth value if it is one, else as text."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
