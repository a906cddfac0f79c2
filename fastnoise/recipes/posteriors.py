"""Recipes of the network whose posteriors PMD noise is drawn from."""

from ..config import RunConfig
from ..options import MethodOptions
from .base import base, is_cifar10, is_cifar100


def posteriors(dataset: str, noise: str) -> RunConfig:
    """The network of PLC's code (Zhang et al. 2021) from whose posteriors its PMD noise is drawn.

    CIFAR: ResNet-34, batch 128, SGD with Nesterov momentum 0.9 at a constant 1e-3, weight decay 5e-4, crop and flip, 25
    epochs as for all of PLC's files on CIFAR-10. On CIFAR-100 its files are of 10 to 35 epochs, by type and rate. PLC
    trains on the first 45,000 images; here all have posteriors, as a noise for all of them needs.
    """
    config = base(dataset, noise, MethodOptions(method="posteriors"))
    if not (is_cifar10(dataset) or is_cifar100(dataset)):
        return config
    return config.replace(
        {
            "optimizer": "sgd:momentum=0.9,nesterov",
            "learning_rate": 1e-3,
            "weight_decay": 5e-4,
            "schedule": "constant",
            "epochs": 25,
        }
    )
