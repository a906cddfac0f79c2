"""The recipe of several tasks that share a network."""

from ..config import RunConfig
from ..options import MethodOptions
from .base import base


def multitask(dataset: str, noise: str) -> RunConfig:
    """That of Khanal and Kanan 2021, section 4.2, as far as it says: ResNet18 of double width with Mish.

    What it leaves open is ours: 200 epochs of 128 images of each task, SGD with Nesterov momentum 0.9 at 0.05 down a
    cosine, weight decay 5e-4.
    """
    return base(dataset, noise, MethodOptions("multitask"))
