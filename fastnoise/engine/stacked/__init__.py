"""Several runs of a small network trained as one, each as `train` would train it alone.

A small network leaves a GPU waiting for launches. Here the layers of K networks are joined: activations have the
channels of all runs side by side, [B, K * channels, H, W], so that a convolution becomes one of K groups, batch norm
takes each run's own statistics as it is, a linear layer is one batched product, and everything that works on each
channel by itself is unchanged. Every parameter is the K runs' own, one after the other in its first dimension: what an
optimiser that works elementwise makes of it is what it makes of each. Runs see their own images in their own order, and
have their own labels, targets, figures and folders.
"""

from .batches import StackedPlan
from .entry import PER_RUN, stackable, train_stacked
from .layers import Form, StackedNetwork, join
from .method import StackedMethod
from .stack import Stack

__all__ = [
    "PER_RUN",
    "Form",
    "Stack",
    "StackedMethod",
    "StackedNetwork",
    "StackedPlan",
    "join",
    "stackable",
    "train_stacked",
]
