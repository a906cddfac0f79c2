"""Recipes of the methods that correct labels or the loss: forward, dual_t, plc, selc and selc_plus."""

from dataclasses import replace
from typing import Any, Literal

from ..config import RunConfig
from ..methods.options import DualTOptions, ForwardOptions, PLCOptions, SELCOptions, SELCPlusOptions
from ..noise.spec import parse
from .base import base, is_cifar10, is_cifar100
from .real import PYTORCH, settled


def forward(dataset: str, noise: str, variant: Literal["paper", "code"] = "paper") -> RunConfig:
    """Forward correction with an estimated matrix (Patrini et al. 2017): two trainings in one run.

    T is estimated from the 97th percentile on CIFAR-10 and MNIST and from the maximum on CIFAR-100, as in the authors'
    code; on others as on CIFAR-10. CIFAR: learning rate 0.1, batch 128, 10 % held out. CIFAR-10 has 120 epochs with the
    learning rate divided by 10 at 40 and 80, and weight decay 1e-4; CIFAR-100 has 150 epochs, 80 and 120, and 1e-3.
    Published by NAL (Table 1) for 40 % symmetric noise: 83.25 and 31.05 %. The warm-up is ours: on CIFAR it ends 5
    epochs after the first division, and otherwise after a sixth of the epochs (digits, folders: 10 of 60) or a quarter
    (mnist: 5 of 20). Variant "code" clips probabilities as the authors' Keras code does.
    """
    percentile = 100.0 if is_cifar100(dataset) else 97.0
    warm_up = 45 if is_cifar10(dataset) else 85 if is_cifar100(dataset) else 5 if dataset == "mnist" else 10
    config = base(dataset, noise, ForwardOptions(warm_up=warm_up, percentile=percentile, variant=variant))
    if is_cifar10(dataset):
        published = {"epochs": warm_up + 120, "weight_decay": 1e-4, "schedule": "multistep:40,80,gamma=0.1"}
    elif is_cifar100(dataset):
        published = {"epochs": warm_up + 150, "weight_decay": 1e-3, "schedule": "multistep:80,120,gamma=0.1"}
    else:
        return config
    return config.replace({"learning_rate": 0.1, "val_fraction": 0.1, **published})


def dual_t(dataset: str, noise: str) -> RunConfig:
    """Dual-T (Yao et al. 2020): two trainings in one run, T from the 97th percentile on all data sets.

    As in the authors' code: SGD without momentum at 0.01, divided by 10 every 50 epochs, weight decay 1e-4, batches of
    128, 10 % held out. CIFAR: 20 epochs, then 200; ResNet-18, on CIFAR-100 ResNet-34 and CIFAR-10's mean and standard
    deviation. MNIST: 100 epochs, then 200, LeNet-5. The settings for other data sets are ours, with `forward`'s warm-up
    of 10 epochs. Digits have 30 more and are moved by up to a pixel: with 40 % symmetric noise they end at 92.8 %
    (two seeds), unmoved after 60 epochs at 78.6 (forward at 73.8).
    """
    hundred, mnist = is_cifar100(dataset), dataset == "mnist"
    published = hundred or mnist or is_cifar10(dataset)
    warm_up = 100 if mnist else 20 if published else 10
    config = base(dataset, noise, DualTOptions(warm_up=warm_up, percentile=97.0))
    if not published:
        return config.replace({"crop_padding": 1, "epochs": 40}) if dataset == "digits" else config
    return config.replace(
        {
            "model": "lenet5" if mnist else "resnet34" if hundred else "resnet18",
            "optimizer": "sgd:momentum=0",
            "learning_rate": 0.01,
            "weight_decay": 1e-4,
            "batch_size": 128,
            "epochs": warm_up + 200,
            "schedule": "multistep:50,100,150,gamma=0.1",
            "val_fraction": 0.1,
            "normalisation": "cifar10" if hundred else "dataset",
        }
    )


