"""Recipes of DivideMix."""

from ..config import RunConfig
from ..methods.options import DivideMixOptions
from .base import base, is_cifar10, is_cifar100, noise_rate
from .real import PYTORCH

UNLABELLED_STRENGTH = {0.2: (0.0, 25.0), 0.5: (25.0, 150.0), 0.8: (25.0, 150.0), 0.9: (50.0, 150.0)}
"""The authors' lambda_u by symmetric rate, for CIFAR-10 and CIFAR-100. Other rates take that of the nearest rate."""


def dividemix(dataset: str, noise: str, rate: float | None = None) -> RunConfig:
    """DivideMix (Li et al. 2020) with the hyperparameters of the authors' code, for the rate of --noise-rate or noise.

    CIFAR: two preact_resnet18_bn_stem (the PreActResNet-18 of the authors' code, with which the figures below were
    made), batches of 64 samples for each of the four parts, learning rate 0.02, divided by 10 at
    150 of 300 epochs, weight decay 5e-4, warm-up of 10 epochs (CIFAR-100: 30), Beta(4, 4), T 0.5, threshold 0.5. From
    85 % noise the threshold is 0.6 and losses are averaged over 5 epochs. lambda_u is that of `UNLABELLED_STRENGTH`. If
    the noise depends on the class, lambda_u is 0 on CIFAR-10 and the warm-up has the confidence penalty; on CIFAR-100
    such noise counts as symmetric. Published, best epoch (symmetric 20, 50, 80, 90 %, asymmetric 40 %): 96.1, 94.6,
    93.2, 76.0, 93.4 and (symmetric) 77.3, 74.6, 60.2, 31.5 %. The settings for digits, mnist and folders are ours:
    parts of 16 samples, lambda_u 0, warm-up 10 epochs (mnist: 2).
    """
    rate = noise_rate(noise) if rate is None else rate
    symmetric = noise.startswith("symmetric") or noise == "none"
    cifar = is_cifar10(dataset) or is_cifar100(dataset)
    strength = 0.0
    if is_cifar100(dataset) or (is_cifar10(dataset) and symmetric):
        nearest = min(UNLABELLED_STRENGTH, key=lambda known: abs(known - rate))
        strength = UNLABELLED_STRENGTH[nearest][is_cifar100(dataset)]
    method = DivideMixOptions(
        warm_up=30 if is_cifar100(dataset) else 2 if dataset == "mnist" else 10,
        confidence_penalty=0.0 if symmetric else 1.0,
        clean_threshold=0.6 if rate >= 0.85 else 0.5,
        loss_epochs=5 if rate >= 0.85 else 1,
        sharpening=0.5,
        mixup_alpha=4.0,
        unlabelled_strength=strength,
        unlabelled_ramp=16,
    )
    config = base(dataset, noise, method)
    if not cifar:
        return config
    return config.replace(
        {
            "model": "preact_resnet18_bn_stem",
            "batch_size": 256,
            "epochs": 300,
            "learning_rate": 0.02,
            "weight_decay": 5e-4,
            "schedule": "multistep:150,gamma=0.1",
            **PYTORCH,
        }
    )
