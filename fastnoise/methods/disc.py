"""DISC (Li et al. 2023, "DISC: Learning from Noisy Labels via Dynamic Instance-Specific Selection and Correction")."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..losses import CrossEntropyLoss, GCELoss
from ..models import Network
from .base import Estimates, Forward, Method, Run, Selection
from .mixup import Mixup, blend
from .options import DISCOptions

WARM_UP, SELECTED = range(2)
"""Programs of the step."""

MIXUPS = (24, 25)
"""Purposes of the random numbers of each view's mixtures."""

STRICTER, STRICTEST = 0.5, 0.99
"""A label is replaced where a prediction passes the sample's mean threshold by the first, or at least the second."""


class DynamicSelection(Method):
    """Two views of each image, and of each sample and view a threshold that follows the network's confidence in it.

    With P_w and P_s the predictions for the weak and the strong view in the last step that had the sample, and the
    thresholds t_w and t_s, each epoch ends with

        clean: P_w[y] > t_w and P_s[y] > t_s; hard: one of the two
        purified: neither, and max (P_w + P_s) / 2 > min((t_w + t_s) / 2 + 0.5, 0.99), with this class for a label
        t = momentum t + (1 - momentum) max P, for each view

    A step takes the sums over both views of

        cross-entropy of the clean samples / B + hard_strength * GCE of the hard ones / B
        + the mean over all three sets of cross-entropy on mixup, whose partners are of these sets too

    An epoch of the warm-up takes the mean cross-entropy of each view, of all samples with their given labels. The first
    view is the weak one: the loader leaves RandAugment and AutoAugment out of it. The views go through the network as
    one batch, then the mixtures of each view as a batch of their own. Batches have one size on a device, so samples of
    no set are forwarded there too, unmixed; they count in batch norm and not in the loss. Several processes take the
    mean over a batch each.
    """

    parallel = True
    views = 2
    per_sample = ("weak", "strong", "weak_threshold", "strong_threshold", "clean", "hard", "purified")
    name = "disc"
    Options = DISCOptions
    mixups: Any  # a ModuleList of Mixup, which forgets what it holds
    weak: Tensor
    strong: Tensor
    weak_threshold: Tensor
    strong_threshold: Tensor
    clean: Tensor
    hard: Tensor
    purified: Tensor

    def __init__(self, options: DISCOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.settings = options
        self.cross_entropy = CrossEntropyLoss(reduction="none")
        self.gce = GCELoss(q=options.q, reduction="none")
        self.mixups = nn.ModuleList(
            Mixup(options.mixup_alpha, first_dominates=True, purpose=purpose) for purpose in MIXUPS
        )
        for view in ("weak", "strong"):
            self.register_buffer(view, torch.zeros(num_samples, num_classes))
            self.register_buffer(f"{view}_threshold", torch.full((num_samples,), 1 / num_samples))
        for members in ("clean", "hard", "purified"):
            self.register_buffer(members, torch.zeros(num_samples, dtype=torch.bool))

    # -- inside the step -------------------------------------------------------------------------------------

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        logits = networks[0](images).logits
        for table, probs in zip((self.weak, self.strong), logits.detach().float().softmax(1).chunk(2), strict=True):
            table.index_copy_(0, index, probs)
        both = labels.repeat(2)
        losses = self.cross_entropy(logits, both).unflatten(0, (2, -1)).sum(0)
        answers = logits.detach().unflatten(0, (2, -1))
        predictions = answers.sum(0).argmax(1)
        if self.program == WARM_UP:
            return Forward(losses.mean(), predictions, logits=answers[0])
        robust = self.gce(logits, both).unflatten(0, (2, -1)).sum(0)
        loss = (losses * self.clean[index] + self.settings.hard_strength * robust * self.hard[index]).mean()
        members = self.members[index]
        mates = ring(members)
        for mixup, view in zip(self.mixups, images.chunk(2), strict=True):
            loss = loss + self._mixed(networks[0], mixup.share, view, labels, mates, members)
        return Forward(loss, predictions, logits=answers[0])

    def _mixed(
        self, network: Network, share: Tensor, view: Tensor, labels: Tensor, mates: Tensor, members: Tensor
    ) -> Tensor:
        """Mean cross-entropy of the members' mixtures with their mates, 0 if there are none."""
        theirs = view[mates].contiguous(memory_format=torch.channels_last)
        logits = network(blend(share, view, theirs)).logits
        own, other = self.cross_entropy(logits, labels), self.cross_entropy(logits, labels[mates])
        losses = (share * own + (1 - share) * other) * members
        return losses.sum() / members.sum().clamp(min=1)

    # -- between steps and epochs ----------------------------------------------------------------------------

    @property
    def members(self) -> Tensor:
        """[N] bool, the samples of any set."""
        return self.clean | self.hard | self.purified

    @property
    def mean(self) -> Tensor:
        """[N, C], (P_w + P_s) / 2."""
        return (self.weak + self.strong) / 2

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        for mixup in self.mixups:
            mixup.draw(epoch, batch, seed)

    @property
    def prelude(self) -> int:
        return self.settings.warm_up

    def start_epoch(self, epoch: int) -> None:
        self.program = SELECTED if epoch > self.settings.warm_up else WARM_UP

    def exchange(self) -> None:
        self.shards.share_(self.weak, self.strong)

    def end_epoch(self, run: Run) -> None:
        run.warn_of_prelude(self, warm_up=self.settings.warm_up)
        if run.epoch == 0:
            return
        views = ((self.weak, self.weak_threshold), (self.strong, self.strong_threshold))
        passed = [probs.gather(1, run.given[:, None]).squeeze(1) > threshold for probs, threshold in views]
        self.clean.copy_(passed[0] & passed[1])
        self.hard.copy_(passed[0] ^ passed[1])
        best, classes = self.mean.max(1)
        bar = ((self.weak_threshold + self.strong_threshold) / 2 + STRICTER).clamp(max=STRICTEST)
        self.purified.copy_((best > bar) & ~(passed[0] | passed[1]))
        if run.epoch >= self.settings.warm_up:
            run.labels.copy_(torch.where(self.purified, classes, run.given))
        for probs, threshold in views:
            threshold.lerp_(probs.amax(1), 1 - self.settings.threshold_momentum)
        if run.epoch >= self.settings.warm_up and not self.members.any():
            run.warn(
                f"disc, epoch {run.epoch}: no label is more likely than its sample's threshold, so nothing is learnt "
                "in the next epoch; raise --warm-up or lower --learning-rate"
            )

    def selections(self) -> dict[str, Selection]:
        """The three sets of the last epoch, and the labels of the purified samples."""
        return {
            "clean": Selection(self.clean),
            "hard": Selection(self.hard),
            "purified": Selection(self.purified, self.mean.argmax(1)),
        }

    def corrected(self, labels: Tensor) -> Tensor:
        return torch.where(self.purified, self.mean.argmax(1), labels)

    def estimates(self, run: Run) -> Estimates:
        """Suspected: the samples that are neither clean nor hard and for whose views another class is predicted, which
        is taken for the right one. Confidence: the mean of the views' probabilities of the given label."""
        mean = self.mean
        classes = mean.argmax(1)
        suspected = ~(self.clean | self.hard) & (classes != run.given)
        confidence = mean.gather(1, run.given[:, None]).squeeze(1)
        return Estimates(torch.where(suspected, classes, run.given), confidence, suspected)


def ring(members: Tensor) -> Tensor:
    """The mate of each sample of a batch, int64 [B]: of a member the member before it, of the first one the last one,
    and of any other sample itself. members: bool [B]."""
    positions = torch.arange(len(members), device=members.device)
    marked = torch.where(members, positions, -1)
    last = marked.cummax(0).values
    before = torch.cat([last[-1:], last[:-1]])  # of the first member -1, or its own last one
    before = torch.where(before >= 0, before, last[-1])
    return torch.where(members, before, positions)
