"""What sits on a network's penultimate features: the classifier, the heads that methods add, and those of tasks."""

from collections.abc import Callable, Sequence
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
    """[B, F], the penultimate features, which are the input of the heads. None if they are unknown: for the mean of
    several networks, and in `Run.scan` of stacked runs."""

    def map(self, of: Callable[[Tensor], Tensor]) -> "Outputs":
        """The outputs with `of` applied to each part that is there."""
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
        attention: adds the branch h = W H + b, W in R^{1 x M}, of NAL (Lu et al. 2022, section 3.1); its
            sigmoid (Eq. 2) is taken by the loss, where it can be fused and stays finite.
    """

    def __init__(self, backbone: Backbone, num_classes: int, attention: bool = False):
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.num_features, num_classes)
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


class MultiTaskNetwork(nn.Module):
    """A backbone that several tasks share, and a linear classifier for each: hard parameter sharing, as in Figure 2 of
    Khanal and Kanan, "How Does Heterogeneous Label Noise Impact Generalization in Neural Nets?" (ISVC 2021).

    Args:
        backbone: everything before the classifiers.
        num_classes: of each task.
    """

    def __init__(self, backbone: Backbone, num_classes: Sequence[int]):
        super().__init__()
        self.backbone = backbone
        self.classifiers = nn.ModuleList(nn.Linear(backbone.num_features, count) for count in num_classes)

    def forward(self, images: Tensor, task: int) -> Tensor:
        """Logits [B, C of the task] for images [B, channels, H, W] of one task."""
        logits: Tensor = self.classifiers[task](self.backbone(images))
        return logits
