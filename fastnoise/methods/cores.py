"""CORES² (Cheng et al. 2021, "Learning with Instance-Dependent Label Noise: A Sample Sieve Approach"), its sieve."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..models import Outputs
from .base import Estimates, Method, Run, Selection
from .options import CORESOptions

SMALLEST = 1e-8
"""Added to probabilities before their logarithm."""


class ConfidenceSieve(Method):
    """Cross-entropy with a confidence regulariser, on the samples that a sieve keeps (phase 1 of the authors' code).

    With n_c = -log(p_c + 1e-8) and r the classes' shares of the kept labels, a sample's loss is

        CE - beta(t) sum_c r_c n_c

    The second term rewards sure predictions. beta(t) is 0 through epoch `ramp_from` and then rises linearly, to
    `strength` in epoch `ramp_to`. From epoch `sieve_from` on a step keeps the samples with CE <= mean_c n_c, whose
    label is at least as likely as a class is on (geometric) average, and takes the mean over them, or 0 if it keeps
    none. Gradient flows through both terms, and not through the choice. After each epoch r is counted anew among the
    samples that it kept; those that it did not see count as kept. If it kept none, r stays.

    The authors divide the learning rate by 1 + beta. Here the gradient of the loss is divided (`damping`), which comes
    to the same for their SGD without momentum and weight decay; optimisers like Adam are blind to it. The loss shown is
    undivided. Several processes take the mean over a batch each.

    The authors' phase 2 trains a second network on the kept samples and, without labels, on the others. It is not part
    of this method; another method can train on the labels of a run: --labels RUN/corrected.npz:corrected.
    """

    weighted = parallel = True
    per_sample = ("kept", "sieved")
    name = "cores"
    Options = CORESOptions
    beta: Tensor
    sieving: Tensor
    prior: Tensor
    kept: Tensor
    sieved: Tensor

    def __init__(self, options: CORESOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.settings = options
        self.register_buffer("beta", torch.zeros(()))
        self.register_buffer("sieving", torch.zeros((), dtype=torch.bool))
        self.register_buffer("prior", torch.full((num_classes,), 1 / num_classes))
        # Of this epoch so far, and of the one before.
        self.register_buffer("kept", torch.ones(num_samples, dtype=torch.bool))
        self.register_buffer("sieved", torch.ones(num_samples, dtype=torch.bool))

    def loss(self, outputs: Outputs, labels: Tensor, index: Tensor) -> Tensor:
        log_probs = outputs.logits.float().log_softmax(1)
        of_label, of_classes = sides(log_probs, labels)
        kept = (of_label.detach() <= of_classes.detach().mean(1)) | ~self.sieving
        self.kept.index_copy_(0, index, kept)
        losses = (of_label - self.beta * (self.prior * of_classes).sum(1)) * kept
        if self.class_weights is not None:
            losses = losses * self.class_weights[labels]
        loss = losses.sum() / kept.sum().clamp(min=1)
        if self.settings.damping == "off":
            return loss
        damped = loss / (1 + self.beta)
        return damped + (loss - damped).detach()

    @property
    def prelude(self) -> int:
        return self.settings.sieve_from - 1

    def start_epoch(self, epoch: int) -> None:
        first, last = self.settings.ramp_from, self.settings.ramp_to
        self.beta.fill_(self.settings.strength * min(max(epoch - first, 0) / (last - first), 1))
        self.sieving.fill_(epoch >= self.settings.sieve_from)

    def exchange(self) -> None:
        self.shards.share_(self.kept)

    def end_epoch(self, run: Run) -> None:
        run.warn_of_prelude(self, 0, "before the sieve begins", sieve_from=self.settings.sieve_from)
        counts = torch.bincount(run.given[self.kept], minlength=len(self.prior)).float()
        if counts.any():
            self.prior.copy_(counts / counts.sum())
        else:
            run.warn(
                f"cores, epoch {run.epoch}: no label was as likely as a class is on average, so no sample was learnt; "
                "lower --strength, or raise --sieve-from"
            )
        self.sieved.copy_(self.kept)
        self.kept.fill_(True)

    def selections(self) -> dict[str, Selection]:
        """What the sieve kept in the last epoch."""
        return {"kept": Selection(self.sieved)}

    def estimates(self, run: Run) -> Estimates:
        """Suspected: what the sieve would leave out at the end. These samples are taken for what is predicted.

        Confidence: the probability of the given label.
        """

        def judge(outputs: Sequence[Outputs], index: Tensor) -> tuple[Tensor, ...]:
            log_probs = outputs[0].logits.log_softmax(1)
            of_label, of_classes = sides(log_probs, run.given[index])
            return of_label > of_classes.mean(1), (-of_label).exp(), log_probs.argmax(1)

        suspected, confidence, prediction = run.scan(judge)
        return Estimates(torch.where(suspected, prediction, run.given), confidence, suspected)


def sides(log_probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy [B] of labels [B], and n_c [B, C], of log p [B, C]: what the sieve weighs against each other."""
    return -log_probs.gather(1, labels[:, None]).squeeze(1), -(log_probs.exp() + SMALLEST).log()
