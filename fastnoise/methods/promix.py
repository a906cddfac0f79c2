"""ProMix (Xiao et al. 2023, "ProMix: Combating Label Noise via Maximizing Clean Sample Utility")."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..losses import CrossEntropyLoss
from ..models import Network, Outputs
from ..options import MethodOptions
from .base import Estimates, Forward, Method, Phase, Run, Selection, Setting
from .disc import ring
from .dividemix import negative_entropy, sharpened
from .fmix import FMix
from .mixup import Mixup, blend
from .options import ProMixOptions

WARM_UP, MATCH, GUESS = range(3)
"""The method's programs: the warm-up, matched samples, and those with agreeing guesses too."""

MIXUPS, FMIXES = (34, 35, 36, 37), (38, 39, 40, 41)
"""Purposes of random numbers: of both networks' primary heads, then of their pseudo heads."""

SHARPENING = 0.5
"""Temperature of the targets of samples that are left over."""


class ProMix(Method):
    """Two networks with two heads each, which learn as many samples as they can trust.

    After `warm_up` epochs of cross-entropy on the primary heads (with `confidence_penalty` * sum_k p_k log p_k) every
    epoch begins with a choice by each network's own losses: of each given class a share of the N / C samples of a class
    with the least loss. The share goes from `keep_from` to `keep_to` in the first `keep_ramp` epochs. A step then takes
    for each network, with p the primary head's prediction for the weak view, pi the mean p of learnt samples and pi_u
    that of the others, both as moving averages,

        matched:  chosen, or p_y > threshold; the label z is the given one
        guessed:  from epoch `guess_from` on, samples for which both networks predict one class with more than the
                  threshold, those of the most confidence first, until `guess_share` of the batch is learnt; z is the
                  class of the greatest log p - debias * log pi
        learnt:   CE(weak, z) + g (CE(strong, z) + CE(mixup) + CE(FMix)), by each head, with draws of its own, and with
                  debias * log pi added to logits
        left:     the pseudo head alone, + b (CE(weak, t) + g CE(strong, t)), t = softmax(log p - debias * log pi_u),
                  sharpened, and debias * log pi_u added to its logits

    each a mean over its samples, 0 if there are none. g grows from 0 to 1 over `strong_ramp` epochs and b to
    `rest_strength` over `rest_ramp`. Mixup's share is max(l, 1 - l), l from Beta(alpha, alpha); both mix weak views of
    learnt samples. Samples that are not learnt go through the network unmixed with the mixtures, since batches have one
    size; they count in batch norm's statistics alone. Both views go through a network as one batch.

    The networks answer by their primary heads. The pseudo heads are modules of the networks while they train; no model
    file has them. The optimiser begins anew after the warm-up, in which these heads have no gradient.
    """

    name = "promix"
    Options: ClassVar[type[MethodOptions]] = ProMixOptions
    features = True
    networks = 2
    views = 2
    parallel = True
    per_sample = ("prediction", "confidence")
    mixups: Any  # ModuleLists forget what they hold
    fmixes: Any

    clean: Tensor
    judged: Tensor
    prediction: Tensor
    confidence: Tensor
    prior: Tensor
    rest_prior: Tensor
    strong_weight: Tensor
    rest_weight: Tensor

    def __init__(self, options: ProMixOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.settings = options
        self.num_samples, self.num_classes = num_samples, num_classes
        self.criterion = CrossEntropyLoss(reduction="none")
        self.mixups = nn.ModuleList(
            Mixup(options.mixup_alpha, first_dominates=True, purpose=purpose) for purpose in MIXUPS
        )
        self.fmixes = nn.ModuleList(FMix(purpose) for purpose in FMIXES)
        self.register_buffer("clean", torch.zeros(2, num_samples, dtype=torch.bool))  # [k]: chosen by network k
        self.register_buffer("judged", torch.zeros((), dtype=torch.bool))
        self.register_buffer("prediction", torch.zeros(num_samples, dtype=torch.int64))
        self.register_buffer("confidence", torch.ones(num_samples))
        self.register_buffer("prior", torch.full((2, num_classes), 1 / num_classes))
        self.register_buffer("rest_prior", torch.full((2, num_classes), 1 / num_classes))
        self.register_buffer("strong_weight", torch.zeros(()))
        self.register_buffer("rest_weight", torch.zeros(()))
        self.weight_decay = 0.0

    def configure(self, setting: Setting) -> None:
        self.weight_decay = setting.optim.weight_decay

    def attach(self, networks: Sequence[Network]) -> None:
        for network in networks:
            device = next(network.parameters()).device
            network.pseudo = nn.Linear(network.backbone.num_features, self.num_classes).to(device)

    # -- inside the step -------------------------------------------------------------------------------------

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        if self.program == WARM_UP:
            return self._warm_up_step(networks, images[: len(index)], labels)
        size = len(index)
        seen = [network(images) for network in networks]
        answers = torch.stack([outputs.logits[:size].detach() for outputs in seen])
        probs = [logits.float().softmax(1) for logits in answers]
        losses, priors, rest_priors = [], [], []
        for number, network in enumerate(networks):
            learnt, classes = self._learnt(number, probs, labels, index)
            losses.append(self._loss(number, network, images, seen[number], probs[number], learnt, classes))
            priors.append(self._moved(self.prior[number], probs[number], learnt))
            rest_priors.append(self._moved(self.rest_prior[number], probs[number], ~learnt))
        self.prior.copy_(torch.stack(priors))
        self.rest_prior.copy_(torch.stack(rest_priors))
        return Forward(torch.stack(losses).sum(), (probs[0] + probs[1]).argmax(1), logits=answers.mean(0))

    def _warm_up_step(self, networks: Sequence[Network], view: Tensor, labels: Tensor) -> Forward:
        losses, answers = [], []
        for network in networks:
            logits = network(view).logits
            loss = self.criterion(logits, labels).mean()
            if self.settings.confidence_penalty:
                loss = loss + self.settings.confidence_penalty * negative_entropy(logits)
            losses.append(loss)
            answers.append(logits.detach())
        seen = torch.stack(answers)
        return Forward(torch.stack(losses).sum(), seen.float().softmax(2).sum(0).argmax(1), logits=seen.mean(0))

    def _learnt(self, number: int, probs: Sequence[Tensor], labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The samples of a batch that a network learns, bool [B], and the class that it learns for each."""
        own, threshold = probs[number], self.settings.threshold
        matched = self.clean[number][index] | (own.gather(1, labels[:, None]).squeeze(1) > threshold)
        debiased = own.log() - self.settings.debias * self.prior[number].log()
        classes = torch.where(matched, labels, debiased.argmax(1))
        if self.program != GUESS:
            return matched, classes
        (first, one), (second, other) = (each.max(1) for each in probs)
        agreed = ~matched & (one == other) & (first > threshold) & (second > threshold)
        order = torch.where(agreed, (first + second) / 2, -1.0).argsort(descending=True, stable=True)
        room = int(self.settings.guess_share * len(index)) - matched.sum()
        return matched | (agreed & (order.argsort() < room)), classes

    def _loss(
        self,
        number: int,
        network: Any,
        images: Tensor,
        seen: Outputs,
        probs: Tensor,
        learnt: Tensor,
        classes: Tensor,
    ) -> Tensor:
        """Of one network, by both heads."""
        weak = images[: len(learnt)]
        margin = self.settings.debias * self.prior[number].log()
        mates = ring(learnt)
        both = classes.repeat(2)
        total = torch.zeros((), device=images.device)
        answers = (seen.logits, network.pseudo(seen.features))
        for head, logits in enumerate(answers):
            draws = number + 2 * head
            mixup, fmix = self.mixups[draws], self.fmixes[draws]
            of_weak, of_strong = self.criterion(logits + margin, both).chunk(2)
            theirs = weak[mates].contiguous(memory_format=torch.channels_last)
            mixtures = ((blend(mixup.share, weak, theirs), mixup.share), (fmix.mix(weak, mates), fmix.share))
            mixed = torch.zeros_like(of_weak)
            for inputs, share in mixtures:
                outputs = network(inputs)
                found = (outputs.logits if head == 0 else network.pseudo(outputs.features)) + margin
                mixed = mixed + share * self.criterion(found, classes)
                mixed = mixed + (1 - share) * self.criterion(found, classes[mates])
            total = total + mean_of(of_weak + self.strong_weight * (of_strong + mixed), learnt)
        rest_margin = self.settings.debias * self.rest_prior[number].log()
        target = sharpened((probs.log() - rest_margin).softmax(1), SHARPENING).repeat(2, 1)
        of_weak, of_strong = self.criterion(answers[1] + rest_margin, target).chunk(2)
        return total + self.rest_weight * mean_of(of_weak + self.strong_weight * of_strong, ~learnt)

    def _moved(self, prior: Tensor, probs: Tensor, members: Tensor) -> Tensor:
        """A moving average after a batch; it stays if the batch has no members."""
        mean = (probs * members[:, None]).sum(0) / members.sum().clamp(min=1)
        momentum = self.settings.prior_momentum
        return torch.where(members.any(), momentum * prior + (1 - momentum) * mean, prior)

    # -- between steps and epochs ----------------------------------------------------------------------------

    @property
    def prelude(self) -> int:
        return self.settings.warm_up

    def start_epoch(self, epoch: int) -> None:
        matched = MATCH if epoch < self.settings.guess_from else GUESS
        self.program = matched if epoch > self.settings.warm_up else WARM_UP

    def phase(self, epoch: int) -> Phase | None:
        begins = epoch == self.settings.warm_up + 1 and epoch > 1
        return Phase(None, self.weight_decay, fresh=True) if begins else None

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        if self.program == WARM_UP:
            return
        for draws in (*self.mixups, *self.fmixes):
            draws.draw(epoch, batch, seed)
        settings, before = self.settings, epoch - 1
        self.strong_weight.fill_(min(before / settings.strong_ramp, 1.0) if settings.strong_ramp else 1.0)
        rest = settings.rest_strength * (min(before / settings.rest_ramp, 1.0) if settings.rest_ramp else 1.0)
        self.rest_weight.fill_(0.0 if 0 < settings.rest_until < epoch else rest)

    def exchange(self) -> None:
        self.shards.sum_(self.prior, self.rest_prior)
        self.prior /= self.shards.size
        self.rest_prior /= self.shards.size

    def end_epoch(self, run: Run) -> None:
        settings = self.settings
        run.warn_of_prelude(self, warm_up=settings.warm_up)
        if run.epoch < settings.warm_up and run.epoch < run.epochs:
            return

        def judge(outputs: Sequence[Outputs], index: Tensor) -> tuple[Tensor, ...]:
            losses = [cross_entropy(each.logits, run.given[index], reduction="none") for each in outputs]
            probs = torch.stack([each.logits for each in outputs]).softmax(2).mean(0)
            return (probs.argmax(1), probs.gather(1, run.given[index, None]).squeeze(1), *losses)

        prediction, confidence, *losses = run.scan(judge)
        ramp = min(run.epoch / settings.keep_ramp, 1.0) if settings.keep_ramp else 1.0
        share = settings.keep_from + (settings.keep_to - settings.keep_from) * ramp
        quota = -(-self.num_samples * share // self.num_classes)
        for number, each in enumerate(losses):
            self.clean[number] = least_of_class(each, run.given, int(quota), self.num_classes)
        self.prediction.copy_(prediction)
        self.confidence.copy_(confidence)
        self.judged.fill_(True)

    def report(self) -> dict[str, float]:
        return {"chosen": float(self.clean.float().mean())} if self.judged else {}

    def selections(self) -> dict[str, Selection]:
        """The samples that each network has chosen by their losses."""
        return {f"chosen_{number + 1}": Selection(self.clean[number]) for number in (0, 1)} if self.judged else {}

    # -- what the run has found out --------------------------------------------------------------------------

    def _trusted(self) -> Tensor:
        return self.clean.all(0) | (self.confidence > self.settings.threshold)

    def corrected(self, labels: Tensor) -> Tensor:
        """The networks' mean prediction where a label is not trusted; before the first choice, the given labels."""
        return torch.where(self.judged & ~self._trusted(), self.prediction, labels)

    def estimates(self, run: Run) -> Estimates | None:
        """Suspected: a label that not both networks choose and whose mean probability, the confidence, is below the
        threshold, unless it is predicted. None before the first choice."""
        if not self.judged:
            return None
        return Estimates(self.corrected(run.given), self.confidence, self.corrected(run.given) != run.given)


def mean_of(values: Tensor, members: Tensor) -> Tensor:
    """The mean of the members' values, 0 if there are none."""
    return torch.where(members, values, 0.0).sum() / members.sum().clamp(min=1)


def least_of_class(losses: Tensor, labels: Tensor, quota: int, num_classes: int) -> Tensor:
    """bool [N]: of each class the `quota` samples of the least loss, at least one, or all if there are no more."""
    by_loss = losses.argsort(stable=True)
    order = by_loss[labels[by_loss].argsort(stable=True)]
    counts = torch.bincount(labels, minlength=num_classes)
    first = counts.cumsum(0) - counts
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device) - first[labels[order]]
    return places < max(1, quota)
