"""The recipe of several tasks that share a network."""

from ..config import RunConfig
from ..options import MethodOptions
from .base import base


def multitask(dataset: str, noise: str) -> RunConfig:
    """As in Khanal and Kanan 2021, section 4.2: ResNet18 of double width with Mish.

    The paper leaves other settings open. Ours are 200 epochs, batches of 128 images of each task, SGD with Nesterov
    momentum 0.9, learning rate 0.05 with a cosine schedule, and weight decay 5e-4.
    """
    return base(dataset, noise, MethodOptions("multitask"))
