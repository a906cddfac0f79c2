"""Short courses of our own: fast-r18 and speedrun for a GPU, cpu for two cores.

They are laid over a method's published recipe. What the method's paper says of its loss stays, but for what counts
epochs or steps; network, batch, rates, augmentation and length are those of the course. All training images are
trained on. No published accuracy was made by them.
"""

from typing import Any

from ..config import RECIPES, RunConfig
from ..errors import ConfigError, alternatives, nearest
from ..methods.options import ELROptions, ELRPlusOptions, NALOptions, SELCOptions
from ..methods.options_of_losses import GCEOptions
from .base import is_cifar10, is_cifar100

METHODS = ("ce", "gce", "elr", "elr_plus", "nal", "selc")
"""The methods that have fast recipes; elr_plus with one network."""

FAST_R18: dict[str, Any] = {
    "model": "resnet18",
    "batch_size": 512,
    "epochs": 50,
    "optimizer": "sgd:momentum=0.9,nesterov",
    "learning_rate": 0.1,
    "weight_decay": 5e-4,
    "schedule": "one_cycle:0.15",
    "average_weights": "ema:0.99,from=0.67",
    "augment": "crop,pad=4,alternating_flip",
}
"""A course for ResNet-18: one cycle, 50 epochs, and the average of the last third."""

FEW = 25_000
"""Training images below which batches of 512 make too few steps."""

FAST_R18_FEW: dict[str, Any] = {"batch_size": 64, "learning_rate": 0.05, "weight_decay": 1e-3}
"""What fast-r18 has then. On 10,000 images of CIFAR-10 with 40 % symmetric noise (width 0.25, one seed) elr ends at
72.9 %; in batches of 512 at 62.6, of 128 with the decay of 5e-4 at 69.5, of 64 with it and the rate 0.03 at 70.0."""

SPEEDRUN: dict[str, Any] = {
    "model": "whitened_cnn9",
    "batch_size": 1024,
    "epochs": 37,
    "optimizer": "sgd:momentum=0.85,nesterov,lookahead=5",
    "learning_rate": 1.2,
    "weight_decay": 1.3e-3,
    "schedule": "one_cycle:0.28,start=0.2,end=0.07",
    "augment": "crop,pad=4,alternating_flip,cutout:12",
    "eval_mirror": True,
}
"""The course of airbench96 (Jordan 2024, arXiv:2404.00498) without label smoothing: rate 9 and decay 0.012 per 1,024
samples, in its units, are 9 / 7.67 and 0.0013 for a mean loss with Nesterov momentum 0.85."""

CPU: dict[str, Any] = {
    "model": "whitened_cnn6",
    "width": 0.5,
    "batch_size": 256,
    "epochs": 12,
    "optimizer": "sgd:momentum=0.85,nesterov",
    "learning_rate": 0.5,
    "weight_decay": 1.3e-3,
    "schedule": "one_cycle:0.25,start=0.2",
    "average_weights": "ema:0.98,from=0.75",
    "augment": "crop,pad=2,alternating_flip",
    "eval_mirror": True,
}
"""A narrow form of the speedrun's network. benchmarks/sweeps/cpu_recipe.toml is the search for better values; it has
not been run as a whole yet."""

CPU_SMALL: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 15, "learning_rate": 0.1, "schedule": "one_cycle:0.25,start=0.2"},
    "mnist": {
        "batch_size": 128,
        "epochs": 3,
        "optimizer": "sgd:momentum=0.9,nesterov",
        "learning_rate": 0.1,
        "schedule": "one_cycle:0.25,start=0.2",
    },
}
"""Of small data sets: their own networks, in seconds."""


LONG = 30
"""Epochs from which targets keep a momentum of 0.9: a target needs (1 - momentum) * visits of about 5 to follow the
network, and in a shorter course its momentum is at most 0.7."""


def fast(name: str, config: RunConfig, limit_train: int | None = None) -> RunConfig:
    """The settings of a recipe by name, laid over a method's published recipe.

    Args:
        name: of RECIPES.
        config: the published recipe.
        limit_train: how many images are trained on; None for all.

    ConfigError for an unknown recipe, and for a method or a data set that it is not for.
    """
    if name not in RECIPES:
        raise ConfigError(f"--recipe {name}: unknown name; {nearest(name, list(RECIPES))}")
    if name == "published":
        return config
    method, dataset = config.method.method, config.data.dataset
    if method not in METHODS:
        raise ConfigError(f"--recipe {name} is for {alternatives(METHODS)}, not for {method}; drop it")
    few = FAST_R18_FEW if limit_train is not None and limit_train < FEW else {}
    courses: dict[str, dict[str, Any]] = {"fast-r18": FAST_R18 | few, "speedrun": SPEEDRUN, "cpu": CPU}
    if is_cifar10(dataset) or is_cifar100(dataset):
        course = {"val_fraction": 0.0, "val_split": "given", "init": "network", **courses[name]}
    elif name == "cpu" and dataset in CPU_SMALL:
        course = CPU_SMALL[dataset]
    else:
        small = f", {', '.join(CPU_SMALL)}" if name == "cpu" else ""
        raise ConfigError(f"--recipe {name} is for CIFAR-10 and CIFAR-100{small}, not for {dataset}; drop it")
    epochs = int(course["epochs"])
    return config.replace({**course, **_options(config, epochs), "recipe": name})


def _options(config: RunConfig, epochs: int) -> dict[str, Any]:
    """The method's options that count epochs or steps, for a course of so many epochs, and what goes with them."""
    before, momentum = config.optim.epochs, 0.9 if epochs >= LONG else 0.7
    match config.method:
        case GCEOptions() as options:  # prunes after the same share of the course, and as often
            every = max(1, round(options.update_every * epochs / before))
            return {"update_from": max(2, round(options.update_from * epochs / before)), "update_every": every}
        case NALOptions():
            return {"momentum": momentum, "update_from": 1, "update_every": 1}
        case SELCOptions():  # which corrects while the rate is still high, as the published course does
            return {"update_from": max(2, round(0.5 * epochs)), "momentum": momentum}
        case ELROptions() as options:
            return {"momentum": min(options.momentum, momentum)}
        case ELRPlusOptions() as options:
            average = {"networks": 1, "average_momentum": 0.99, "average_ramp": 500, "strength_ramp": 0}
            return {"momentum": min(options.momentum, momentum), **average}
    return {}
