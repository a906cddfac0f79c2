"""SSR and SSR+ (Feng et al. 2022, "SSR: An Efficient and Robust Framework for Learning with Unknown Label Noise")."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ..config import OptimConfig
from ..errors import ConfigError
from ..losses import CrossEntropyLoss
from ..models import Network, Outputs
from ..options import MethodOptions
from ..selection import neighbour_votes
from .base import Estimates, Forward, Method, Run, Selection, Setting, random_numbers
from .mixup import Mixup, blend, draw_pairing, gone_through, mates
from .options import SSROptions, SSRPlusOptions

ORDER, PAIRING, MIXUP = 26, 27, 28
"""Purposes of random numbers: an epoch's order, a step's pairing and its share."""

PARTS = 3
"""Of a batch: selected samples, the same ones again, and samples of the whole training set."""

ABSENT = 1e-10
"""Added to the samples of each class, so that the share of an absent one is not 0."""


class SampleSelectionRelabelling(Method):
    """Cross-entropy on the samples that their neighbours agree with, once confident predictions have replaced labels.

    Before every epoch one pass over the training set collects features f and probabilities p, and anew from the given
    labels y, with nothing carried over:

        relabelling: y' = argmax p where max p > relabel_threshold, else y
        selection:   the votes of the `neighbours` nearest samples, itself among them, by the cosine of f, are divided
                     by the share of each class among y'. A sample is selected if the votes for its y' are at least
                     select_threshold times the most votes; with 1, if none has more.

    A step takes selected samples, as many of each class (smaller classes are repeated up to the largest), and two
    strong views of each. All views are mixed with those of a random partner, by a share max(l, 1 - l), l from
    Beta(alpha, alpha), images and labels alike, and the loss is their cross-entropy. The network sees a weak and a
    strong view of samples of the whole training set too, each view by itself: here, as in the authors' code without its
    feature consistency, for batch norm's running statistics alone.

    A batch has three parts, each a third, so that 128 samples of each stream, as published, are a batch of 384: first
    selected samples, then the same ones again, whose strong views count, and then samples of the whole training set.
    The epoch ends when these have all been seen once, but for a rest of less than a part; selected ones begin anew as
    often as is needed. The loader's augmentation makes the views: its AutoAugment or RandAugment leaves the first one
    out. Pairs are those of DivideMix: i and (a i + b) mod 2 B.

    With --epoch-batches an epoch has a subset of the samples, among which alone neighbours are sought.

    If no sample is selected, or samples of a single class alone, the next epoch learns the given labels of all samples,
    and a warning says so.
    """

    name = "ssr"
    Options: ClassVar[type[MethodOptions]] = SSROptions
    features = True
    views = 2
    shares = draws = PARTS
    parallel = True
    per_sample = ("selected", "relabelled", "prediction", "confidence")
    consistency: float = 0.0
    """Weight of the feature consistency."""

    selected: Tensor
    relabelled: Tensor
    prediction: Tensor
    confidence: Tensor
    pairing: Tensor

    def __init__(self, options: SSROptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.settings = options
        self.num_samples, self.num_classes = num_samples, num_classes
        self.criterion = CrossEntropyLoss()
        self.mixup = Mixup(options.mixup_alpha, first_dominates=True, purpose=MIXUP)
        self.register_buffer("selected", torch.ones(num_samples, dtype=torch.bool))
        self.register_buffer("relabelled", torch.full((num_samples,), -1))  # -1: not judged yet
        self.register_buffer("prediction", torch.zeros(num_samples, dtype=torch.int64))
        self.register_buffer("confidence", torch.ones(num_samples))
        self.register_buffer("pairing", torch.tensor([1, 0]))
        self.setting = Setting(OptimConfig(), (), (), batch_size=PARTS)
        self.judged = num_samples

    def configure(self, setting: Setting) -> None:
        if setting.batch_size <= PARTS:  # with 4, batch norm has two images in each part
            raise ConfigError(
                f"{self.name} cuts batches into three parts: --batch-size must be at least 4, not {setting.batch_size}"
            )
        self.setting = setting

    # -- inside the step -------------------------------------------------------------------------------------

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        network = networks[0]
        weak, strong = images.chunk(2)
        first = 2 * (len(index) // PARTS)  # of the samples of the whole training set
        inputs, given = strong[:first], labels[:first]
        partner = mates(self.pairing, first)
        one_hot = (given[:, None] == torch.arange(self.num_classes, device=given.device)).float()
        share = self.mixup.share
        targets = share * one_hot + (1 - share) * one_hot[partner]
        logits = network(blend(share, inputs, inputs[partner])).logits
        loss = self.criterion(logits, targets)
        # After the mixed views, as in the authors' code: the last one moves running statistics most.
        with torch.no_grad():
            seen: Outputs = network(weak[first:])
        consistency = self.consistent(network, seen, strong[first:])
        if consistency is not None:
            loss = loss + self.consistency * consistency
        answers = torch.cat([logits.detach(), seen.logits])
        unmixed = torch.cat([torch.full_like(logits, torch.nan), seen.logits])  # rows of NaN are no looks
        return Forward(loss, answers.argmax(1), logits=unmixed)

    def consistent(self, network: Network, seen: Outputs, strong: Tensor) -> Tensor | None:
        """The loss of the feature consistency, of what was made of weak views, and of strong views; None: no loss."""
        with torch.no_grad():
            network.backbone(strong)
        return None

    # -- between steps and epochs ----------------------------------------------------------------------------

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        self.mixup.draw(epoch, batch, seed)
        size = 2 * (self.setting.batch_size // PARTS)
        draw_pairing(self.pairing, size, random_numbers(seed, (epoch << 32) + batch, PAIRING))

    def order(self, epoch: int, seed: int) -> np.ndarray | None:
        random = random_numbers(seed, epoch, ORDER)
        drawn = self._drawn(epoch, seed)
        everyone = np.arange(self.num_samples) if drawn is None else drawn
        part = self.setting.batch_size // PARTS
        rest = self.setting.batch_size - 2 * part
        # The processes take the batches in turn.
        batches = max(1, len(everyone) // (rest * self.shards.size)) * self.shards.size
        selected = np.flatnonzero(self.selected.cpu().numpy())
        labels = self.relabelled.cpu().numpy()[selected]
        most = int(np.bincount(labels).max())
        balanced = [gone_through(selected[labels == label], most, random) for label in np.unique(labels)]
        labelled = gone_through(np.concatenate(balanced), batches * part, random).reshape(batches, part)
        others = gone_through(everyone, batches * rest, random).reshape(batches, rest)
        return np.concatenate([labelled, labelled, others], 1).ravel()

    def end_epoch(self, run: Run) -> None:
        last = run.epoch == run.epochs  # then all samples are judged, for the estimates
        drawn = None if last else self._drawn(run.epoch + 1, run.seed)
        chosen = torch.arange(self.num_samples) if drawn is None else torch.from_numpy(drawn)
        chosen = chosen.to(self.selected.device)
        self.judged = len(chosen)

        def collect(outputs: Sequence[Outputs], index: Tensor) -> tuple[Tensor, ...]:
            features, probs = outputs[0].features, outputs[0].logits.softmax(1)
            assert features is not None
            return features, *probs.max(1), probs.gather(1, run.given[index, None]).squeeze(1)

        found = run.scan(collect) if drawn is None else run.scan(collect, samples=drawn)
        features, largest, prediction, confidence = (table[chosen] for table in found)
        given = run.given[chosen]
        labels = torch.where(largest > self.settings.relabel_threshold, prediction, given)
        agreed = self.agreement(features, labels) >= self.settings.select_threshold
        classes = labels[agreed].unique()
        if len(classes) < 2:
            what = f"only samples of class {int(classes[0])} are selected" if len(classes) else "no sample is selected"
            run.warn(f"{self.name}, epoch {run.epoch}: {what}; the next epoch learns the given labels of all samples")
            labels, agreed = given, torch.ones_like(agreed)
        self.prediction[chosen], self.confidence[chosen], self.relabelled[chosen] = prediction, confidence, labels
        self.selected.fill_(False)
        self.selected[chosen] = agreed
        run.labels[chosen] = labels

    def agreement(self, features: Tensor, labels: Tensor) -> Tensor:
        """float32 [N]: the neighbours' votes for each label over the most votes, each divided by the class's share."""
        votes = neighbour_votes(features, labels, self.num_classes, self.settings.neighbours)
        counts = torch.bincount(labels, minlength=self.num_classes) + ABSENT
        scores = votes / (counts / counts.sum())
        return scores.gather(1, labels[:, None]).squeeze(1) / scores.amax(1)

    def _drawn(self, epoch: int, seed: int) -> np.ndarray | None:
        """The samples of an epoch of --epoch-batches, in rising order; None if it has all."""
        drawn = self.setting.drawn(epoch, seed, self.draws)
        return None if drawn is None else np.sort(drawn)

    def report(self) -> dict[str, float]:
        return {"selected": int(self.selected.sum()) / self.judged}

    def selections(self) -> dict[str, Selection]:
        """The samples that the next epoch learns, with the labels that it learns."""
        return {"selected": Selection(self.selected, self.relabelled)}

    # -- what the run has found out --------------------------------------------------------------------------

    def corrected(self, labels: Tensor) -> Tensor:
        """The labels of selected samples after relabelling, and the predictions for the others."""
        return torch.where(self.relabelled < 0, labels, torch.where(self.selected, self.relabelled, self.prediction))

    def estimates(self, run: Run) -> Estimates:
        """Suspected: what is not selected, or selected with another label. Confidence: the probability of the given
        label."""
        return Estimates(self.corrected(run.given), self.confidence, ~self.selected | (self.relabelled != run.given))


class SSRPlus(SampleSelectionRelabelling):
    """SSR whose network also learns to see a strong view of any sample as it sees a weak one, whatever the label.

    With projector g and predictor h, of two layers each, and features f of a weak and a strong view, the loss gets

        - consistency * mean cos(h(g(f_strong)), g(f_weak))

    whose second side has no gradient. g and h are modules of the network while it trains; no model file has them.
    """

    name = "ssr_plus"
    Options: ClassVar[type[MethodOptions]] = SSRPlusOptions
    parallel = True

    def __init__(self, options: SSRPlusOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.consistency = options.consistency

    def attach(self, networks: Sequence[Network]) -> None:
        device = next(networks[0].parameters()).device
        networks[0].projector = head(networks[0].backbone.num_features).to(device)
        networks[0].predictor = head(WIDTH).to(device)

    def consistent(self, network: Network, seen: Outputs, strong: Tensor) -> Tensor | None:
        with torch.no_grad():
            wanted = network.projector(seen.features)  # type: ignore[operator]  # `attach` has added both heads
        found = network.predictor(network.projector(network.backbone(strong)))  # type: ignore[operator]
        return -cosine_similarity(found.float(), wanted.float(), dim=1).mean()


HIDDEN, WIDTH = 256, 128
"""Units of the heads' hidden layers, and numbers that they give."""


def head(inputs: int) -> nn.Sequential:
    """A projector, or a predictor. Batch norm would take away what the first layer adds, so that it has no bias."""
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH)
    )
