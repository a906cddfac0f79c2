"""Recipes of SimCLR pretraining."""

from ..config import RunConfig
from ..methods.options import SimCLROptions
from .base import base, is_cifar10, is_cifar100


def simclr(dataset: str, noise: str) -> RunConfig:
    """SimCLR (Chen et al. 2020), with which the SWCE pipeline begins.

    CIFAR: ResNet-18 and 30 epochs, as in the SWCE paper; temperature 0.5, projections of 128 and jitter 0.5, as in
    SimCLR's appendix for CIFAR-10. Batch 512 and Adam at 1e-3 with a cosine schedule are ours. The loader makes the
    flips. digits and mnist: no flips, since a mirrored digit is another one, and crops of at least half the image.
    """
    written = dataset in ("digits", "mnist")
    options = SimCLROptions(temperature=0.5, projection=128, jitter=0.5, min_area=0.5 if written else 0.08)
    config = base(dataset, noise, options).replace(
        {
            "epochs": 30,
            "batch_size": 256 if written else 512,
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "weight_decay": 1e-6,
            "schedule": "cosine",
            "crop_padding": 0,
        }
    )
    return config.replace({"model": "resnet18"}) if is_cifar10(dataset) or is_cifar100(dataset) else config
