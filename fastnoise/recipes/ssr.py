"""Recipes of SSR and SSR+."""

import dataclasses

from ..config import RunConfig
from ..methods.options import SSROptions, SSRPlusOptions
from .base import base, is_cifar10, is_cifar100, noise_rate
from .real import PYTORCH

RELABEL_THRESHOLD = {0.2: 0.9, 0.5: 0.8, 0.8: 0.8, 0.9: 0.8}
"""The authors' theta_r on CIFAR-100 by symmetric rate. Other rates take that of the nearest rate."""


def ssr(dataset: str, noise: str, rate: float | None = None) -> RunConfig:
    """SSR (Feng et al. 2022) with the hyperparameters of the authors' code.

    CIFAR: preact_resnet18_bn_stem, batches of 128 samples for each of three parts, SGD, learning rate 0.02 along a
    cosine to 0.0004, weight decay 5e-4, 300 epochs, Beta(4, 4), 200 neighbours, and a strong view that is cropped,
    mirrored and changed by AutoAugment. A prediction replaces a label from a probability of 0.9 on; on CIFAR-100 from
    0.8 on if nearer to 50 than to 20 % of the labels are wrong. Published (symmetric 20, 50, 80, 90 %, asymmetric
    40 %): 96.3, 95.7, 95.2, 94.6, 95.1 and on CIFAR-100 (symmetric) 79.0, 75.9, 69.5, 61.8 %. The rate of --noise-rate
    or noise chooses the threshold. The settings for other data sets are ours: those of all methods, with a half more
    samples in a batch, and no strong view. On digits with 40 % symmetric noise it ends at 99.2 and 99.4 % (two seeds),
    and at 97.2 and 97.5 with images moved by up to a pixel; with 40 % asymmetric noise (map mnist) at 96.9 (one seed).
    """
    rate = noise_rate(noise) if rate is None else rate
    threshold = 0.9
    if is_cifar100(dataset):
        threshold = RELABEL_THRESHOLD[min(RELABEL_THRESHOLD, key=lambda known: abs(known - rate))]
    config = base(dataset, noise, SSROptions(relabel_threshold=threshold))
    if not (is_cifar10(dataset) or is_cifar100(dataset)):
        return config.replace({"batch_size": 3 * (config.data.batch_size // 2)})
    return config.replace(
        {
            "model": "preact_resnet18_bn_stem",
            "batch_size": 384,
            "epochs": 300,
            "learning_rate": 0.02,
            "weight_decay": 5e-4,
            "schedule": "cosine:min=0.0004",
            "augment": "crop,pad=4,flip,autoaugment:cifar10",
            **PYTORCH,
        }
    )


def ssr_plus(dataset: str, noise: str, rate: float | None = None) -> RunConfig:
    """SSR+ (Feng et al. 2022): `ssr` with the feature consistency, of weight 1.

    Published for the same noises: 96.7, 96.1, 95.6, 95.2, 95.5 and 79.7, 77.2, 71.9, 66.6 %. On digits both views are
    the image as it is; it ends at 98.6 and 98.9 % there (two seeds), and with asymmetric noise at 99.7.
    """
    config = ssr(dataset, noise, rate)
    shared = {name: getattr(config.method, name) for name in config.method.names()}
    return dataclasses.replace(config, method=SSRPlusOptions(**shared))
