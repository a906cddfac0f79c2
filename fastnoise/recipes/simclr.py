"""Recipes of SimCLR pretraining."""

from ..config import RunConfig
from ..methods.options import SimCLROptions
from .base import base, is_cifar10, is_cifar100


def simclr(dataset: str, noise: str) -> RunConfig:
    """SimCLR (Chen et al. 2020) as the SWCE pipeline begins with it.

    CIFAR: ResNet-18 and 30 epochs, as the SWCE paper has them; temperature 0.5, projections of 128 and jitter 0.5 as
    SimCLR's appendix has them for CIFAR-10; batch 512 and Adam at 1e-3 under a cosine, ours. Flips are the loader's.
    digits and mnist: no flips, which make other digits, and crops of at least half the image.
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
