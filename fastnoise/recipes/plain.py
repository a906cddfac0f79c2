"""The recipe of plain training on the task's own loss."""

from ..config import RunConfig
from ..options import MethodOptions
from .base import base


def plain(dataset: str, noise: str) -> RunConfig:
    """The settings that all methods share for a data set. Ours: the papers' baselines are those of `ce`."""
    return base(dataset, noise, MethodOptions("plain"))
