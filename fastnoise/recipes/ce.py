"""Recipes of plain cross-entropy."""

from typing import Any

from ..config import RunConfig
from ..noise.spec import parse
from ..options import MethodOptions
from .base import base, is_cifar10, is_cifar100
from .real import PYTORCH

HETEROGENEOUS: dict[str, dict[str, Any]] = {
    "mnist": {
        "model": "lenet5",
        "dropout": 0.5,
        "batch_size": 128,
        "epochs": 14,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "schedule": "constant",
        "weight_decay": 0.0,
    },
    "cifar10": {
        "model": "resnet18",
        "batch_size": 256,
        "epochs": 200,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "schedule": "cosine",
        "weight_decay": 5e-4,
        "init": "network",
    },
}
"""The settings of Khanal and Kanan 2021 by data set: network, dropout, batch and epochs. The paper leaves the optimiser
and its rate and the share of dropout open; these are ours."""


def ce(dataset: str, noise: str) -> RunConfig:
    """Cross-entropy as in the baseline rows of the papers' tables.

    ELR (Table 1) and NAL (Table 1) take these rows from Zhang and Sabuncu 2018: ResNet-34, batch 128, learning
    rate 0.01, weight decay 1e-4, 120 epochs divided by 10 at 40 and 80 on CIFAR-10, 150 epochs at 80 and 120
    on CIFAR-100. Published for 40 % symmetric noise: 81.88 and 48.20 % test accuracy. mnist with heterogeneous noise
    has the settings of its study (`HETEROGENEOUS`).
    """
    config = baseline(dataset, noise, MethodOptions("ce"))
    if dataset == "mnist" and parse(noise).kind == "heterogeneous":
        return config.replace(HETEROGENEOUS["mnist"])
    return config


def baseline(dataset: str, noise: str, method: MethodOptions) -> RunConfig:
    """A method in the setting of the papers' baseline rows; `ce` describes it."""
    config = base(dataset, noise, method)
    if is_cifar10(dataset):
        course: dict[str, Any] = {"epochs": 120, "schedule": "multistep:40,80,gamma=0.1"}
    elif is_cifar100(dataset):
        course = {"epochs": 150, "schedule": "multistep:80,120,gamma=0.1"}
    else:
        return config
    return config.replace({"learning_rate": 0.01, "weight_decay": 1e-4, **course, **PYTORCH})
