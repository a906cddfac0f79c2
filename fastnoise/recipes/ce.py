"""Recipes of plain cross-entropy."""

from ..config import RunConfig
from ..options import MethodOptions
from .base import base, is_cifar10, is_cifar100


def ce(dataset: str, noise: str) -> RunConfig:
    """Cross-entropy as in the baseline rows of the papers' tables.

    ELR (Table 1) and NAL (Table 1) take these rows from Zhang and Sabuncu 2018: ResNet-34, batch 128, learning
    rate 0.01, weight decay 1e-4, 120 epochs divided by 10 at 40 and 80 on CIFAR-10, 150 epochs at 80 and 120
    on CIFAR-100. Published for 40 % symmetric noise: 81.88 and 48.20 % test accuracy.
    """
    config = base(dataset, noise, MethodOptions("ce"))
    if is_cifar10(dataset):
        return config.replace(
            {"epochs": 120, "learning_rate": 0.01, "weight_decay": 1e-4, "schedule": "multistep:40,80,gamma=0.1"}
        )
    if is_cifar100(dataset):
        return config.replace(
            {"epochs": 150, "learning_rate": 0.01, "weight_decay": 1e-4, "schedule": "multistep:80,120,gamma=0.1"}
        )
    return config
