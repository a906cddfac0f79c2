"""Methods that correct the labels or the loss: forward, plc, selc, selc_plus; and what those with an estimated
transition matrix share."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..checks import require_memory
from ..losses import CrossEntropyLoss, ForwardLoss, SELCLoss
from ..models import Network, Outputs
from .base import Estimates, Forward, Method, Run
from .first_weights import FirstWeights
from .mixup import Mixup, partners
from .options import DualTOptions, ForwardOptions, PLCOptions, SELCOptions, SELCPlusOptions
from .scan import by_blocks
from .shards import Shards, own_rows
from .single import TargetMethod

# -- forward correction -------------------------------------------------------------------------------------------


class ColumnTops:
    """The largest numbers of each column of a table whose rows come a few at a time.

    Args:
        count: how many of each column are kept, K.
    """

    def __init__(self, count: int):
        self.count = count
        self._top: Tensor | None = None
        self._waiting: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Take more rows, [B, C] float32."""
        self._waiting.append(rows.T.contiguous())
        if sum(each.shape[1] for each in self._waiting) >= self.count:  # to select is dear, and cheaper for many
            self._merge()

    def _merge(self) -> None:
        seen = torch.cat(self._waiting if self._top is None else [self._top, *self._waiting], 1)
        self._waiting = []
        self._top = seen if seen.shape[1] <= self.count else seen.topk(self.count, sorted=False).values

    def least(self, shards: Shards) -> Tensor:
        """The K-th largest of each column, [C], of the rows of all processes; its least where there are fewer rows."""
        if self._waiting:
            self._merge()
        assert self._top is not None
        if shards.size > 1:
            missing = self.count - self._top.shape[1]
            own = torch.nn.functional.pad(self._top, (0, missing), value=-torch.inf)
            self._top = shards.gathered(own).transpose(0, 1).flatten(1).topk(self.count).values
            self._top = self._top.where(self._top > -torch.inf, torch.inf)
        return self._top.amin(1)


class SurestRows:
    """For each column of a table its largest number below a limit, and the row that it stands in; the first such row
    where several have it. Rows come a few at a time, in order.

    Args:
        limits: [C]; a column without a number between 0 and its limit gets the first row of all.
    """

    def __init__(self, limits: Tensor):
        self.limits = limits
        self._largest = torch.full_like(limits, -1)
        self._sample = torch.zeros_like(limits, dtype=torch.int64)
        self.rows = limits.new_zeros(len(limits), len(limits))
        """[C, C]: the row of each column."""

    def add(self, rows: Tensor, index: Tensor) -> None:
        """Take more rows, [B, C] of numbers from 0, of the samples `index` [B]."""
        largest, position = torch.where(rows < self.limits, rows, 0).max(0)
        self._take(largest, index[position], rows[position], largest > self._largest)

    def _take(self, largest: Tensor, sample: Tensor, rows: Tensor, better: Tensor) -> None:
        self._largest = torch.where(better, largest, self._largest)
        self._sample = torch.where(better, sample, self._sample)
        self.rows = torch.where(better[:, None], rows, self.rows)

    def share(self, shards: Shards) -> None:
        """Take the rows of all processes."""
        if shards.size > 1:
            found = [shards.gathered(own) for own in (self._largest, self._sample, self.rows)]
            for largest, sample, rows in zip(*found, strict=True):
                first = (largest == self._largest) & (sample < self._sample)
                self._take(largest, sample, rows, (largest > self._largest) | first)


def percentile_from_top(percentile: float, count: int) -> int:
    """K for which the K-th largest of `count` numbers is their percentile, the next one up where that falls between two
    (numpy.percentile with method="higher"). percentile: in [0, 100]."""
    return count - math.ceil((count - 1) * (percentile / 100))


