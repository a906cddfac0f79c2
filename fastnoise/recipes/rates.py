"""The rate of wrong labels by which a method's settings go, if the noise of the labels is unknown."""

from typing import Any

from ..config import RunConfig
from ..errors import ConfigError
from . import recipe
from .base import UNKNOWN_RATE


def settle_rate(config: RunConfig, *, known: bool) -> tuple[RunConfig, str | None]:
    """The configuration with the rate that it goes by, and a line on a rate that is given or that nobody knows.

    Args:
        config: of a run. Only a method whose options name some as `by_rate` goes by a rate.
        known: whether the noise was made here, at a rate that its recipe has taken.

    ConfigError if `noise_rate` was set after the recipe, which then has options for another rate.
    """
    method, rate = config.method.method, config.noise.noise_rate
    if not config.method.by_rate:
        return config, None
    taken = _by_rate(config)
    said = ", ".join(f"{name} {value}" for name, value in taken.items())
    if isinstance(rate, float):
        wanted = _by_rate(_recipe(config, rate))
        if taken != wanted and taken == _by_rate(_recipe(config, None)):
            here = ", ".join(f"{name} {value}" for name, value in wanted.items())
            raise ConfigError(
                f"--noise-rate {rate} and {said} contradict: at this rate the recipe of {method} has {here}; "
                "drop one of them, and in Python give noise_rate to recipe()"
            )
        return config, f"noise rate: {rate:.3g}; {method} goes by it, and has {said}"
    if known:
        return config, None
    if taken != _by_rate(_recipe(config, UNKNOWN_RATE)):
        return config, f"the rate of wrong labels is unknown; {method} goes by it, and has {said}"
    line = (
        f"warning: the rate of wrong labels is unknown, and {method} goes by it: {UNKNOWN_RATE} is assumed ({said}); "
        "give --noise-rate RATE, or the folder of a fastnoise clean, which estimates it"
    )
    return config.replace({"noise_rate": UNKNOWN_RATE}), line


def _recipe(config: RunConfig, rate: float | None) -> RunConfig:
    settings, noise = config.data, config.noise
    return recipe(config.method.method, settings.dataset, noise.noise, noise_rate=rate, labels=noise.labels)


def _by_rate(config: RunConfig) -> dict[str, Any]:
    return {name: getattr(config.method, name) for name in config.method.by_rate}
