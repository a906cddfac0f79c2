"""ELR+ (Liu et al. 2020, "Early-Learning Regularization Prevents Memorization", supplement F)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..losses import ELRPlusLoss
from ..models import Network
from .averages import AveragedNetworks
from .base import Estimates, Forward, Method, Run
from .mixup import Mixup, partners
from .options import ELRPlusOptions
from .scan import by_blocks
from .single import mean_of, share_of_given

PURPOSES = (20, 21)
"""Of the random numbers of either network's mixup."""


class EarlyLearningRegularizationPlus(Method):
    """ELR on mixup pairs, with soft targets from the other network's averaged weights.

    Each network has its own view of the batch, its own mixup and its own table of targets. Before its loss, the copy
    with the other network's averaged weights sees the view unmixed, in training mode as in the authors' code, and moves
    the targets (Eq. 9); the loss then takes them in the mixture of the images (`ELRPlusLoss`). One step trains both
    networks on the sum of their losses, whose gradient in either network is that of its own loss. The authors draw a
    split and noisy labels for each network by themselves, so that one trains on validation samples of the other; here
    both train on the same labels.

    The parts that the paper's Table 5 takes away one by one: `networks` 1 gives each target from the network's own
    average, `average_momentum` 0 from the weights as they are, `mixup_alpha` 0 trains on the images unmixed.
    """

    name = "elr_plus"
    parallel = True
    Options = ELRPlusOptions
    averages: AveragedNetworks
    criterion: Any  # a ModuleList of ELRPlusLoss and one of Mixup, which forget what they hold
    mixup: Any

    def __init__(self, options: ELRPlusOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.networks = self.views = options.networks
        self.strength, self.strength_ramp = options.strength, options.strength_ramp
        self._average = options.average_momentum, options.average_ramp, options.averaged == "everything"
        self.criterion = nn.ModuleList(
            ELRPlusLoss(
                num_samples,
                num_classes,
                strength=options.strength,
                momentum=options.momentum,
                target=options.target,
            )
            for _ in range(self.networks)
        )
        alpha = options.mixup_alpha
        self.mixup = nn.ModuleList(
            Mixup(alpha, first_dominates=True, purpose=purpose) for purpose in PURPOSES[: self.networks]
        )
        self.mixes = alpha > 0

    def attach(self, networks: Sequence[Network]) -> None:
        momentum, ramp, buffers = self._average
        self.averages = AveragedNetworks(networks, momentum, ramp=ramp, ahead=1, with_buffers=buffers)

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        losses, logits, unmixed = [], [], []
        for number, (network, view) in enumerate(zip(networks, images.chunk(self.views), strict=True)):
            criterion, mixup = self.criterion[number], self.mixup[number]
            with torch.no_grad():
                teacher = self.averages[(number + 1) % self.networks](view).logits
                criterion.update_targets(teacher, index)
            outputs = network(mixup.mix(view) if self.mixes else view).logits
            losses.append(criterion(outputs, labels, index, partners(labels), partners(index), mixup.share))
            logits.append(outputs.detach())
            unmixed.append(teacher if self.mixes else logits[-1])
        answers = torch.stack(logits).sum(0).argmax(1)
        return Forward(torch.stack(losses).sum(), answers, logits=torch.stack(unmixed).mean(0))

    def after_update(self, networks: Sequence[Network]) -> None:
        self.averages.follow(networks)
        self._set_strength()

    def _set_strength(self) -> None:
        """Write the strength of the next update, s = updates + 1: strength * exp(-5 (1 - min(1, s / ramp))^2)."""
        if self.strength_ramp:
            progress = ((self.averages.updates + 1) / self.strength_ramp).clamp(max=1)
            for criterion in self.criterion:
                criterion.knobs[2].copy_(self.strength * torch.exp(-5 * (1 - progress) ** 2))

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        if self.mixes:
            for mixup in self.mixup:
                mixup.draw(epoch, batch, seed)

    def start_epoch(self, epoch: int) -> None:
        self._set_strength()

    def _tables(self) -> list[Tensor]:
        """The networks' targets of own samples, [own, C] each."""
        return [criterion.targets for criterion in self.criterion]

    def corrected(self, labels: Tensor) -> Tensor:
        """The class that the mean of the networks' targets favours; where none was updated, the given label."""
        tables, own = self._tables(), self.shards.own(labels)

        def favoured(rows: slice) -> Tensor:
            targets = mean_of(tables, rows, own.device)
            return torch.where(targets.any(1), targets.argmax(1), own[rows])

        return self.shards.join(by_blocks(favoured, tables[0]), len(labels))

    def estimates(self, run: Run) -> Estimates:
        """Confidence: the mean target's share of the given label, 1 where no target was updated."""
        corrected = self.corrected(run.given)
        confidence = share_of_given(self._tables(), self.shards.own(run.given))
        return Estimates(corrected, self.shards.join(confidence, len(run.given)), corrected != run.given)
