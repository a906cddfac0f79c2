"""JoCoR (Wei et al. 2020, "Combating Noisy Labels by Agreement: A Joint Training Method with Co-Regularization")."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..models import Network
from .base import Forward, Selection
from .options import JoCoROptions
from .small_loss import SmallLoss


class JoCoR(SmallLoss):
    """Two networks trained together on the samples of the batch that both find easy and agree on (Algorithm 1).

    With p1 and p2 the networks' probabilities, a sample's loss is, Eq. 1 to 3,

        (1 - strength) (CE(p1, y) + CE(p2, y)) + strength (KL(p1 || p2) + KL(p2 || p1))

    One choice is made for both networks, as `SmallLoss` says, and the mean is over the samples that are kept. Gradient
    flows into both networks through both terms.
    """

    weighted = parallel = True
    name = "jocor"
    Options = JoCoROptions

    def __init__(self, options: JoCoROptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes, choices=1)
        self.strength = options.strength

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        logits = torch.stack([network(images).logits for network in networks])
        losses = self.judged(logits.float().log_softmax(2), labels)
        (chosen,), kept = self.easiest([losses.detach()], index)
        if self.class_weights is not None:
            losses = losses * self.class_weights[labels]
        answers = logits.detach().mean(0)
        return Forward((losses * chosen).sum() / kept, answers.argmax(1), logits=answers)

    def judged(self, log_probs: Tensor, given: Tensor) -> Tensor:
        """The joint loss of each sample."""
        first, second = log_probs
        apart = ((first.exp() - second.exp()) * (first - second)).sum(1)  # both divergences in one sum
        of_labels = -log_probs.sum(0).gather(1, given[:, None]).squeeze(1)
        return (1 - self.strength) * of_labels + self.strength * apart

    def selections(self) -> dict[str, Selection]:
        """What both networks learned."""
        return {"picked": Selection(self.picked[0])}
