"""Recipes of NAL."""

from typing import Literal

from ..config import RunConfig
from ..methods.options import NALOptions
from ..noise.spec import parse
from .base import base, is_cifar10, is_cifar100
from .correction import PMD
from .real import PYTORCH, UPDATES


def nal(dataset: str, noise: str, variant: Literal["paper", "code"] = "paper") -> RunConfig:
    """NAL (Lu et al. 2022), as in the paper's Algorithm 1 or as in the authors' code.

    CIFAR: ResNet-34, batch 64, learning rate 0.02, weight decay 1e-3, cosine annealing restarted every 10
    epochs down to 0.001, momentum 0.9; strength 0.5 on CIFAR-10 and 10 on CIFAR-100 (section 5.2); 500 epochs
    (the code; 300 for asymmetric noise on CIFAR-10). Published at 40 % symmetric: 93.49 and 74.65 %.

    Variant "paper" updates the targets at every visit from the first epoch. Variant "code" has the clamps of the
    authors' code, and updates the targets only in every tenth epoch from epoch `es` on: 60, the default of their
    train_cifar.py, on CIFAR-10 and CIFAR-100, and that of `UPDATES` on ANIMAL-10N, Clothing1M and mini WebVision. On
    others it is 10, which is ours.

    PMD noise on CIFAR: the paper has batch 128 and "PreActResNet34", which is preact_resnet18_bn_stem in the authors'
    code. It says no more, so the optimiser and schedule are those of SELC's code, by the same authors. Published for
    type I, 35 %: 88.81 and 66.55 %.

    digits and mnist: strength 0.5 as for CIFAR-10, momentum 0.9. RNAL (--reverse) is off; the authors' code sets it to
    0.1 on Clothing1M and WebVision.
    """
    strength = 10.0 if is_cifar100(dataset) else 0.5
    start, every = (1, 1)
    if variant == "code":
        start, every = UPDATES.get(dataset, (60 if is_cifar10(dataset) or is_cifar100(dataset) else 10, 10))
    method = NALOptions(
        strength=strength,
        momentum=0.9,
        variant=variant,
        update_from=start,
        update_every=every,
        reverse=0.0,
        gate=0.0,
        target_estimation="on",
        attention="branch",
    )
    config = base(dataset, noise, method)
    if is_cifar10(dataset) or is_cifar100(dataset):
        if parse(noise).kind == "pmd":
            return config.replace(PMD)
        asymmetric = is_cifar10(dataset) and noise.startswith("asymmetric")
        return config.replace(
            {
                "epochs": 300 if asymmetric else 500,
                "batch_size": 64,
                "schedule": "cosine_restarts:10,min=0.001",
                **PYTORCH,
            }
        )
    return config
