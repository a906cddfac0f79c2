"""Recipes of co-teaching."""

from typing import Any, Literal

from ..config import RunConfig
from ..methods.options import CoTeachingOptions
from .base import base, is_cifar10, is_cifar100, noise_rate

SMALL_LOSS: dict[str, Any] = {
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "batch_size": 128,
    "drop_last": True,
    "epochs": 199,
    "crop_padding": 0,
    "flip": False,
    "normalisation": "none",
}
"""The course of co-teaching's code, and of those that are made from it."""


def coteaching(
    dataset: str, noise: str, rate: float | None = None, variant: Literal["paper", "code"] | None = None
) -> RunConfig:
    """Co-teaching (Han et al. 2018): the forget rate is the rate of wrong labels, reached in 10 epochs.

    The rate is that of --noise-rate, or what the noise spec asks for; a transition matrix counts as 20 %. mnist and
    CIFAR as in the authors' code: cnn9_dropout2d_always, with which its figures were made (nine layers; dropout 0.25 of
    whole channels, in evaluation too, which --model cnn9_dropout2d leaves out), Adam, learning rate 1e-3, batches of
    128 without an epoch's rest, 199 epochs (its 1 to 199), a linear decay from its epoch 80 (CIFAR-100: 100), pixels in
    0..1, neither crops nor flips, and variant "code", which reaches the forget rate in epoch 9. What it has besides:
    Adam's beta1 falls to 0.1 when the decay begins and here stays at 0.9, and on mnist an epoch ends after 401 of 468
    batches. Published (pair 45 %, symmetric 50 and 20 %): mnist 87.58, 91.68 and 97.71, CIFAR-10 72.85, 74.49 and
    82.18, CIFAR-100 34.40, 41.23 and 54.36 %. The settings for digits and folders are ours.
    """
    published = dataset == "mnist" or is_cifar10(dataset) or is_cifar100(dataset)
    rate = noise_rate(noise) if rate is None else rate
    method = CoTeachingOptions(
        forget_rate=rate, forget_epochs=10, variant=variant or ("code" if published else "paper")
    )
    config = base(dataset, noise, method)
    if not published:
        return config
    return config.replace(
        {
            **SMALL_LOSS,
            "schedule": "linear:99" if is_cifar100(dataset) else "linear:79",
            "model": "cnn9_dropout2d_always",
            "dropout": 0.25,
        }
    )
