"""Recipes of CORES²."""

from ..config import RunConfig
from ..methods.options import CORESOptions
from .base import base, is_cifar10, is_cifar100
from .real import PYTORCH


def cores(dataset: str, noise: str) -> RunConfig:
    """CORES² (Cheng et al. 2021), phase 1: beta rises from 0 to 2 over epochs 12 to 40, the sieve begins in epoch 32.

    CIFAR as in the authors' code, whatever the noise: ResNet-34, SGD without momentum and weight decay, batches of 64,
    100 epochs, learning rate 0.1 and 0.01 from the 51st on, divided by 1 + beta. Their starred figures (CORES²*) are of
    phase 2, which trains for 1,600 epochs more on what phase 1 found, so none is given here. On other data sets the
    ramp and the sieve begin and end after the same shares of the recipe's epochs, and the other settings are ours.
    """
    config = base(dataset, noise, CORESOptions())
    if is_cifar10(dataset) or is_cifar100(dataset):
        return config.replace(
            {
                "optimizer": "sgd:momentum=0",
                "learning_rate": 0.1,
                "weight_decay": 0.0,
                "batch_size": 64,
                "epochs": 100,
                "schedule": "multistep:50,gamma=0.1",
                **PYTORCH,
            }
        )
    epochs = config.optim.epochs
    first = round(0.11 * epochs)
    return config.replace(
        {"ramp_from": first, "ramp_to": max(first + 1, round(0.4 * epochs)), "sieve_from": round(0.31 * epochs) + 1}
    )
