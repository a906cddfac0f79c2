"""The layers on a network's penultimate features: the classifier, and the heads that methods add."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class Outputs(NamedTuple):
    """What a network returns for a batch."""

    logits: Tensor
    """[B, C]."""
    attention: Tensor | None = None
    """[B], the attention logit h of NAL, before the sigmoid; None without an attention branch."""
    features: Tensor | None = None
    """[B, F], the penultimate features, the input of the heads. None if they are unknown: for the mean of several
    networks, and in `Run.scan` of stacked runs."""

    def map(self, of: Callable[[Tensor], Tensor]) -> "Outputs":
        """The outputs with `of` applied to each part that is not None."""
        return Outputs(of(self.logits), *(None if part is None else of(part) for part in self[1:]))

    def take(self, rows: Tensor) -> "Outputs":
        """The outputs of these images, int64 [R]."""
        return self.map(lambda part: part[rows])


class Backbone(nn.Module):
    """A network without its classifier: images [B, channels, H, W] -> penultimate features [B, num_features]."""

    num_features: int
    smallest: ClassVar[int] = 1
    """The smallest side of an image for which every layer has at least one pixel."""


class Network(nn.Module):
    """A backbone, a linear classifier and, if the method asks for it, NAL's attention branch.

    Args:
        backbone: everything before the classifier.
        num_classes: C.
        attention: adds the branch h = W H + b, W in R^{1 x M}, of NAL (Lu et al. 2022, section 3.1). The loss computes
            its sigmoid (Eq. 2), because it can fuse it and keep it finite.
        head: takes the number of features and returns the layer that turns features into logits [B, C]. The default is
            a linear layer.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        attention: bool = False,
        head: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        self.backbone = backbone
        size = backbone.num_features
        self.classifier: nn.Module = nn.Linear(size, num_classes) if head is None else head(size)
        self.attention = nn.Linear(backbone.num_features, 1) if attention else None

    def forward(self, images: Tensor) -> Outputs:
        features: Tensor = self.backbone(images)
        logits = self.classifier(features)
        if self.attention is None:
            return Outputs(logits, None, features)
        return Outputs(logits, torch.squeeze(self.attention(features), 1), features)


class LogitsNetwork(Network):
    """A user's network that gives logits and no features. No head can be added to it.

    Args:
        module: images [B, channels, H, W] -> logits [B, C].
    """

    def __init__(self, module: nn.Module):
        nn.Module.__init__(self)
        self.module = module
        self.attention = None

    def forward(self, images: Tensor) -> Outputs:
        return Outputs(self.module(images))
