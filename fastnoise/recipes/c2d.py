"""Recipes of C2D."""

import dataclasses

from ..config import RunConfig
from ..methods.options import C2DOptions
from .base import is_cifar10, is_cifar100
from .dividemix import dividemix
from .real import settled


def c2d(dataset: str, noise: str, rate: float | None = None) -> RunConfig:
    """C2D (Zheltonozhskii et al. 2022): SimCLR, then DivideMix, on the settings of `dividemix`.

    CIFAR, as in the authors' code: a warm-up of 5 epochs, and 360 epochs of DivideMix with the learning rate divided by
    10 every 150. Its SimCLR is that of SupContrast: temperature 0.5, projections of 128, and SGD at 0.5 for batches of
    1024, along a cosine. Ours are 0.125 for batches of 256, and 300 epochs: the authors give pretrained weights, and
    their code does not say how long they were trained. Other data sets: 20 epochs of SimCLR before those of
    `dividemix`, with crops of at least half the image for written digits. On mnist SimCLR learns at 0.03, which is
    0.125 in proportion to batches of 64: at 0.125 the features of LeNet-5, which has no batch norm, grow until the loss
    of DivideMix becomes NaN. 10,000 images with 60 % symmetric noise end at 96.8 % (seed 3). On Clothing1M the authors
    have 120 epochs of DivideMix, a warm-up of 5 and threshold 0.7.
    """
    config = settled(dividemix(dataset, noise, rate))
    cifar = is_cifar10(dataset) or is_cifar100(dataset)
    pretraining = 300 if cifar else 20
    shared = {name: getattr(config.method, name) for name in config.method.names()}
    options = C2DOptions(
        **shared
        | {
            "warm_up": min(5, shared["warm_up"]),
            "pretrain_epochs": pretraining,
            **({"pretrain_rate": 0.03} if dataset == "mnist" else {}),
            "min_area": 0.5 if dataset in ("digits", "mnist") else 0.08,
        }
    )
    course = {"epochs": 360 + pretraining, "schedule": "multistep:150,300,gamma=0.1"} if cifar else {}
    return dataclasses.replace(config, method=options).replace(course or {"epochs": config.optim.epochs + pretraining})