def transition_from(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """T[true, noisy], [C, C]: rows of probabilities whose sums are 1, none below 1e-8, so that no label becomes
    impossible."""
    transition = np.maximum(rows, 1e-8)
    return transition / transition.sum(1, keepdims=True)


class EstimatedTransition(Method, ABC):
    """Forward correction with a transition matrix that is estimated after a first round of training.

    The first `warm_up` epochs are plain cross-entropy, which is forward correction with T = 1. Then T is estimated from
    the predictions for the training set, and the other epochs train anew, from the first weights and with a new
    schedule, as the authors do. They estimate T with the best model on held-out noisy labels; here `warm_up` has to end
    before wrong labels are memorised, since a network that has learnt them by heart shows T = 1.

    The network's sure predictions are those for the sample of each class i that it takes most surely for i. With
    `percentile` below 100, samples whose probability of class i reaches this percentile (the next one up) are passed
    over as outliers. The percentile is exact: a first pass over the training set keeps the largest (100 - percentile) %
    of each class's probabilities, a second one finds the rows.

    If the network predicts a single class for all samples, T cannot be estimated and stays the identity.
    """

    criterion: ForwardLoss

    def __init__(self, options: ForwardOptions | DualTOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.warm_up, self.percentile = options.warm_up, options.percentile
        self.criterion = ForwardLoss(torch.eye(num_classes))

    @abstractmethod
    def estimate(self, sure: NDArray[np.float64], predictions: Tensor, given: Tensor) -> NDArray[np.float64]:
        """T[true, noisy], [C, C].

        sure: [C, C], what the network predicts for the surest sample of each class (`transition_from`); predictions,
        given: int64 [N].
        """

    def attach(self, networks: Sequence[Network]) -> None:
        self.first = FirstWeights(networks)

    @property
    def prelude(self) -> int:
        return self.warm_up

    def rounds(self, epochs: int) -> Sequence[int]:
        return (self.warm_up, epochs - self.warm_up) if 0 < self.warm_up < epochs else (epochs,)

    def end_epoch(self, run: Run) -> None:
        run.warn_of_prelude(self, warm_up=self.warm_up)
        if run.epoch != self.warm_up or run.epoch == run.epochs:
            return
        predictions, rows = self._surest_rows(run)
        if bool((predictions == predictions[0]).all()):
            run.warn(
                f"{self.name}: class {int(predictions[0])} is predicted for every sample, so the transition matrix "
                "cannot be estimated; training continues with plain cross-entropy; lower --learning-rate or raise "
                "--warm-up"
            )
        else:
            transition = self.estimate(transition_from(rows.cpu().double().numpy()), predictions, run.given)
            self.criterion.columns.copy_(torch.from_numpy(transition.T))
        self.first.restore(run.networks)

    def _surest_rows(self, run: Run) -> tuple[Tensor, Tensor]:
        """The prediction for each sample, int64 [N], and the probabilities of the surest sample of each class below the
        percentile, [C, C]."""
        limits = torch.full_like(self.criterion.columns[0], torch.inf)
        if self.percentile < 100:
            tops = ColumnTops(percentile_from_top(self.percentile, len(run.given)))

            def collect(outputs: Sequence[Outputs], index: Tensor) -> None:
                tops.add(outputs[0].logits.softmax(1))

            run.scan(collect)
            limits = tops.least(self.shards)
        surest = SurestRows(limits)

        def find(outputs: Sequence[Outputs], index: Tensor) -> Tensor:
            probs = outputs[0].logits.softmax(1)
            surest.add(probs, index)
            return probs.argmax(1)

        predictions = run.scan(find)
        surest.share(self.shards)
        return predictions, surest.rows

    def report(self) -> dict[str, float]:
        return share_right(self.criterion)


class ForwardCorrection(EstimatedTransition):
    """Forward correction (Patrini et al. 2017, Theorem 2 and Sec. 4.1).

    Row i of T is what the network predicts for the sample that it takes most surely for class i (Eq. 12 and 13). The
    authors take the percentile 97 on CIFAR-10 and MNIST, and 100 on CIFAR-100, and the model of the lowest loss.
    """

    weighted = parallel = fused_head = True
    name = "forward"
    Options = ForwardOptions

    def __init__(self, options: ForwardOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.criterion = ForwardLoss(torch.eye(num_classes), variant=options.variant)

    def estimate(self, sure: NDArray[np.float64], predictions: Tensor, given: Tensor) -> NDArray[np.float64]:
        return sure


def share_right(criterion: ForwardLoss) -> dict[str, float]:
    """The estimated share of labels that are right, for a report: the mean of T's diagonal."""
    return {"transition_diagonal": float(criterion.columns.diagonal().mean())}


# -- progressive label correction ---------------------------------------------------------------------------------

RARE_CORRECTIONS = 0.001
"""Share of the labels below which an epoch's corrections have PLC raise its threshold."""

LARGEST_THRESHOLD = 0.9


class ProgressiveLabelCorrection(Method):
    """PLC (Zhang et al. 2021, Algorithm 1) as in the authors' code.

    f is the mean of the probabilities of the last `window` epochs, as training saw them. After each epoch beyond
    `warm_up` a label y is replaced by the class of the largest f where f_y < threshold * max_k f_k. An epoch that
    corrects fewer than RARE_CORRECTIONS of the labels raises the threshold by `threshold_step`, to at most
    LARGEST_THRESHOLD.

    If f favours one class for all samples, that epoch corrects no label.
    """

    weighted = parallel = True
    name = "plc"
    Options = PLCOptions
    probs: Tensor
    slot: Tensor
    threshold: Tensor
    labels: Tensor

    def __init__(self, options: PLCOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.warm_up, self.window, self.step = options.warm_up, options.window, options.threshold_step
        self.criterion = CrossEntropyLoss()
        rows = own_rows(num_samples)
        require_memory(f"plc: the predictions of {self.window} epochs", 4 * self.window * rows * num_classes)
        self.register_buffer("probs", torch.zeros(self.window, rows, num_classes))
        self.register_buffer("slot", torch.zeros((), dtype=torch.int64))
        self.register_buffer("threshold", torch.tensor(options.threshold, dtype=torch.float64))
        self.register_buffer("labels", torch.zeros(num_samples, dtype=torch.int64))

    def sharded(self) -> dict[str, int]:
        return {**super().sharded(), "probs": 1}

    def start_epoch(self, epoch: int) -> None:
        self.slot.fill_((epoch - 1) % self.window)

    def loss(self, outputs: Outputs, labels: Tensor, index: Tensor) -> Tensor:
        # An index tensor without dimensions would be read by the host.
        rows = self.slot * self.probs.shape[1] + self.shards.row(index)
        self.probs.flatten(0, 1)[rows] = outputs.logits.detach().float().softmax(1)
        loss: Tensor = self.criterion(outputs.logits, labels, **self.weight_of(labels))
        return loss

    @property
    def prelude(self) -> int:
        return self.warm_up

    def end_epoch(self, run: Run) -> None:
        run.warn_of_prelude(self, warm_up=self.warm_up)
        if run.epoch > self.warm_up:
            labels = self.shards.own(run.labels)
            judged = by_blocks(lambda rows: self._judge(labels[rows], rows), self.probs)
            predicted, wrong = self.shards.join(judged, len(run.labels))
            if bool((predicted == predicted[0]).all()):
                run.warn(
                    f"plc: class {int(predicted[0])} is the most probable one for every sample, so epoch "
                    f"{run.epoch} corrects no label; lower --learning-rate"
                )
                wrong.zero_()
            elif int(wrong.sum()) < RARE_CORRECTIONS * len(wrong):
                before = float(self.threshold)
                self.threshold.fill_(max(before, min(before + self.step, LARGEST_THRESHOLD)))
            run.labels.copy_(torch.where(wrong, predicted, run.labels))
        self.labels.copy_(run.labels)

    def _judge(self, labels: Tensor, rows: slice) -> tuple[Tensor, ...]:
        """For the samples of `rows` with these labels, int64 [B]: the class of the largest f, int64 [B], and whether
        the label's f is below the threshold, bool [B]."""
        # Slots that were never written are zero: they change neither the ratios nor the largest class.
        total = self.probs[:, rows].sum(0)
        largest, predicted = total.max(1)
        return predicted, total.gather(1, labels[:, None]).squeeze(1) < self.threshold * largest

    def report(self) -> dict[str, float]:
        return {"threshold": float(self.threshold)}

    def corrected(self, labels: Tensor) -> Tensor:
        return self.labels

    def estimates(self, run: Run) -> Estimates:
        """Confidence: the ratio that the threshold is held against, of the given label."""

        given = self.shards.own(run.given)

        def share(rows: slice) -> Tensor:
            total = self.probs[:, rows].sum(0)
            shares = total.gather(1, given[rows, None]).squeeze(1) / total.amax(1)
            return shares.nan_to_num(1.0)

        confidence = self.shards.join(by_blocks(share, self.probs), len(run.given))
        return Estimates(self.labels, confidence, self.labels != run.given)


# -- self-ensemble label correction -------------------------------------------------------------------------------


GROWTH = 1.1
"""Factor by which the separation has to grow to count as rising."""


class TurningPoint(nn.Module):
    """Finds the epoch around which training begins to memorise wrong labels, from the losses of training alone.

    Until then the losses of clean and mislabelled samples move apart; after it those of the mislabelled ones fall too.
    After each epoch a mixture of two Gaussians is fitted to the samples' losses of that epoch; its separation is
    |mean_1 - mean_2| / sqrt(variance_1 + variance_2). The turning point is taken to be reached once the separation has
    not risen by more than GROWTH for a fiftieth of the training, and at least one epoch: a little early rather than
    late, since correction can be early at little cost. (digits with 40 % symmetric noise, SELC from epoch 2, 4 or 6:
    98, 97 and 96 % test accuracy.) With plain cross-entropy on digits with 40 % and on MNIST with 60 % symmetric noise,
    the separation peaks in epochs 3 and 4, and so does the AUROC with which losses tell wrong labels, within 0.001.

    Epochs whose mixture doesn't converge are passed over.
    """

    losses: Tensor
    risen: Tensor
    at: Tensor

    def __init__(self, num_samples: int):
        super().__init__()
        self.register_buffer("losses", torch.full((num_samples,), -1.0))  # -1: not visited yet
        self.register_buffer("risen", torch.zeros((), dtype=torch.float64))  # the separation at its last rise
        self.register_buffer("at", torch.zeros((), dtype=torch.int64))

    def record(self, losses: Tensor, index: Tensor) -> None:
        """Note the losses [B] of the samples `index` [B]. Uses the device alone."""
        self.losses[index] = losses

    def reached(self, run: Run, epochs: int) -> bool:
        """Whether a training of `epochs` has come to its turning point with the epoch that has just ended."""
        from sklearn.exceptions import ConvergenceWarning  # a second to import
        from sklearn.mixture import GaussianMixture

        losses = self.losses.cpu().double().numpy()
        mixture = GaussianMixture(2, reg_covar=1e-6, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(losses[losses >= 0][:, None])
        if not mixture.converged_:
            run.warn(
                f"selc: the mixture of two Gaussians doesn't converge on the losses of epoch {run.epoch}; the search "
                "for the turning point skips this epoch; to set the epoch by hand give --update-from"
            )
            return False
        separation = float(abs(np.diff(mixture.means_[:, 0])[0]) / np.sqrt(mixture.covariances_.sum()))
        if separation > GROWTH * float(self.risen):
            self.risen.fill_(separation)
            self.at.fill_(run.epoch)
        return run.epoch - int(self.at) >= max(1, epochs // 50)


class SelfEnsembleLabelCorrection(TargetMethod):
    """SELC (Lu & He 2022): cross-entropy on the moving average of the given label and the predictions.

    Plain cross-entropy before epoch `update_from`, which is one more than the authors' `es`. They choose es ten epochs
    before the turning point of an earlier run, after which training memorises wrong labels. With `update_from`
    "auto" correction begins after the epoch in which `TurningPoint` sees that point come, a rule of ours that takes one
    run.

    If no turning point is found before the last epoch, labels stay as they are, and a warning says so.
    """

    weighted = parallel = True
    name = "selc"
    Options = SELCOptions
    criterion: SELCLoss
    update_from: Tensor

    def __init__(self, options: SELCOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.criterion = SELCLoss(num_samples, num_classes, momentum=options.momentum, reduction="none")
        known = 0 if options.update_from == "auto" else options.update_from  # 0: not known yet
        self.turning_point = None if known else TurningPoint(num_samples)
        self.register_buffer("update_from", torch.tensor(known))

    def loss(self, outputs: Outputs, labels: Tensor, index: Tensor) -> Tensor:
        losses: Tensor = self.criterion(outputs.logits, labels, index)
        if self.turning_point is not None:
            self.turning_point.record(losses.detach(), index)
        return (losses if self.class_weights is None else losses * self.class_weights[labels]).mean()

    def exchange(self) -> None:
        if self.turning_point is not None:
            self.shards.share_(self.turning_point.losses)

    def start_epoch(self, epoch: int) -> None:
        self.criterion.set_update(0 < int(self.update_from) <= epoch)

    def end_epoch(self, run: Run) -> None:
        if self.turning_point is None or run.epoch == 0 or int(self.update_from):
            return
        epochs = self.rounds(run.epochs)[0]
        reached = self.turning_point.reached(run, epochs)
        if run.epoch == epochs:  # no epoch is left that could correct
            found = "the turning point came in the last of" if reached else "no turning point was found in"
            run.warn(
                f"{self.name}: {found} {epochs} epochs, so no label was corrected; raise --epochs, or give the first "
                "epoch by --update-from"
            )
        elif reached:
            self.update_from.fill_(run.epoch + 1)

    def report(self) -> dict[str, float]:
        known = int(self.update_from)
        return {"update_from": known} if known else {}


class SelfEnsembleLabelCorrectionPlus(SelfEnsembleLabelCorrection):
    """SELC+ (Lu & He 2022): SELC, then a network trained anew with mixup on the labels that SELC corrected.

    The first half of the epochs is SELC. Then the hard corrected labels go into the label table, the network gets its
    first weights back, and the second half is cross-entropy with mixup and a schedule of its own. The authors use two
    runs of 200 epochs each.
    """

    parallel = True
    name = "selc_plus"
    Options = SELCPlusOptions
    retraining: Tensor
    last_of_selc: Tensor

    def __init__(self, options: SELCPlusOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.mixup = Mixup(options.mixup_alpha)
        self.cross_entropy = CrossEntropyLoss()
        self.register_buffer("retraining", torch.zeros(()))
        self.register_buffer("last_of_selc", torch.zeros((), dtype=torch.int64))
        self.mixing = False

    def attach(self, networks: Sequence[Network]) -> None:
        self.first = FirstWeights(networks)

    def rounds(self, epochs: int) -> Sequence[int]:
        return (epochs,) if epochs == 1 else (epochs - epochs // 2, epochs // 2)

    def start_epoch(self, epoch: int) -> None:
        self.mixing = epoch > int(self.last_of_selc)
        self.retraining.fill_(float(self.mixing))
        self.mixup.share.fill_(1)
        super().start_epoch(epoch)
        if self.mixing:
            self.criterion.set_update(False)

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        if self.mixing:
            self.mixup.draw(epoch, batch, seed)

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        """Both losses with the weights 1 and 0, so that one captured step serves both halves."""
        outputs: Outputs = networks[0](self.mixup.mix(images))
        mixed = self.mixup.share * self.cross_entropy(outputs.logits, labels)
        mixed = mixed + (1 - self.mixup.share) * self.cross_entropy(outputs.logits, partners(labels))
        loss = torch.lerp(self.loss(outputs, labels, index), mixed, self.retraining)
        answers = outputs.logits.detach()
        unmixed = answers.masked_fill(self.retraining > 0, torch.nan)  # rows of NaN are no looks
        return Forward(loss, answers.argmax(1), logits=unmixed)

    def end_epoch(self, run: Run) -> None:
        if run.epoch == 0:
            self.last_of_selc.fill_(self.rounds(run.epochs)[0])
        if self.mixing:
            return
        super().end_epoch(run)
        if run.epoch == int(self.last_of_selc) < run.epochs:
            run.labels.copy_(self.corrected(run.given))
            self.first.restore(run.networks)
