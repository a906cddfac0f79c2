"""Recipes of the SWCE loss."""

from ..config import RunConfig
from ..methods.options import SWCELossOptions
from .base import base, is_cifar10, is_cifar100


def swce_loss(dataset: str, noise: str) -> RunConfig:
    """Softmax-weighted cross-entropy alone, without the pipeline around it.

    CIFAR: the pipeline's optimiser and epochs with the loss alone: ResNet-18, decoupled weight decay 0.03,
    learning rate 1e-4 for the 5 epochs of warm-up and the 4 of the first iteration, 1e-5 for the two
    iterations of 7, 1e-6 for the last of 7. The published figures belong to the whole pipeline.
    """
    config = base(dataset, noise, SWCELossOptions(weight="detached"))
    if is_cifar10(dataset) or is_cifar100(dataset):
        return config.replace(
            {
                "model": "resnet18",
                "optimizer": "adamw",
                "epochs": 30,
                "learning_rate": 1e-4,
                "weight_decay": 0.03,
                "schedule": "multistep:9,23,gamma=0.1",
            }
        )
    return config
