"""Configurations by method and data set, with published hyperparameters. Each recipe names its source."""

from collections.abc import Callable
from typing import Literal

from ..config import RunConfig
from ..errors import ConfigError, nearest
from ..methods import options_of
from ..models.names import DROPOUT_FORMS
from ..own import is_own
from .base import base, default_method, default_noise
from .baselines import apl, bootstrap, focal, gce, label_smoothing, mae, mixup, sce
from .ce import ce
from .correction import forward, plc, selc, selc_plus
from .coteaching import coteaching
from .dividemix import dividemix
from .elr import elr
from .elr_plus import elr_plus
from .multitask import multitask
from .nal import nal
from .plain import plain
from .simclr import simclr
from .swce import swce
from .swce_loss import swce_loss

_RECIPES: dict[str, Callable[[str, str], RunConfig]] = {
    "apl": apl,
    "bootstrap": bootstrap,
    "ce": ce,
    "coteaching": coteaching,
    "dividemix": dividemix,
    "elr": elr,
    "elr_plus": elr_plus,
    "focal": focal,
    "forward": forward,
    "gce": gce,
    "label_smoothing": label_smoothing,
    "mae": mae,
    "mixup": mixup,
    "multitask": multitask,
    "nal": nal,
    "plain": plain,
    "plc": plc,
    "sce": sce,
    "selc": selc,
    "selc_plus": selc_plus,
    "simclr": simclr,
    "swce": swce,
    "swce_loss": swce_loss,
}

_VARIANTS: dict[str, Callable[[str, str, Literal["paper", "code"]], RunConfig]] = {
    "apl": apl,
    "bootstrap": bootstrap,
    "coteaching": coteaching,
    "focal": focal,
    "forward": forward,
    "nal": nal,
    "sce": sce,
}


def recipe(
    method: str = "nal",
    dataset: str = "digits",
    noise: str | None = None,
    variant: Literal["paper", "code"] | None = None,
    model: str | None = None,
) -> RunConfig:
    """The configuration of `method` on `dataset` under `noise` (a noise spec; None: the data set's default).

    `method` and `dataset` may be your own: FILE.py:CLASS, or the name of a data set in memory. `variant` chooses
    between the settings of a method's paper and those of its code, for methods that have both (apl, bootstrap,
    coteaching, focal, forward, nal, sce). `model` replaces the recipe's network; the recipe's dropout is then switched
    off, unless the network differs in its dropout alone. A network of your own draws its own weights.
    ConfigError for an unknown method, or for a variant of a method that has none.
    """
    config = _recipe(method, dataset, noise, variant)
    if model is None or {model, config.model.model} <= set(DROPOUT_FORMS):
        return config if model is None else config.replace({"model": model})
    if model == config.model.model:
        return config
    own_weights = {"init": "network"} if is_own(model) else {}
    return config.replace({"model": model, "dropout": 0.0, **own_weights})


def _recipe(method: str, dataset: str, noise: str | None, variant: Literal["paper", "code"] | None) -> RunConfig:
    noise = default_noise(dataset) if noise is None else noise
    if ".py:" in method:  # a user's own, on the settings that all methods share
        return base(dataset, noise, options_of(method)(method))
    if method not in _RECIPES:
        raise ConfigError(f"unknown method {method!r}; {nearest(method, [*_RECIPES, 'FILE.py:CLASS'])}")
    if variant is None:
        return _RECIPES[method](dataset, noise)
    if method not in _VARIANTS:
        known = " and ".join(_VARIANTS)
        raise ConfigError(f"--variant has no meaning for method {method}; {known} have paper and code variants")
    return _VARIANTS[method](dataset, noise, variant)


__all__ = [
    "apl",
    "bootstrap",
    "ce",
    "coteaching",
    "default_method",
    "dividemix",
    "elr",
    "elr_plus",
    "focal",
    "forward",
    "gce",
    "label_smoothing",
    "mae",
    "mixup",
    "multitask",
    "nal",
    "plain",
    "plc",
    "recipe",
    "sce",
    "selc",
    "selc_plus",
    "simclr",
    "swce",
    "swce_loss",
]
