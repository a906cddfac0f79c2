"""Recipes of the methods that change the loss alone, and of mixup.

On CIFAR the papers' losses train with the network, optimiser and schedule of plain cross-entropy (`ce`), so that losses
are compared on equal terms. These are ResNet-34 and the setting of Zhang and Sabuncu 2018, from which the tables of ELR
and NAL take their baselines. Exceptions are listed below. The settings for digits are ours, as for every
method; those for mnist too, but for apl and sce.
"""

from typing import Literal

from ..config import RunConfig
from ..methods.options_of_losses import (
    APLOptions,
    BootstrapOptions,
    FocalOptions,
    GCEOptions,
    LabelSmoothingOptions,
    MAEOptions,
    MixupOptions,
    SCEOptions,
)
from .base import is_cifar10, is_cifar100
from .ce import baseline


def label_smoothing(dataset: str, noise: str) -> RunConfig:
    """Label smoothing of 0.1, the value of Szegedy et al. 2016. The papers' tables have no results for it."""
    return baseline(dataset, noise, LabelSmoothingOptions(label_smoothing=0.1))


def gce(dataset: str, noise: str) -> RunConfig:
    """Truncated GCE (Zhang & Sabuncu 2018): q = 0.7, k = 0.5, pruned before epochs 40, 50, ... (CIFAR-100: from 80).

    These epochs are those of the public (unofficial) code, main.py. Published by NAL (Table 1) for 40 % symmetric
    noise: 87.13 and 61.77 %. digits, mnist and folders prune after a third of the recipe's epochs.
    """
    config = baseline(dataset, noise, GCEOptions(q=0.7, k=0.5, update_every=10))
    first = 80 if is_cifar100(dataset) else 40 if is_cifar10(dataset) else config.optim.epochs // 3 + 1
    return config.replace({"update_from": first})


def sce(dataset: str, noise: str, variant: Literal["paper", "code"] = "code") -> RunConfig:
    """SCE (Wang et al. 2019): alpha 0.1 and beta 1; CIFAR-100 6 and 0.1.

    Variant "code" has log 0 = log 1e-4, variant "paper" has -4. Published by NAL (Table 1) for 40 % symmetric noise:
    87.13 and 62.27 %. The authors train an 8-layer network on CIFAR-10 and ResNet-44 on CIFAR-100 (learning rates 0.01
    and 0.1). mnist as in their code: 0.01 and 1, cnn4, batch 128, 50 epochs at 0.1, 0.01 from the twelfth on and 0.001
    from the thirty-second, no weight decay, pixels in 0..1. LeNet-5 without batch norm does not bear the reverse term,
    whose gradient is 9.2 times that of 1 - p_y: at 0.05 it stays at chance.
    """
    alpha, beta = (6.0, 0.1) if is_cifar100(dataset) else (0.01, 1.0) if dataset == "mnist" else (0.1, 1.0)
    config = baseline(dataset, noise, SCEOptions(alpha=alpha, beta=beta, variant=variant))
    if dataset != "mnist":
        return config
    return config.replace(
        {
            "model": "cnn4",
            "batch_size": 128,
            "epochs": 50,
            "learning_rate": 0.1,
            "schedule": "multistep:11,31,gamma=0.1",
            "normalisation": "none",
        }
    )


def mae(dataset: str, noise: str) -> RunConfig:
    """MAE (Ghosh et al. 2017), reduced to 1 - p_y as in the code of Ma et al. 2020: L1 at half the learning rate.

    mnist: learning rate 0.02. The gradient p_y (p - y) is too small to bring back a class whose probability has become
    small: at 0.05 LeNet-5 falls back to chance, and at 0.01 it does not learn some classes in 20 epochs (10,000 images,
    60 % symmetric noise).
    """
    config = baseline(dataset, noise, MAEOptions(mae="reduced"))
    return config.replace({"learning_rate": 0.02}) if dataset == "mnist" else config


def focal(dataset: str, noise: str, variant: Literal["paper", "code"] = "paper") -> RunConfig:
    """Focal loss with gamma 0.5, as in the baselines of Ma et al. 2020. Their code holds (1 - p_y)^gamma fixed: variant
    "code"."""
    return baseline(dataset, noise, FocalOptions(gamma=0.5, variant=variant))


def apl(dataset: str, noise: str, variant: Literal["paper", "code"] = "paper") -> RunConfig:
    """NCE + MAE (Ma et al. 2020) with the weights of the authors' configuration files.

    alpha and beta: 1 and 1 on CIFAR-10, 10 and 1 on CIFAR-100 (take --beta 0.1 with --passive rce), 1 and 10 on mnist,
    and otherwise as on CIFAR-10. CIFAR as published: learning rate 0.01, weight decay 1e-4 and 120 epochs on CIFAR-10;
    0.1, 1e-5 and 200 epochs on CIFAR-100; cosine schedules; gradients clipped to norm 5. The authors train an 8-layer
    network and ResNet-50; here it is ResNet-34 for both. CIFAR-100's images are rotated by up to 20 degrees after crop
    and flip. With --active focal or nfl, variant "code" holds the factors (1 - p)^gamma fixed as their code
    does. mnist: cnn4, batch 128, learning rate 0.01 with Nesterov momentum, weight decay 0.01, 50
    epochs of a cosine down to 0.001, gradients clipped to norm 5. LeNet-5 without batch norm stays at chance with these
    weights; with 1 and 0.1 it reaches 94 % (10,000 images, 60 % symmetric noise).
    """
    alpha, beta = (10.0, 1.0) if is_cifar100(dataset) else (1.0, 10.0) if dataset == "mnist" else (1.0, 1.0)
    method = APLOptions(active="nce", passive="mae", alpha=alpha, beta=beta, gamma=0.5, mae="reduced", variant=variant)
    config = baseline(dataset, noise, method)
    if dataset == "mnist":
        return config.replace(
            {
                "model": "cnn4",
                "batch_size": 128,
                "optimizer": "sgd:momentum=0.9,nesterov",
                "learning_rate": 0.01,
                "weight_decay": 0.01,
                "epochs": 50,
                "schedule": "cosine:min=0.001",
                "clip_norm": 5.0,
            }
        )
    if is_cifar10(dataset):
        return config.replace({"schedule": "cosine", "clip_norm": 5.0})
    if is_cifar100(dataset):
        return config.replace(
            {
                "augment": "crop,pad=4,flip,rotate:20",
                "learning_rate": 0.1,
                "weight_decay": 1e-5,
                "epochs": 200,
                "schedule": "cosine",
                "clip_norm": 5.0,
            }
        )
    return config


def bootstrap(dataset: str, noise: str, variant: Literal["paper", "code"] = "paper") -> RunConfig:
    """Bootstrapping (Reed et al. 2015), soft; the label's share is 0.95, or 0.8 with --kind hard.

    Variant "code" clips probabilities as the Keras code of the tables does. Published by NAL (Table 1) for 40 %
    symmetric noise: 82.23 and 47.66 %.
    """
    return baseline(dataset, noise, BootstrapOptions(kind="soft", variant=variant))


def mixup(dataset: str, noise: str) -> RunConfig:
    """Mixup (Zhang et al. 2018) with alpha 1, the authors' value for CIFAR-10."""
    return baseline(dataset, noise, MixupOptions(mixup_alpha=1.0))
