"""JS and GJS (Englesson and Azizpour 2021, "Generalized Jensen-Shannon Divergence Loss for Learning with Noisy
Labels")."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses import GJSLoss
from ..models import Network
from .base import Forward, Method
from .options_of_losses import GJSOptions


class JensenShannon(Method):
    """The generalised Jensen-Shannon divergence of the given label and of what is predicted for views of the image.

    The label has the weight `pi`, and the views share the rest. Two views are trained to agree, whatever the label. As
    in the authors' code each view goes through the network by itself, so that batch norm sees one view at a time;
    `passes` joint sends all at once. The loader's augmentation makes the views, and its RandAugment leaves the first
    one out. With one view the method is JS.
    """

    weighted = parallel = True
    name = "gjs"
    Options = GJSOptions

    def __init__(self, options: GJSOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.views, self.joint = options.views, options.passes == "joint"
        self.criterion = GJSLoss(pi=options.pi, scaled=options.scale == "on")

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        parts = (images,) if self.joint else images.chunk(self.views)
        logits = torch.cat([networks[0](part).logits for part in parts])
        loss = self.criterion(logits, labels, index, **self.weight_of(labels))
        answers = logits.detach().unflatten(0, (self.views, -1))
        return Forward(loss, answers.sum(0).argmax(1), logits=answers[0])
