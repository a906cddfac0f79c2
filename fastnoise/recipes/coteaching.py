"""Recipes of co-teaching."""

from ..config import RunConfig
from ..methods.options import CoTeachingOptions
from .base import base, is_cifar10, is_cifar100, noise_rate


def coteaching(dataset: str, noise: str, rate: float | None = None) -> RunConfig:
    """Co-teaching (Han et al. 2018): the forget rate is the rate of wrong labels, reached in 10 epochs.

    The rate is that of --noise-rate, or what the noise spec asks for; a transition matrix counts as 20 %. CIFAR as in
    the authors' code: a network of nine layers with dropout 0.25, Adam, learning rate 1e-3, batch 128, 200 epochs, a
    linear decay from epoch 80 (CIFAR-100: 100), neither crops nor flips. In their code Adam's beta1 falls to 0.1 when
    the decay begins; here it stays at 0.9. Published (pair 45 %, symmetric 50 and 20 %):
    CIFAR-10 72.85, 74.49 and 82.18, CIFAR-100 34.40, 41.23 and 54.36 %. The settings for digits, mnist and folders are
    ours; mnist reaches its forget rate in 5 of 20 epochs.
    """
    rate = noise_rate(noise) if rate is None else rate
    method = CoTeachingOptions(forget_rate=rate, forget_epochs=5 if dataset == "mnist" else 10)
    config = base(dataset, noise, method)
    if is_cifar10(dataset) or is_cifar100(dataset):
        return config.replace(
            {
                "optimizer": "adam",
                "learning_rate": 1e-3,
                "weight_decay": 0.0,
                "epochs": 200,
                "schedule": "linear:100" if is_cifar100(dataset) else "linear:80",
                "model": "cnn9",
                "dropout": 0.25,
                "crop_padding": 0,
                "flip": False,
            }
        )
    return config
