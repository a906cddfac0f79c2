"""Recipes of ELR+."""

from ..config import RunConfig
from ..methods.options import ELRPlusOptions
from .base import base, clean_split, is_cifar10, is_cifar100
from .real import PYTORCH


def elr_plus(dataset: str, noise: str) -> RunConfig:
    """ELR+ (Liu et al. 2020) with the hyperparameters of the authors' configuration files.

    CIFAR: two preact_resnet18_bn_stem (the PreActResNet-18 of the authors' code, with which the figures below were
    made), batch 128, learning rate 0.02, weight decay 5e-4, 10 % of each true class held out and corrupted apart, mixup
    from Beta(1, 1). The parameters, but not the buffers, are averaged with momentum 0.997, ramped up over 40,000 steps.
    CIFAR-10: momentum 0.7 and strength 3 for symmetric noise, 0.9 and 1 for others, 200 epochs with the learning rate
    divided by 10 at 150. CIFAR-100: 0.9 and 7, the strength ramped up over 40,000 steps, cross-entropy on labels
    weighted by the targets, 250 epochs with the learning rate divided by 10 at 200. Published (Table 2, symmetric 20,
    50, 80, 90 %, asymmetric 40 %): 94.6, 93.8, 91.1, 75.2, 92.7 and 77.5, 72.4, 58.2, 30.8, 76.5 %. The settings for
    digits, mnist and folders are ours: those of CIFAR-10, but averages with momentum 0.99, ramped up over 500 steps,
    because these runs have only a few thousand steps.
    """
    cifar = is_cifar10(dataset) or is_cifar100(dataset)
    symmetric = noise.startswith("symmetric") or noise == "none"
    if is_cifar100(dataset):
        strength, momentum = 7.0, 0.9
    elif is_cifar10(dataset) and not symmetric:
        strength, momentum = 1.0, 0.9
    else:
        strength, momentum = 3.0, 0.7
    method = ELRPlusOptions(
        strength=strength,
        momentum=momentum,
        networks=2,
        mixup_alpha=1.0,
        average_momentum=0.997 if cifar else 0.99,
        average_ramp=40_000 if cifar else 500,
        averaged="parameters",
        strength_ramp=40_000 if is_cifar100(dataset) else 0,
        target="weighted" if is_cifar100(dataset) else "labels",
    )
    config = base(dataset, noise, method)
    if not cifar:
        return config
    epochs, milestone = (250, 200) if is_cifar100(dataset) else (200, 150)
    return config.replace(
        {
            "model": "preact_resnet18_bn_stem",
            "epochs": epochs,
            "learning_rate": 0.02,
            "weight_decay": 5e-4,
            "schedule": f"multistep:{milestone},gamma=0.1",
            "val_fraction": 0.1,
            "val_split": clean_split(noise),
            **PYTORCH,
        }
    )
