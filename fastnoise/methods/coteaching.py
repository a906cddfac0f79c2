"""Co-teaching (Han et al. 2018, "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels")."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses import CrossEntropyLoss
from ..models import Network
from .base import Forward, Selection
from .options import CoTeachingOptions
from .small_loss import SmallLoss


class CoTeaching(SmallLoss):
    """Two networks, each trained on the samples of the batch that the other finds easiest (Algorithm 1).

    Each network picks as `SmallLoss` says, and the other takes its mean cross-entropy over the picked samples. The
    authors' code also divides the mean by the number of samples a second time, which their optimiser, Adam, hides. One
    step trains both networks on the sum of their losses, whose gradient in either is that of its own.
    """

    weighted = parallel = True
    name = "coteaching"
    Options = CoTeachingOptions

    def __init__(self, options: CoTeachingOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes, choices=2)
        self.criterion = CrossEntropyLoss(reduction="none")

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        logits = [network(images).logits for network in networks]
        losses = [self.criterion(answers, labels) for answers in logits]
        chosen, kept = self.easiest([loss.detach() for loss in losses], index)
        exchanged = torch.stack(losses) * torch.stack(chosen[::-1])
        if self.class_weights is not None:
            exchanged = exchanged * self.class_weights[labels]
        answers = torch.stack(logits).detach().mean(0)
        return Forward(exchanged.sum() / kept, answers.argmax(1), logits=answers)

    def selections(self) -> dict[str, Selection]:
        """What each network picked for the other."""
        return {f"picked_{number + 1}": Selection(self.picked[number]) for number in (0, 1)}

    def judged(self, log_probs: Tensor, given: Tensor) -> Tensor:
        """The mean of the networks' cross-entropies."""
        return -log_probs.mean(0).gather(1, given[:, None]).squeeze(1)
