"""Recipes of ELR."""

from ..config import RunConfig
from ..methods.options import ELROptions
from .base import base, clean_split, is_cifar10, is_cifar100
from .real import PYTORCH


def elr(dataset: str, noise: str) -> RunConfig:
    """ELR (Liu et al. 2020) with the hyperparameters of the authors' configuration files.

    CIFAR: ResNet-34, batch 128, learning rate 0.02, weight decay 1e-3, 45,000 training images, and 5,000 held out,
    500 of each true class on CIFAR-10, whose labels are corrupted apart. CIFAR-10 symmetric: momentum 0.7, strength 3,
    150 epochs of cosine annealing restarted every 10 (published as ELR with cosine schedule: 91.43 % at 40 %, true
    class included in the noise). CIFAR-10 asymmetric: 0.9, 1, 120 epochs, learning rate times 0.01 at 40 and 80.
    CIFAR-100: 0.9, 7, 150 epochs, learning rate times 0.01 at 80 and 120 (68.28 % at 40 % symmetric). Human and pair
    noise depend on the class and have the settings of asymmetric noise. digits and mnist: momentum and strength as on
    CIFAR-10.
    """
    symmetric = noise.startswith("symmetric") or noise == "none"
    held_out = {"val_fraction": 0.1, "val_split": clean_split(noise), **PYTORCH}
    if is_cifar100(dataset):
        course = {"epochs": 150, "schedule": "multistep:80,120,gamma=0.01"}
        return base(dataset, noise, ELROptions(strength=7.0, momentum=0.9)).replace(course | held_out)
    if is_cifar10(dataset) and not symmetric:
        course = {"epochs": 120, "schedule": "multistep:40,80,gamma=0.01"}
        return base(dataset, noise, ELROptions(strength=1.0, momentum=0.9)).replace(course | held_out)
    config = base(dataset, noise, ELROptions(strength=3.0, momentum=0.7))
    if is_cifar10(dataset):
        return config.replace({"epochs": 150, "schedule": "cosine_restarts:10,min=0.001", **held_out})
    return config
