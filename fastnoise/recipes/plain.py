"""The recipe of plain training on the task's own loss."""

from ..config import RunConfig
from ..options import MethodOptions
from .base import base


def plain(dataset: str, noise: str) -> RunConfig:
    """The settings that all methods share for a data set. They are ours; `ce` has those of the papers' baselines."""
    return base(dataset, noise, MethodOptions("plain"))
