"""Recipes of DivideMix and AugDesc."""

import dataclasses

from ..config import RunConfig
from ..methods.options import AugDescOptions, DivideMixOptions
from .base import base, is_cifar10, is_cifar100, noise_rate
from .real import PYTORCH, settled

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


AUGDESC_COURSE = {0.2: (300, 150), 0.5: (300, 150), 0.8: (350, 200), 0.9: (350, 250)}
"""The authors' epochs on CIFAR-10 by symmetric rate, and that after which the learning rate is divided by 10. Other
rates take those of the nearest rate."""


def augdesc(dataset: str, noise: str, rate: float | None = None) -> RunConfig:
    """AugDesc (Nishi et al. 2021) with a weak warm-up (AugDesc-WAW), by the presets of the authors' code.

    CIFAR: as `dividemix`, with 128 samples for each of the four parts. CIFAR-10 takes the epochs of `AUGDESC_COURSE`,
    and if the noise depends on the class those of 90 %; CIFAR-100 400, divided by 10 after 300. A strong view is
    cropped and mirrored, then changed by AutoAugment. Published, best epoch (symmetric 20, 50, 80, 90 %, asymmetric
    40 %): 96.33, 95.36, 93.77, 91.88, 94.64 and on CIFAR-100 (symmetric) 79.50, 77.24, 66.36, 41.20 %. With a strong
    warm-up (`--warm-up-view strong`): 96.35, 95.64, 93.72, 35.33, 94.39 and 79.61, 77.64, 61.83, 17.57 %, where the
    authors train 300 epochs, divided by 10 after 150 under asymmetric and after 200 under 50 % symmetric noise.

    The settings for other data sets are those of `dividemix`. Digits and mnist are moved by up to a pixel, so that weak
    views differ, and strong ones are changed by AutoAugment too: digits with 40 % symmetric noise end at 98.6 and
    98.9 % (two seeds).
    """
    rate = noise_rate(noise) if rate is None else rate
    config = settled(dividemix(dataset, noise, rate))
    shared = {name: getattr(config.method, name) for name in config.method.names()}
    config = dataclasses.replace(config, method=AugDescOptions(**shared))
    if not (is_cifar10(dataset) or is_cifar100(dataset)):
        small = dataset in ("digits", "mnist")
        return config.replace({"augment": "crop,pad=1,autoaugment:cifar10"}) if small else config
    epochs, milestone = 400, 300
    if is_cifar10(dataset):
        symmetric = noise.startswith("symmetric") or noise == "none"
        nearest = min(AUGDESC_COURSE, key=lambda known: abs(known - rate)) if symmetric else 0.9
        epochs, milestone = AUGDESC_COURSE[nearest]
    return config.replace(
        {
            "batch_size": 512,
            "epochs": epochs,
            "schedule": f"multistep:{milestone},gamma=0.1",
            "augment": "crop,pad=4,flip,autoaugment:cifar10",
        }
    )
