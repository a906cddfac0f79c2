"""DivideMix (Li et al. 2020, "DivideMix: Learning with Noisy Labels as Semi-supervised Learning") and AugDesc (Nishi et
al. 2021, "Augmentation Strategies for Learning with Noisy Labels")."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..config import OptimConfig
from ..errors import ConfigError
from ..losses import CrossEntropyLoss
from ..models import Network, Outputs
from ..options import MethodOptions
from ..selection.mixture import NO_SPREAD, fit_losses
from .base import Estimates, Forward, Method, Run, Selection, Setting, random_numbers
from .mixup import Mixup, blend, draw_pairing, gone_through, mates
from .options import AugDescOptions, DivideMixOptions

ORDER, PAIRING, MIXUPS = 22, 23, (24, 25)
"""Purposes of random numbers: an epoch's order, a step's pairing, the share of each network's mixup."""

WARM_UP, MIX, BEFORE = 0, 1, 2
"""The method's programs; the last one is of the epochs before those of `DivideMixAfter`."""


class DivideMix(Method):
    """Two networks, each trained by MixMatch on the division of the samples that the other's losses suggest.

    After `warm_up` epochs of cross-entropy (with `confidence_penalty` * sum_k p_k log p_k), every epoch begins with a
    mixture of two Gaussians fitted to each network's losses (`fit_losses`). The samples that one network's mixture
    takes to be right with a probability w above `clean_threshold` keep their label in the other network's training,
    which takes the rest as unlabelled (Algorithm 1). For each network, with p the mean over two views,

        labelled:   target = sharpen(w y + (1 - w) p)            co-refinement, p by the network itself
        unlabelled: target = sharpen((p + p') / 2)               co-guessing, p' by the other network
        sharpen(q)_k = q_k^(1/T) / sum_j q_j^(1/T)

    Both views of all samples are mixed with those of a random partner, by a share max(l, 1 - l), l from Beta(alpha,
    alpha), and with the mixed targets q the loss is

        mean(-sum_k q_k log p_k) + lambda_u * mean((p - q)^2) + KL(uniform || mean p)

    over labelled ones, over unlabelled ones and classes, and over all. lambda_u grows linearly over `unlabelled_ramp`
    epochs after the warm-up. A network guesses in training mode and, unlike in the authors' code, where the other
    network guesses in evaluation mode and every part of the batch is sent by itself, for all parts at once.

    A batch has four parts, each a quarter: place i belongs to network i % 2, unlabelled where i % 4 >= 2. So one step
    trains both networks on samples of their own, and 64 of each part, as published, are a batch of 256. The epoch ends
    when each network has seen all its labelled samples; the shorter pool begins anew and the longer one is cut. In the
    warm-up, places i % 2 are an order of all samples for each network. Pairs are i and (a i + b) mod B with a and b
    drawn at each step, a prime to B: a permutation that a captured step can make from two numbers.

    With --epoch-batches an epoch has a subset of the samples, as in the authors' code for Clothing1M: the subset of the
    next epoch alone is judged, scaled and divided, and the last epoch ends with a judgement of all.

    Recoveries, each with a warning: If the mixture of a network collapses, its earlier one is kept. Without one, or
    if one class is predicted for all samples, the next epoch is one of warm-up. A mixture that does not converge is
    used as it is. With fewer labelled samples than classes, the more probable half of all samples
    is labelled; with as few unlabelled ones, all samples serve as unlabelled too.
    """

    name = "dividemix"
    Options: ClassVar[type[MethodOptions]] = DivideMixOptions
    networks = 2
    views = 2
    shares = 2
    parallel = True
    draws = 4
    warm_up_view: int = 0
    """Which view of a sample the warm-up learns."""
    mixup: Any  # a ModuleList of Mixup, which forgets what it holds

    clean: Tensor
    fitted: Tensor
    labelled: Tensor
    divided: Tensor
    prediction: Tensor
    losses: Tensor
    recorded: Tensor
    strength: Tensor
    pairing: Tensor

    def __init__(self, options: DivideMixOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.settings = options
        self.num_samples, self.num_classes = num_samples, num_classes
        self.criterion = CrossEntropyLoss()
        self.mixup = nn.ModuleList(
            Mixup(self.settings.mixup_alpha, first_dominates=True, purpose=purpose) for purpose in MIXUPS
        )
        # [k]: by the losses of network k; labelled [k]: those that network k is trained with.
        self.register_buffer("clean", torch.ones(2, num_samples))
        self.register_buffer("fitted", torch.zeros(2, dtype=torch.bool))
        self.register_buffer("labelled", torch.ones(2, num_samples, dtype=torch.bool))
        self.register_buffer("divided", torch.zeros((), dtype=torch.bool))
        self.register_buffer("prediction", torch.zeros(num_samples, dtype=torch.int64))
        self.register_buffer("losses", torch.zeros(self.settings.loss_epochs, 2, num_samples))
        self.register_buffer("recorded", torch.zeros((), dtype=torch.int64))
        self.register_buffer("strength", torch.zeros(()))
        self.register_buffer("pairing", torch.tensor([1, 0]))
        self.configure_batches(Setting.batch_size)
        self.setting = Setting(OptimConfig(), (), ())
        self.judged = num_samples

    def configure(self, setting: Setting) -> None:
        self.configure_batches(setting.batch_size)
        self.setting = setting
        if setting.epoch_batches is not None and self.settings.loss_epochs > 1:
            raise ConfigError(
                f"--loss-epochs {self.settings.loss_epochs} averages the losses of epochs with the same samples, and "
                "--epoch-batches draws others for each; drop one of them"
            )

    def configure_batches(self, batch_size: int) -> None:
        """Take the number of samples in a batch; ConfigError unless it has four equal parts."""
        if batch_size % 4:
            raise ConfigError(
                f"{self.name} cuts batches into four parts: --batch-size must be a multiple of 4, not {batch_size}"
            )
        self.part = batch_size // 4
        self.steps = 1

    # -- inside the step -------------------------------------------------------------------------------------

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        step = self._mix_step if self.program == MIX else self._warm_up_step
        return step(networks, images, labels, index)

    def _warm_up_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        view = images.chunk(self.views)[self.warm_up_view]
        losses, answers = [], []
        for number, network in enumerate(networks):
            logits = network(view[number::2]).logits
            loss = self.criterion(logits, labels[number::2])
            if self.settings.confidence_penalty:
                loss = loss + self.settings.confidence_penalty * negative_entropy(logits)
            losses.append(loss)
            answers.append(logits.detach())
        in_order = torch.stack(answers, 1).flatten(0, 1)
        return Forward(torch.stack(losses).sum(), in_order.argmax(1), logits=in_order)

    def _mix_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        views = images.chunk(self.views)
        own, unlabelled = _parts(views[:2]), _parts(views[:2], first=2)
        if self.views > 2:
            learnt, learnt_unlabelled = _parts(views[2:]), _parts(views[2:], first=2)
        else:
            learnt, learnt_unlabelled = own, unlabelled
        with torch.no_grad():
            # [number]: of its labelled, its unlabelled and the other's unlabelled samples, [B / 4, C] each.
            guesses = [
                self._guess(network, torch.cat([own[number], unlabelled[number], unlabelled[1 - number]]))
                for number, network in enumerate(networks)
            ]
        losses, seen = [], []
        size = len(index)
        classes = torch.arange(self.num_classes, device=index.device)
        partners = mates(self.pairing, size)
        for number, network in enumerate(networks):
            refined, mine, _ = guesses[number]
            clean = self.clean[1 - number][index[number::4]][:, None]
            guessed = (mine + guesses[1 - number][2]) / 2
            given = (labels[number::4, None] == classes).float()  # one_hot would read the device
            target = sharpened(clean * given + (1 - clean) * refined, self.settings.sharpening)
            guess = sharpened(guessed, self.settings.sharpening)
            inputs, targets = (
                torch.cat([learnt[number], learnt_unlabelled[number]]),
                torch.cat([target, target, guess, guess]),
            )
            share = self.mixup[number].share
            mixed = blend(share, inputs, inputs[partners])
            targets = share * targets + (1 - share) * targets[partners]
            losses.append(self._loss(network(mixed).logits, targets))
            seen += [refined, guessed]
        # seen: labelled and unlabelled of the first network, then of the second.
        in_order = torch.stack([seen[part] for part in (0, 2, 1, 3)], 1).flatten(0, 1)
        # A sample may be in the parts of both networks: the first one's answer counts.
        answers = in_order.clamp(min=torch.finfo(torch.float32).tiny).log()
        counted = torch.where((torch.arange(size, device=index.device) % 2 == 0)[:, None], answers, torch.nan)
        return Forward(torch.stack(losses).sum(), in_order.argmax(1), logits=counted)

    def _guess(self, network: Network, images: Tensor) -> Tensor:
        """Mean probabilities over two views: [3, B / 4, C] float32 for images [3 * 2 * B / 4, ...]."""
        probabilities: Tensor = network(images).logits.float().softmax(1)
        return probabilities.unflatten(0, (3, 2, -1)).mean(1)

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of logits [B, C], the first half of them labelled."""
        log_p = logits.float().log_softmax(1)
        half = len(logits) // 2
        supervised: Tensor = self.criterion(logits[:half], targets[:half])
        guessed = (log_p[half:].exp() - targets[half:]).square().mean()
        mean_log_p = log_p.logsumexp(0) - math.log(len(logits))
        return supervised + self.strength * guessed - mean_log_p.mean() - math.log(self.num_classes)

    # -- between steps and epochs ----------------------------------------------------------------------------

    @property
    def prelude(self) -> int:
        """The epoch after which samples are divided for the first time."""
        return self.settings.warm_up

    def start_epoch(self, epoch: int) -> None:
        self.program = MIX if epoch > self.prelude and bool(self.divided) else WARM_UP

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        if self.program == WARM_UP:
            return
        for mixup in self.mixup:
            mixup.draw(epoch, batch, seed)
        draw_pairing(self.pairing, 4 * self.part, random_numbers(seed, (epoch << 32) + batch, PAIRING))
        after = epoch - 1 - self.prelude + batch / self.steps
        ramp = self.settings.unlabelled_ramp
        self.strength.fill_(self.settings.unlabelled_strength * (min(after / ramp, 1.0) if ramp else 1.0))

    def order(self, epoch: int, seed: int) -> np.ndarray | None:
        random = random_numbers(seed, epoch, ORDER)
        drawn = self._drawn(epoch, seed)
        everyone = np.arange(self.num_samples) if drawn is None else drawn
        if self.program == WARM_UP:
            return np.stack([random.permutation(everyone) for _ in range(2)], 1).ravel()
        labelled = self.labelled.cpu().numpy()
        pools = [np.flatnonzero(mask) for mask in labelled]
        for mask in labelled:
            rest = np.flatnonzero(~mask)
            rest = rest if drawn is None else np.intersect1d(rest, everyone, assume_unique=True)
            pools.append(rest if len(rest) >= self.num_classes else everyone)
        step = self.part * self.shards.size  # of each pool; the processes take the batches in turn
        self.steps = -(-max(len(pool) for pool in pools[:2]) // step)
        return np.stack([gone_through(pool, self.steps * step, random) for pool in pools], 1).ravel()

    def end_epoch(self, run: Run) -> None:
        warm_up = self.settings.warm_up
        run.warn_of_prelude(self, self.prelude - warm_up, warm_up=warm_up)
        if run.epoch >= self.prelude or run.epoch == run.epochs:
            last = run.epoch == run.epochs  # then all samples are judged, for the estimates
            self._divide(run, None if last else self._drawn(run.epoch + 1, run.seed))

    def _drawn(self, epoch: int, seed: int) -> np.ndarray | None:
        """The samples of an epoch of --epoch-batches, in rising order; None if it has all."""
        drawn = self.setting.drawn(epoch, seed, self.draws)
        return None if drawn is None else np.sort(drawn)

    def _divide(self, run: Run, drawn: np.ndarray | None = None) -> None:
        """Judge and divide the samples `drawn` for the next epoch, or all."""
        chosen = torch.arange(self.num_samples) if drawn is None else torch.from_numpy(drawn)
        chosen = chosen.to(self.clean.device)
        self.judged = len(chosen)

        def judge(outputs: Sequence[Outputs], index: Tensor) -> tuple[Tensor, ...]:
            logits = torch.stack([each.logits for each in outputs])
            losses = [cross_entropy(answers, run.labels[index], reduction="none") for answers in logits]
            return (logits.softmax(2).mean(0).argmax(1), *losses)

        prediction, *found = run.scan(judge) if drawn is None else run.scan(judge, samples=drawn)
        losses = torch.stack(found)[:, chosen]
        low, high = losses.amin(1, keepdim=True), losses.amax(1, keepdim=True)
        scaled = torch.where(high - low <= NO_SPREAD * high.abs(), 0.0, (losses - low) / (high - low))
        self.losses[int(self.recorded) % len(self.losses)][:, chosen] = scaled
        self.recorded += 1
        mean = self.losses[: int(self.recorded)].mean(0)[:, chosen].cpu().numpy()
        when = f"{self.name}, epoch {run.epoch}"
        for number in (0, 1):
            mixture = fit_losses(mean[number])
            if mixture.clean is not None:
                self.clean[number, chosen] = torch.from_numpy(mixture.clean).to(self.clean)
                self.fitted[number] = True
                recovery = "it is used as it is"
            else:
                recovery = "the earlier division stays" if self.fitted[number] else "the next epoch is one of warm-up"
            if mixture.trouble is not None:
                run.warn(f"{when}, network {number + 1}: {mixture.trouble}; {recovery}")
        self.prediction[chosen] = prediction[chosen]
        predicted = int(self.prediction[chosen[0]])
        one_class = bool((self.prediction[chosen] == predicted).all())
        if one_class:
            run.warn(f"{when}: class {predicted} is predicted for all samples; the next epoch is one of warm-up")
        self.divided.fill_(bool(self.fitted.all()) and not one_class)
        if not self.divided:
            return
        for number in (0, 1):
            clean = self.clean[1 - number, chosen]
            labelled = clean > self.settings.clean_threshold
            count = int(labelled.sum())
            if count < self.num_classes:
                run.warn(
                    f"{when}: network {number + 1} has only {count} labelled samples, too few for "
                    f"{self.num_classes} classes; the more probable half of all samples becomes labelled"
                )
                labelled.fill_(False)
                labelled[clean.argsort(descending=True, stable=True)[: -(-len(chosen) // 2)]] = True
            elif len(chosen) - count < self.num_classes:
                run.warn(
                    f"{when}: network {number + 1} has only {len(chosen) - count} unlabelled samples; all "
                    "samples are used as unlabelled too"
                )
            self.labelled[number] = False
            self.labelled[number, chosen] = labelled

    def report(self) -> dict[str, float]:
        if not self.divided:
            return {}
        if self.judged == self.num_samples:
            return {"labelled": float(self.labelled.float().mean())}
        return {"labelled": int(self.labelled.sum()) / (2 * self.judged)}

    def selections(self) -> dict[str, Selection]:
        """The labelled samples that each network goes on with."""
        if not self.divided:
            return {}
        return {f"labelled_{number + 1}": Selection(self.labelled[number]) for number in (0, 1)}

    # -- what the run has found out --------------------------------------------------------------------------

    def _confidence(self) -> Tensor:
        return self.clean.mean(0)

    def corrected(self, labels: Tensor) -> Tensor:
        """The networks' mean prediction where both mixtures together don't trust the label; the label before a fit."""
        if not self.fitted.all():
            return labels
        return torch.where(self._confidence() > self.settings.clean_threshold, labels, self.prediction)

    def estimates(self, run: Run) -> Estimates | None:
        """Confidence: the mean of the two mixtures' probabilities. None if no mixture could be fitted."""
        if not self.fitted.all():
            return None
        confidence = self._confidence()
        return Estimates(self.corrected(run.given), confidence, confidence <= self.settings.clean_threshold)


def negative_entropy(logits: Tensor) -> Tensor:
    """Mean over a batch of sum_k p_k log p_k, for logits [B, C]."""
    log_p = logits.float().log_softmax(1)
    return (log_p.exp() * log_p).sum(1).mean()


def sharpened(targets: Tensor, temperature: float) -> Tensor:
    """Of probabilities [B, C]: each to the power 1 / temperature, normalised."""
    powers: Tensor = targets ** (1 / temperature)
    return powers / powers.sum(1, keepdim=True)


def _parts(views: Sequence[Tensor], first: int = 0) -> list[Tensor]:
    """For each network the views of its labelled samples, one behind the other; with `first` 2 of its unlabelled ones,
    [V * B / 4, ...]."""
    return [torch.cat([view[number::4] for view in views]) for number in (first, first + 1)]


class AugDesc(DivideMix):
    """DivideMix with weak views of a sample to guess its target, and strong ones to learn it.

    Each sample has four views. The first two, cropped and mirrored alone, serve for co-refinement and co-guessing; the
    others, which RandAugment or AutoAugment of --augment changes too, are mixed and learnt, with targets from the weak
    ones. The warm-up learns weak views (the paper's WAW), or strong ones (SAW).
    """

    name = "augdesc"
    parallel = True
    Options: ClassVar[type[MethodOptions]] = AugDescOptions
    views = 4
    weak_views = 2

    def __init__(self, options: AugDescOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.warm_up_view = self.weak_views if options.warm_up_view == "strong" else 0


class DivideMixAfter(DivideMix):
    """DivideMix after epochs in which the first network learns otherwise, in one run: the base of such methods.

    Then the second network gets the first one's backbone, and keeps the head that was drawn for it. What follows is a
    run of DivideMix over the other epochs, with the optimiser, schedule and warm-up of a run of its own.
    """

    draws = 0  # the epochs before have all samples

    @property
    @abstractmethod
    def before(self) -> int:
        """The epochs before those of DivideMix."""

    @property
    def prelude(self) -> int:
        return self.before + self.settings.warm_up

    def rounds(self, epochs: int) -> Sequence[int]:
        return (self.before, epochs - self.before)

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        if epoch <= self.before:
            self.program = BEFORE

    def end_epoch(self, run: Run) -> None:
        if run.epoch == self.before:
            first, second = run.networks
            second.backbone.load_state_dict(first.backbone.state_dict())
        super().end_epoch(run)
