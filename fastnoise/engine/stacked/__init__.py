"""Several runs of a small network trained as one. Each gets the training that `train` would give it alone.

With a small network a GPU mostly waits for launches. Here the layers of K networks are joined. Activations have the
channels of all runs side by side, [B, K * channels, H, W]. A convolution becomes a convolution of K groups, and a
linear layer a batched product. Batch norm and all other layers that work on each channel alone stay as they are. A
joined parameter holds the parameters of the K runs one after the other in its first dimension, so that an elementwise
optimiser treats each run as it would alone. Each run sees its own images in its own order, and has its own labels,
targets, figures and folder.
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
