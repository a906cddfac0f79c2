"""Methods that train one network on soft targets that the loss keeps: elr, nal."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses import ELRLoss, NALLoss, TargetLoss
from ..models import Outputs
from .base import Estimates, Method, Run
from .options import ELROptions, NALOptions
from .scan import by_blocks


def share_of_given(tables: Sequence[Tensor], given: Tensor) -> Tensor:
    """The given label's share of each sample's target: float32 [N] in [0, 1], 1 where the target was never updated.

    Args:
        tables: targets [N, C], whose mean counts.
        given: int64 [N].
    """

    def share(rows: slice) -> Tensor:
        targets = mean_of(tables, rows, given.device)
        total = targets.sum(1)
        shares = targets.gather(1, given[rows, None]).squeeze(1) / total
        return shares.where(total > 0, 1.0).clamp(0, 1)

    return by_blocks(share, tables[0])


def mean_of(tables: Sequence[Tensor], rows: slice, device: torch.device) -> Tensor:
    """The mean of some rows of several tables, float32, on a device."""
    if len(tables) == 1:
        return tables[0][rows].to(device).float()
    return torch.stack([table[rows].to(device).float() for table in tables]).mean(0)


class TargetMethod(Method):
    """A method whose loss keeps a soft target per sample, which is also its estimate of the true label."""

    per_sample = ("criterion.targets",)
    criterion: TargetLoss

    def corrected(self, labels: Tensor) -> Tensor:
        return self.shards.join(self.criterion.hard_targets(labels), len(labels))

    def estimates(self, run: Run) -> Estimates:
        """Confidence: the target's share of the given label, 1 where the target was never updated."""
        corrected = self.corrected(run.given)
        own = share_of_given([self.criterion.targets], self.shards.own(run.given))
        confidence = self.shards.join(own, len(run.given))
        return Estimates(corrected, confidence, corrected != run.given)


class EarlyLearningRegularization(TargetMethod):
    """ELR (Liu et al. 2020): cross-entropy + strength * log(1 - <p, t>), Eq. 6, targets by Eq. 9.

    Targets are updated in the epochs from `update_from` on, in the paper from the first. Before it they are 0, and with
    them the regulariser.
    """

    stackable = weighted = parallel = fused_head = True
    name = "elr"
    Options = ELROptions
    criterion: ELRLoss

    def __init__(self, options: ELROptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.first = options.update_from
        self.criterion = ELRLoss(num_samples, num_classes, strength=options.strength, momentum=options.momentum)

    def start_epoch(self, epoch: int) -> None:
        self.criterion.set_update(epoch >= self.first)


NEGLIGIBLE_ATTENTION = 0.01
"""Mean attention weight of an epoch at which NAL is taken to have stopped learning."""


class NoiseAttention(TargetMethod):
    """NAL (Lu et al. 2022): the attention loss of Eq. 3 on the targets of Eq. 4.

    Targets are updated at every visit in the epochs e >= update_from with e divisible by update_every:
    1 and 1 is the paper's Algorithm 1; the authors' code waits for epoch `es` and then updates every tenth.
    `reverse` adds RNAL (Sec. 5.3), `gate` updates only the targets of samples with an attention weight above it.

    Ablations of Table 6: target_estimation="off" keeps the given labels as targets; attention="confidence" takes the
    largest probability for the attention weight, with gradient, and the network gets no attention branch.

    If the mean attention weight of an epoch falls to NEGLIGIBLE_ATTENTION (the paper's "lazy" learning, Sec. 3.2: no
    sample has a gradient any more), the strength of the boost term is raised tenfold, to at least 0.5. Each further
    epoch of this kind raises it again.
    """

    stackable = weighted = parallel = True
    name = "nal"
    Options = NALOptions
    criterion: NALLoss
    strength: Tensor
    weights: Tensor

    def __init__(self, options: NALOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.attention = self.fused_head = options.attention == "branch"
        self.estimating = options.target_estimation == "on"
        self.first, self.every = options.update_from, options.update_every
        self.criterion = NALLoss(
            num_samples,
            num_classes,
            strength=options.strength,
            momentum=options.momentum,
            variant=options.variant,
            reverse=options.reverse,
            gate=options.gate,
        )
        self.register_buffer("strength", torch.tensor(options.strength, dtype=torch.float32))
        self.register_buffer("weights", torch.zeros(2))  # sum and number of the epoch's attention weights

    def loss(self, outputs: Outputs, labels: Tensor, index: Tensor) -> Tensor:
        attention = confidence_logit(outputs.logits) if outputs.attention is None else outputs.attention
        weights = attention.detach().float().sigmoid()
        self.weights += torch.stack((weights.sum(), torch.ones_like(weights).sum()))
        return self.criterion(outputs.logits, labels, index, attention, **self.weight_of(labels))

    @classmethod
    def stack_obstacle(cls, options: NALOptions) -> str | None:
        if options.attention == "confidence":
            return "nal with --attention confidence has no attention branch whose weights are kept by run"
        return None

    def settle(self, attention: Tensor | None) -> None:
        if attention is not None:
            seen = ~attention.isnan()
            self.weights.copy_(torch.stack((attention.nansum(), seen.sum())))

    def exchange(self) -> None:
        self.shards.sum_(self.weights)

    def start_epoch(self, epoch: int) -> None:
        due = epoch >= self.first and epoch % self.every == 0
        self.criterion.set_update(self.estimating and due)
        self.criterion.set_strength(float(self.strength))

    def end_epoch(self, run: Run) -> None:
        total, count = self.weights.tolist()
        self.weights.zero_()
        if count and total / count <= NEGLIGIBLE_ATTENTION:
            before = float(self.strength)
            self.strength.fill_(max(10 * before, 0.5))
            run.warn(
                f"nal: the attention weights of epoch {run.epoch} are near 0 (mean {total / count:.2g}), so "
                f"the network learns nothing; the strength goes from {before:g} to {float(self.strength):g}; raise "
                "--strength"
            )

    def estimates(self, run: Run) -> Estimates:
        """As for every method with targets, and the attention weights of one pass over the training set.

        The confidence is the target's share of the given label and not the attention weight, which tells mislabelled
        samples less well: AUROC 0.998 and 0.85 on digits (40 % symmetric, 60 epochs), 0.997 and 0.60 on MNIST (10,000
        images, 60 % symmetric, 20 epochs).
        """
        found = super().estimates(run)
        if not self.attention:
            return found

        def weights(outputs: Sequence[Outputs], index: Tensor) -> Tensor:
            attention = outputs[0].attention
            assert attention is not None
            return attention

        return dataclasses.replace(found, attention=run.scan(weights))


def confidence_logit(logits: Tensor) -> Tensor:
    """The logit of the largest probability, [B] float32 of logits [B, C]: its sigmoid is max_k p_k.

    As the largest logit less the logsumexp of the others it stays finite where that probability rounds to 1.
    """
    logits = logits.float()
    largest, position = logits.max(1)
    return largest - logits.scatter(1, position[:, None], float("-inf")).logsumexp(1)
