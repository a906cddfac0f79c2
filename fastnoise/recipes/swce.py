"""Recipes of the SWCE pipeline."""

from ..config import RunConfig
from ..methods.options import SWCEOptions
from .base import base, is_cifar10, is_cifar100


def swce(dataset: str, noise: str) -> RunConfig:
    """The SWCE pipeline (Gupta, "Improving Training For Noisy Labels").

    CIFAR, as published: ResNet-18, 5 epochs of warm-up with weight decay 0.03 and learning rate 1e-4, then iterations
    of 4, 7, 7 and 7 epochs. The stages are 2, 3, 4 in the first iteration and 2, 5, 7 in the others. The learning rates
    are 1e-4 in the first iteration, 1e-5 in the second and 1e-6 in the last. The threshold is NCE + MAE below 1. Not
    published, and ours: 1e-5 in the third iteration, batch 128, crop and flip as the copies' augmentation, decoupled
    weight decay, and every option's default. Published under instance-dependent noise of 20, 30 and 50 %, as accuracy
    or F1: 94.40, 93.60, 82.11 % on CIFAR-10 and 76.61, 73.11, 61.33 % on CIFAR-100, "on top of DivideMix" and after 30
    epochs of SimCLR (`fastnoise pretrain`, then --encoder).

    The settings for other data sets are ours. They keep the epochs, stages and factors, with ten times the published
    learning rates: small networks without a pretrained encoder learn nothing in 5 epochs at 1e-4.
    """
    course = {"epochs": 30, "optimizer": "adamw", "weight_decay": 0.03, "schedule": "constant"}
    config = base(dataset, noise, SWCEOptions()).replace(course)
    if is_cifar10(dataset) or is_cifar100(dataset):
        return config.replace({"model": "resnet18", "learning_rate": 1e-4})
    return config.replace({"learning_rate": 1e-3})
