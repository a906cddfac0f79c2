"""Configurations by method and data set, with published hyperparameters. Each recipe names its source."""

from collections.abc import Callable
from typing import Any, Literal

from ..config import NoiseConfig, RunConfig
from ..data.names import is_given
from ..errors import ConfigError, nearest
from ..methods import options_of
from ..models.names import DROPOUT_FORMS, LibraryModel
from ..options import AUTO, MethodOptions
from ..own import is_own
from .base import UNKNOWN_RATE, USUAL_METHOD, base, default_method, default_noise
from .baselines import apl, bootstrap, focal, gce, label_smoothing, mae, mixup, sce
from .c2d import c2d
from .ce import ce
from .cores import cores
from .correction import dual_t, forward, plc, selc, selc_plus
from .coteaching import coteaching
from .disc import disc
from .dividemix import augdesc, dividemix
from .elr import elr
from .elr_plus import elr_plus
from .fast import fast
from .gjs import gjs
from .jocor import jocor
from .multitask import multitask
from .nal import nal
from .pes import pes, pes_semi
from .plain import plain
from .posteriors import posteriors
from .promix import promix
from .real import settled
from .simclr import simclr
from .sop import sop, sop_plus
from .ssr import ssr, ssr_plus
from .swce import swce
from .swce_dividemix import swce_dividemix
from .swce_loss import swce_loss
from .volminnet import volminnet

_RECIPES: dict[str, Callable[..., RunConfig]] = {
    "apl": apl,
    "augdesc": augdesc,
    "bootstrap": bootstrap,
    "c2d": c2d,
    "ce": ce,
    "cores": cores,
    "coteaching": coteaching,
    "disc": disc,
    "dividemix": dividemix,
    "dual_t": dual_t,
    "elr": elr,
    "elr_plus": elr_plus,
    "focal": focal,
    "forward": forward,
    "gce": gce,
    "gjs": gjs,
    "jocor": jocor,
    "label_smoothing": label_smoothing,
    "mae": mae,
    "mixup": mixup,
    "multitask": multitask,
    "nal": nal,
    "pes": pes,
    "pes_semi": pes_semi,
    "plain": plain,
    "plc": plc,
    "posteriors": posteriors,
    "promix": promix,
    "sce": sce,
    "selc": selc,
    "selc_plus": selc_plus,
    "simclr": simclr,
    "sop": sop,
    "sop_plus": sop_plus,
    "ssr": ssr,
    "ssr_plus": ssr_plus,
    "swce": swce,
    "swce_dividemix": swce_dividemix,
    "swce_loss": swce_loss,
    "volminnet": volminnet,
}

"""Method -> its recipe, of (data set, noise). If the method's options name some as `by_rate`, it takes a `rate` too."""

_VARIANTS = ("apl", "bootstrap", "coteaching", "focal", "forward", "jocor", "nal", "sce")
"""Methods whose recipes take a `variant`, for the settings of their papers or of their authors' code."""


def recipe(
    method: str = "nal",
    dataset: str = "digits",
    noise: str | None = None,
    variant: Literal["paper", "code"] | None = None,
    model: str | None = None,
    *,
    noise_rate: float | str | None = None,
    labels: str | None = None,
    recipe: str = "published",
    limit_train: int | None = None,
) -> RunConfig:
    """The configuration of `method` on `dataset` under `noise` (a noise spec; None: the data set's default).

    `method` and `dataset` may be your own: FILE.py:CLASS, or the name of a data set in memory. `variant` chooses
    between the settings of a method's paper and those of its code, for methods that have both (apl, bootstrap,
    coteaching, focal, forward, jocor, nal, sce). `model` replaces the recipe's network; the recipe's dropout is then
    switched off, unless the network differs in its dropout alone. A network of your own or of another package draws its
    own weights. If it begins with weights (timm:NAME,weights=FILE), images are normalised as these were trained.
    `labels` is a file with the given labels, to which no noise is added. `noise_rate` is the rate of wrong labels, or
    the folder of a `fastnoise clean`, for methods whose settings follow from it (augdesc, c2d, coteaching, disc,
    dividemix, jocor, promix, ssr, ssr_plus, swce_dividemix). Without it the rate is that of `noise`, and UNKNOWN_RATE
    for labels that you bring. `recipe` names another course than the published one: fast-r18, speedrun or cpu
    (`recipes.fast`).
    `limit_train` is the number of images that the run is limited to, by which fast-r18 goes.
    ConfigError for an unknown method, for a variant of a method that has none, for a rate that cannot be read, or for a
    method or data set that a fast recipe is not for.
    """
    if noise is None:
        noise = default_noise(dataset) if labels is None else "none"
    given: dict[str, Any] = {"noise_rate": noise_rate, "labels": labels, "limit_train": limit_train}
    given = {name: value for name, value in given.items() if value is not None}
    rate = NoiseConfig(noise_rate=noise_rate).noise_rate
    if rate is None and noise == "none" and (labels is not None or is_given(dataset)):
        rate = UNKNOWN_RATE
    config = fast(recipe, _recipe(method, dataset, noise, variant, rate), limit_train).replace(given)
    if model is None or {model, config.model.model} <= set(DROPOUT_FORMS):
        return config if model is None else config.replace({"model": model})
    if model == config.model.model:
        return config
    library = None if is_own(model) else LibraryModel.parse(model)
    own_weights: dict[str, Any] = {"init": "network"} if is_own(model) or library is not None else {}
    if library is not None and library.weights is not None:
        own_weights["normalisation"] = "weights"
    return config.replace({"model": model, "dropout": 0.0, **own_weights})


def _recipe(
    method: str, dataset: str, noise: str, variant: Literal["paper", "code"] | None, rate: float | str | None
) -> RunConfig:
    if ".py:" in method:  # a user's own, on the settings that all methods share
        kind = options_of(method)
        rates = {} if rate is None else dict.fromkeys(kind.by_rate, rate)
        return base(dataset, noise, kind(method, **rates))
    if method == AUTO:  # settings that all methods share, until one is chosen
        return settled(base(dataset, noise, MethodOptions(AUTO)))
    if method not in _RECIPES:
        raise ConfigError(f"unknown method {method!r}; {nearest(method, [*_RECIPES, AUTO, 'FILE.py:CLASS'])}")
    more: dict[str, Any] = {"rate": rate} if options_of(method).by_rate else {}
    if variant is not None:
        if method not in _VARIANTS:
            known = " and ".join(_VARIANTS)
            raise ConfigError(f"--variant has no meaning for method {method}; {known} have paper and code variants")
        more["variant"] = variant
    return settled(_RECIPES[method](dataset, noise, **more))


__all__ = [
    "USUAL_METHOD",
    "apl",
    "augdesc",
    "bootstrap",
    "c2d",
    "ce",
    "cores",
    "coteaching",
    "default_method",
    "disc",
    "dividemix",
    "dual_t",
    "elr",
    "elr_plus",
    "focal",
    "forward",
    "gce",
    "gjs",
    "jocor",
    "label_smoothing",
    "mae",
    "mixup",
    "multitask",
    "nal",
    "pes",
    "pes_semi",
    "plain",
    "plc",
    "posteriors",
    "promix",
    "recipe",
    "sce",
    "selc",
    "selc_plus",
    "simclr",
    "sop",
    "sop_plus",
    "ssr",
    "ssr_plus",
    "swce",
    "swce_dividemix",
    "swce_loss",
    "volminnet",
]
