"""Recipes of the methods that change the loss alone, and of mixup.

CIFAR: the papers' losses on the network, optimiser and schedule of plain cross-entropy (`ce`: ResNet-34, the setting of
Zhang and Sabuncu 2018, from which the tables of ELR and NAL take their baselines), so that losses are compared on equal
terms; what differs is said below. digits and mnist: ours, as for every method.
"""

from dataclasses import replace
from typing import Literal

from ..config import RunConfig
from ..methods.options import (
    APLOptions,
    BootstrapOptions,
    FocalOptions,
    GCEOptions,
    LabelSmoothingOptions,
    MAEOptions,
    MixupOptions,
    SCEOptions,
)
from ..options import MethodOptions
from .base import is_cifar10, is_cifar100
from .ce import ce


def _like_ce(dataset: str, noise: str, method: MethodOptions) -> RunConfig:
    return replace(ce(dataset, noise), method=method)


def label_smoothing(dataset: str, noise: str) -> RunConfig:
    """Label smoothing of 0.1, the value of Szegedy et al. 2016; nothing is published for it in the papers' tables."""
    return _like_ce(dataset, noise, LabelSmoothingOptions(label_smoothing=0.1))


def gce(dataset: str, noise: str) -> RunConfig:
    """Truncated GCE (Zhang & Sabuncu 2018): q = 0.7, k = 0.5, pruned from epoch 41 (CIFAR-100: 81) every 10 epochs.

    Published by NAL (Table 1) for 40 % symmetric noise: 87.13 and 61.77 %. digits, mnist and folders prune after a
    third of the recipe's epochs, as the paper does on CIFAR-10.
    """
    config = _like_ce(dataset, noise, GCEOptions(q=0.7, k=0.5, update_every=10))
    first = 81 if is_cifar100(dataset) else config.optim.epochs // 3 + 1
    return config.replace({"update_from": first})


def sce(dataset: str, noise: str, variant: Literal["paper", "code"] = "code") -> RunConfig:
    """SCE (Wang et al. 2019): alpha 0.1 and beta 1; CIFAR-100 6 and 0.1.

    Variant "code" has log 0 = log 1e-4, "paper" -4. Published by NAL (Table 1) for 40 % symmetric noise: 87.13 and
    62.27 %. The authors train an 8-layer network on CIFAR-10 and ResNet-44 on CIFAR-100 (learning rates 0.01 and 0.1).
    mnist: 0.1 and 0.1. The authors' 0.01 and 1 make the reverse term, whose gradient is 9.2 times that of 1 - p_y, too
    strong for LeNet-5 without batch norm at learning rate 0.05: it stays at chance (10 % with 60 % symmetric noise).
    """
    alpha, beta = (6.0, 0.1) if is_cifar100(dataset) else (0.1, 0.1) if dataset == "mnist" else (0.1, 1.0)
    return _like_ce(dataset, noise, SCEOptions(alpha=alpha, beta=beta, variant=variant))


def mae(dataset: str, noise: str) -> RunConfig:
    """MAE (Ghosh et al. 2017), reduced to 1 - p_y as in the code of Ma et al. 2020: L1 at half the learning rate.

    mnist: learning rate 0.02. Its gradient p_y (p - y) doesn't bring back a class once given up: at 0.05 LeNet-5 falls
    back to chance, at 0.01 some classes are never learnt in 20 epochs (10,000 images, 60 % symmetric noise).
    """
    config = _like_ce(dataset, noise, MAEOptions(mae="reduced"))
    return config.replace({"learning_rate": 0.02}) if dataset == "mnist" else config


def focal(dataset: str, noise: str) -> RunConfig:
    """Focal loss with gamma 0.5, as Ma et al. 2020 have it among their baselines."""
    return _like_ce(dataset, noise, FocalOptions(gamma=0.5))


def apl(dataset: str, noise: str) -> RunConfig:
    """NCE + MAE (Ma et al. 2020) with the weights of the authors' configuration files.

    alpha and beta: CIFAR-10 1 and 1, CIFAR-100 10 and 1 (take --beta 0.1 with --passive rce); others as CIFAR-10. CIFAR
    as published: learning rate 0.01, weight decay 1e-4, 120 epochs on CIFAR-10; 0.1, 1e-5 and 200 epochs on CIFAR-100;
    cosine schedules. Theirs are an 8-layer network and ResNet-50; here ResNet-34 for both. mnist: 1 and 0.1. With
    the authors' 1 and 10, for learning rate 0.01, LeNet-5 stays at chance at 0.05, and with 10 and 1 it falls back to
    it after some epochs (10,000 images, 60 % symmetric noise; 94 % with 1 and 0.1).
    """
    alpha, beta = (10.0, 1.0) if is_cifar100(dataset) else (1.0, 0.1) if dataset == "mnist" else (1.0, 1.0)
    method = APLOptions(active="nce", passive="mae", alpha=alpha, beta=beta, gamma=0.5, mae="reduced")
    config = _like_ce(dataset, noise, method)
    if is_cifar10(dataset):
        return config.replace({"schedule": "cosine"})
    if is_cifar100(dataset):
        return config.replace({"learning_rate": 0.1, "weight_decay": 1e-5, "epochs": 200, "schedule": "cosine"})
    return config


def bootstrap(dataset: str, noise: str) -> RunConfig:
    """Bootstrapping (Reed et al. 2015), soft; the label's share is 0.95, or 0.8 with --kind hard.

    Published by NAL (Table 1) for 40 % symmetric noise: 82.23 and 47.66 %.
    """
    return _like_ce(dataset, noise, BootstrapOptions(kind="soft"))


def mixup(dataset: str, noise: str) -> RunConfig:
    """Mixup (Zhang et al. 2018) with alpha 1, the authors' value for CIFAR-10."""
    return _like_ce(dataset, noise, MixupOptions(mixup_alpha=1.0))
