"""What methods share whose two networks learn the samples of small loss in each batch: coteaching, jocor."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ..models import Outputs
from .base import Estimates, Method, Run
from .options import CoTeachingOptions


class SmallLoss(Method):
    """Two networks and the share of each batch that they leave out.

    In epoch t, counted from 1, the floor(R(t) B) samples of smallest loss are kept, at least one; R(t) = 1 -
    forget_rate * min(t / forget_epochs, 1). Variant "code" has forget_epochs - 1 there. Several processes pick from a
    batch each.

    Args:
        options, num_samples, num_classes: as for every method.
        choices: how many choices a batch has, each by losses of its own.
    """

    networks = 2
    remember_rate: Tensor
    picked: Tensor

    def __init__(self, options: CoTeachingOptions, num_samples: int, num_classes: int, choices: int):
        super().__init__(options, num_samples, num_classes)
        self.forget_rate = options.forget_rate
        self.forget_epochs = max(1, options.forget_epochs - (options.variant == "code"))
        self.register_buffer("remember_rate", torch.ones(()))
        # [k]: the samples that choice k found easy when it saw them last.
        self.register_buffer("picked", torch.zeros(choices, num_samples, dtype=torch.bool))

    def easiest(self, losses: Sequence[Tensor], index: Tensor) -> tuple[list[Tensor], Tensor]:
        """For each choice's losses [B], 1 where a sample is among those of smallest loss, else 0; and how many are.

        Keeps what was picked. Losses come without gradient.
        """
        size = len(index)
        # The thousandth keeps rounding from costing a sample: (1 - 0.07) * 1000 is 929.99... in double precision.
        kept = (self.remember_rate * size + 1e-3).floor().clamp(min=1)
        easy = torch.arange(size, device=index.device) < kept
        chosen = []
        for loss in losses:
            by_loss = loss.argsort(stable=True)
            chosen.append(torch.zeros_like(loss).scatter(0, by_loss, easy.to(loss.dtype)))
        self.picked.index_copy_(1, index, torch.stack(chosen) > 0)
        return chosen, kept

    def start_epoch(self, epoch: int) -> None:
        self.remember_rate.fill_(1 - self.forget_rate * min(epoch / self.forget_epochs, 1))

    def exchange(self) -> None:
        self.shards.share_(self.picked, dim=1)

    @abstractmethod
    def judged(self, log_probs: Tensor, given: Tensor) -> Tensor:
        """The loss [B] by which samples are suspected at the end, of both networks' log p [2, B, C] and labels [B]."""

    def estimates(self, run: Run) -> Estimates:
        """Suspected: the `forget_rate` of all samples with the largest loss of both networks at the end.

        Confidence: the networks' mean probability of the given label. Suspected samples are taken for what the
        networks predict together.
        """

        def judge(outputs: Sequence[Outputs], index: Tensor) -> tuple[Tensor, ...]:
            logits = torch.stack([each.logits for each in outputs])
            probabilities, given = logits.softmax(2).mean(0), run.given[index]
            confidence = probabilities.gather(1, given[:, None]).squeeze(1)
            return self.judged(logits.log_softmax(2), given), confidence, probabilities.argmax(1)

        loss, confidence, prediction = run.scan(judge)
        suspected = torch.zeros_like(run.given, dtype=torch.bool)
        suspected[loss.argsort(descending=True, stable=True)[: int(self.forget_rate * len(loss))]] = True
        return Estimates(torch.where(suspected, prediction, run.given), confidence, suspected)
