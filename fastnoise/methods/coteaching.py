"""Co-teaching (Han et al. 2018, "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels")."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses import CrossEntropyLoss
from ..models import Network, Outputs
from .base import Estimates, Forward, Method, Run, Selection
from .options import CoTeachingOptions


class CoTeaching(Method):
    """Two networks, each trained on the samples of the batch that the other finds easiest (Algorithm 1).

    In epoch t each network picks the floor(R(t) B) samples of smallest loss, at least one, and the other takes its mean
    cross-entropy over them; R(t) = 1 - forget_rate * min(t / forget_epochs, 1). Variant "code" has forget_epochs - 1
    there. The authors' code also divides the mean by the number of samples a second time, which their optimiser, Adam,
    hides. Several processes pick from a batch each. One step trains both networks on the sum of their losses, whose
    gradient in either is that of its own.
    """

    weighted = parallel = True
    name = "coteaching"
    Options = CoTeachingOptions
    networks = 2
    remember_rate: Tensor
    picked: Tensor

    def __init__(self, options: CoTeachingOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.criterion = CrossEntropyLoss(reduction="none")
        self.forget_rate = options.forget_rate
        self.forget_epochs = max(1, options.forget_epochs - (options.variant == "code"))
        self.register_buffer("remember_rate", torch.ones(()))
        # [k]: the samples that network k found easy when it saw them last, and the other one learned.
        self.register_buffer("picked", torch.zeros(2, num_samples, dtype=torch.bool))

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        logits = [network(images).logits for network in networks]
        losses = [self.criterion(answers, labels) for answers in logits]
        # The thousandth keeps rounding from costing a sample: (1 - 0.07) * 1000 is 929.99... in double precision.
        kept = (self.remember_rate * len(labels) + 1e-3).floor().clamp(min=1)
        easy = torch.arange(len(labels), device=labels.device) < kept
        chosen = []
        for loss in losses:
            by_loss = loss.detach().argsort(stable=True)
            chosen.append(torch.zeros_like(loss).scatter(0, by_loss, easy.to(loss.dtype)))
        self.picked.index_copy_(1, index, torch.stack(chosen) > 0)
        exchanged = torch.stack(losses) * torch.stack(chosen[::-1])
        if self.class_weights is not None:
            exchanged = exchanged * self.class_weights[labels]
        return Forward(exchanged.sum() / kept, torch.stack(logits).detach().sum(0).argmax(1))

    def start_epoch(self, epoch: int) -> None:
        self.remember_rate.fill_(1 - self.forget_rate * min(epoch / self.forget_epochs, 1))

    def exchange(self) -> None:
        self.shards.share_(self.picked, dim=1)

    def selections(self) -> dict[str, Selection]:
        """What each network picked for the other."""
        return {f"picked_{number + 1}": Selection(self.picked[number]) for number in (0, 1)}

    def estimates(self, run: Run) -> Estimates:
        """Suspected: the `forget_rate` of all samples with the largest mean loss of the networks at the end.

        Confidence: the networks' mean probability of the given label. Suspected samples are taken for what the
        networks predict together.
        """

        def judge(outputs: Sequence[Outputs], index: Tensor) -> tuple[Tensor, ...]:
            logits = torch.stack([each.logits for each in outputs])
            probabilities, given = logits.softmax(2).mean(0), run.given[index, None]
            loss = -logits.log_softmax(2).mean(0).gather(1, given)
            return loss.squeeze(1), probabilities.gather(1, given).squeeze(1), probabilities.argmax(1)

        loss, confidence, prediction = run.scan(judge)
        suspected = torch.zeros_like(run.given, dtype=torch.bool)
        suspected[loss.argsort(descending=True, stable=True)[: int(self.forget_rate * len(loss))]] = True
        return Estimates(torch.where(suspected, prediction, run.given), confidence, suspected)