def plc(dataset: str, noise: str) -> RunConfig:
    """PLC (Zhang et al. 2021) as in the authors' code: window 5, threshold 0.3 in steps of 0.1, warm-up 8.

    CIFAR: ResNet-34, which the authors' code calls preact_resnet34 and with which its figures were made. Batch 128,
    learning rate 0.01 with Nesterov momentum, halved at 40 and 80, weight decay 5e-4, 180 epochs, 45,000 training
    images. The authors select on 5,000 clean images; here the held-out labels are noisy. On CIFAR-100 their code takes
    CIFAR-10's mean and standard deviation, and a warm-up of 15 for hybrid noise.
    """
    hybrid = is_cifar100(dataset) and parse(noise).hybrid is not None
    method = PLCOptions(warm_up=15 if hybrid else 8, window=5, threshold=0.3, threshold_step=0.1)
    config = base(dataset, noise, method)
    if not (is_cifar10(dataset) or is_cifar100(dataset)):
        return config
    return config.replace(
        {
            "optimizer": "sgd:momentum=0.9,nesterov",
            "learning_rate": 0.01,
            "weight_decay": 5e-4,
            "schedule": "multistep:40,80,gamma=0.5",
            "epochs": 180,
            "val_fraction": 0.1,
            "normalisation": "cifar10" if is_cifar100(dataset) else "dataset",
            **PYTORCH,
        }
    )


ES_SYMMETRIC = {0.2: (40, 30), 0.4: (30, 20), 0.6: (30, 30), 0.8: (40, 40)}
"""SELC's `es`, the last epoch of plain cross-entropy, by rate: CIFAR-10 and CIFAR-100 (the authors' code)."""

ES_ASYMMETRIC = {0.4: (40, 20)}

PMD: dict[str, Any] = {
    "model": "preact_resnet18_bn_stem",
    "batch_size": 128,
    "learning_rate": 0.1,
    "weight_decay": 5e-4,
    "epochs": 150,
    "schedule": "multistep:61,121,gamma=0.2",
    **PYTORCH,
}
"""The settings of SELC's code for PMD noise on CIFAR. Its network is called PreResNet34 and has 18 layers. Each epoch
begins with a new SGD, whose learning rate is set after the epoch before: it falls after epochs 61 and 121. The code's
other schedule for CIFAR-100 (0.1 after 40 and 80) belongs to the first epoch's SGD and never takes a step."""


def selc(dataset: str, noise: str) -> RunConfig:
    """SELC (Lu & He 2022): ResNet-34, batch 128, learning rate 0.02, weight decay 1e-3, momentum 0.9, 200 epochs.

    The learning rate is divided by 10 at 40 and 80. Correction begins after the `es` of the authors' code if the code
    has one for the noise (20 to 80 % symmetric, 40 % asymmetric), else at the turning point that the run itself finds.
    Published for 40 % symmetric noise: 91.18 and 68.46 %. PMD noise on CIFAR has the settings of the authors' code for
    it (`PMD`): preact_resnet18_bn_stem, with which the figures were made although the paper says PreActResNet-34, `es`
    40, 150 epochs from learning rate 0.1. Published for type I, 35 %: 86.97 and 65.72 %.
    """
    update_from: int | Literal["auto"] = "auto"
    cifar, spec = is_cifar10(dataset) or is_cifar100(dataset), parse(noise)
    if cifar:
        table = {"symmetric": ES_SYMMETRIC, "asymmetric": ES_ASYMMETRIC}.get(spec.kind, {})
        if spec.rate in table:
            update_from = table[spec.rate][is_cifar100(dataset)] + 1
        elif spec.kind == "pmd":
            update_from = 41
    config = base(dataset, noise, SELCOptions(momentum=0.9, update_from=update_from))
    if cifar and spec.kind == "pmd":
        return config.replace(PMD)
    if cifar:
        return config.replace({"epochs": 200, "schedule": "multistep:40,80,gamma=0.1"} | PYTORCH)
    return config


def selc_plus(dataset: str, noise: str) -> RunConfig:
    """SELC+ (Lu & He 2022): twice the epochs of SELC. The second half has mixup, Beta(0.9, 0.9) as in the code."""
    config = settled(selc(dataset, noise))
    assert isinstance(config.method, SELCOptions)
    options = SELCPlusOptions(momentum=config.method.momentum, update_from=config.method.update_from, mixup_alpha=0.9)
    return replace(config, method=options).replace({"epochs": 2 * config.optim.epochs})
