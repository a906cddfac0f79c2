"""Configurations by method and data set, with hyperparameters as published; each says where from."""

from collections.abc import Callable
from typing import Literal

from ..config import RunConfig
from ..errors import ConfigError, nearest
from .base import default_noise
from .ce import ce
from .elr import elr
from .nal import nal
from .swce import swce

_RECIPES: dict[str, Callable[[str, str], RunConfig]] = {"ce": ce, "elr": elr, "nal": nal, "swce": swce}


def recipe(
    method: str = "nal",
    dataset: str = "digits",
    noise: str | None = None,
    variant: Literal["paper", "code"] | None = None,
) -> RunConfig:
    """The configuration of `method` on `dataset` under `noise` (a noise spec; None: the data set's default).

    `variant` chooses between a method's paper and code settings where it has both (nal).
    ConfigError for a method without a recipe, or a variant of a method that has none.
    """
    if method not in _RECIPES:
        raise ConfigError(f"unknown method {method!r}; {nearest(method, list(_RECIPES))}")
    noise = default_noise(dataset) if noise is None else noise
    if variant is None:
        return _RECIPES[method](dataset, noise)
    if method != "nal":
        raise ConfigError(f"--variant has no meaning for method {method}; only nal has paper and code variants")
    return nal(dataset, noise, variant)


__all__ = ["ce", "elr", "nal", "recipe", "swce"]
