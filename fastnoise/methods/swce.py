"""The SWCE pipeline (Gupta, "Improving Training For Noisy Labels"): warm-up, then iterations of stage consensus."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..losses import FocalLoss, SWCELoss
from ..models import Outputs
from ..selection import Consensus, ConsensusOptions, StageTables, consensus
from .base import Estimates, Method, Phase, Run, Selection, Setting, random_numbers
from .options import SWCEOptions, parse_factors, parse_stages

PURPOSE = 60
"""Of the random numbers that order an epoch with copies."""


class Place(NamedTuple):
    """Where an epoch lies in the pipeline."""

    iteration: int
    """From 1; 0 for the warm-up."""
    epoch: int
    """From 1, within the warm-up or the iteration."""
    stage: int | None
    """From 0, if the epoch is a stage of its iteration."""


@dataclass(frozen=True)
class Timetable:
    """The epochs of the pipeline: a warm-up, then iterations that end with their last stage."""

    warm_up: int
    iterations: tuple[tuple[int, ...], ...]

    @property
    def epochs(self) -> int:
        return self.warm_up + sum(stages[-1] for stages in self.iterations)

    def place(self, epoch: int) -> Place:
        """Where `epoch` lies, counted from 1 over the whole run, 1..epochs."""
        if epoch <= self.warm_up:
            return Place(0, epoch, None)
        ends = list(accumulate((stages[-1] for stages in self.iterations), initial=self.warm_up))
        number = next(number for number, end in enumerate(ends) if epoch <= end)
        stages, within = self.iterations[number - 1], epoch - ends[number - 1]
        return Place(number, within, stages.index(within) if within in stages else None)


class SWCEPipeline(Method):
    """Warm-up on the given labels, then iterations that relabel the samples on which their stages agree.

    After each stage epoch every training sample is evaluated (evaluation mode, no augmentation) and selected if its
    loss is below `selection_threshold`. At the end of an iteration the samples selected at all of its stages get the
    network's prediction as their label, the others keep their given one, and the next iteration's epochs hold `copies`
    more augmented views of each pseudo-labelled sample. The network can begin from SimCLR's encoder (--encoder),
    and the run's consensus labels can feed another method, as the paper's feed DivideMix: --method
    dividemix --labels RUN/corrected.npz:corrected. The paper leaves these choices open, so they are options:

    weight            whether gradient flows through SWCE's weight p_y
    train_loss        SWCE, or focal loss with exponent gamma (Table V)
    selection_loss    NCE + MAE, focal loss (Table V), or cross-entropy
    mae               MAE as its formula has it or as in its authors' code; with l1, a loss below 1 means p > 1/2
    selection_label   whose loss is compared: the predicted class's, so that wrong labels can be selected and corrected,
                      or the given one's (which with l1 MAE and a threshold up to 1 selects only samples that are
                      predicted as they were given)
    stage_statistics  batch norm's at a stage: its running ones, or each batch's
    agreement         whether the stages must predict the same class, as in SELFIE, whose premise the paper cites
    label_stage       whose prediction is the pseudo-label
    pseudo_labels     recomputed from the given labels by each iteration, or kept until a later one replaces them
    copies_in         whether copies lie anywhere in the epoch or in their sample's batch
    decay_in          whether weight decay ends with the warm-up (decoupled or not is --optimizer's choice)
    optimizer_state   whether an iteration begins with a fresh optimiser
    rate_factors      learning rates relative to --learning-rate: 1e-4, 1e-4, 1e-5, 1e-5, 1e-6 in the published recipe,
                      of which the paper leaves out the third iteration's

    If an iteration has no consensus, or a consensus of a single class, it selects nothing, and a warning says so.

    Buffers: `pseudo` int64 [N], the pseudo-label of each sample or -1; `tables`, the stages of the present iteration.
    """

    weighted = parallel = True
    name = "swce"
    Options = SWCEOptions
    pseudo: Tensor

    def __init__(self, options: SWCEOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.chosen = options
        self.timetable = Timetable(self.chosen.warm_up, parse_stages(self.chosen.stages))
        self.factors = parse_factors(self.chosen.rate_factors)
        if len(self.factors) != 1 + len(self.timetable.iterations):
            raise ConfigError(
                f"--rate-factors has {len(self.factors)} factors: give one for the warm-up and one for each of the "
                f"{len(self.timetable.iterations)} iterations of --stages"
            )
        focal = self.chosen.train_loss == "focal"
        self.criterion = FocalLoss(gamma=self.chosen.gamma) if focal else SWCELoss(weight=options.weight)
        # Focal loss is a function of cross-entropy alone, which the table then holds.
        recorded = "nce+mae" if self.chosen.selection_loss == "nce+mae" else "ce"
        most = max(len(stages) for stages in self.timetable.iterations)
        self.tables = StageTables(most, num_samples, loss=recorded, mae=self.chosen.mae)
        self.register_buffer("pseudo", torch.full((num_samples,), -1))
        self.made: dict[str, Selection] = {}
        self.figures: dict[str, float] = {}

    def configure(self, setting: Setting) -> None:
        optim, timetable = setting.optim, self.timetable
        if optim.epochs != timetable.epochs:
            lengths = " + ".join(str(stages[-1]) for stages in timetable.iterations)
            raise ConfigError(
                f"--epochs {optim.epochs} contradicts method swce: a warm-up of {timetable.warm_up} and iterations of "
                f"{lengths} epochs make {timetable.epochs}; give --epochs {timetable.epochs}, or other --warm-up and "
                "--stages"
            )
        if optim.schedule != "constant":
            raise ConfigError(
                f"--schedule {optim.schedule} has no meaning for method swce: its learning rate follows "
                "--rate-factors; drop the option"
            )
        self.rate, self.decay = optim.learning_rate, optim.weight_decay

    def phase(self, epoch: int) -> Phase:
        place = self.timetable.place(epoch)
        decays = place.iteration == 0 or self.chosen.decay_in == "all"
        return Phase(
            learning_rate=self.rate * self.factors[place.iteration],
            weight_decay=self.decay if decays else 0.0,
            fresh=place.epoch == 1 and self.chosen.optimizer_state == "fresh",
        )

    def order(self, epoch: int, seed: int) -> np.ndarray | None:
        """N + copies * |S| positions for S the pseudo-labelled samples; None if that is N."""
        copied = self.pseudo.cpu().numpy() >= 0
        if not self.chosen.copies or not copied.any():
            return None
        repeats, random = 1 + self.chosen.copies * copied, random_numbers(seed, epoch, PURPOSE)
        if self.chosen.copies_in == "batch":
            shuffled = random.permutation(len(copied))
            return np.repeat(shuffled, repeats[shuffled])
        return random.permutation(np.repeat(np.arange(len(copied)), repeats))

    def end_epoch(self, run: Run) -> None:
        self.made, self.figures = {}, {}
        if run.epoch == 0:
            return
        place = self.timetable.place(run.epoch)
        self.figures["iteration"] = place.iteration
        if place.stage is None:
            return
        if place.stage == 0:
            self.tables.clear()
        stage = place.stage
        judged = run.given if self.chosen.selection_label == "given" else None

        def record(outputs: Sequence[Outputs], index: Tensor) -> None:
            self.tables.record(stage, outputs[0].logits, index, None if judged is None else judged[index])

        run.scan(record, batch_statistics=self.chosen.stage_statistics == "batch")
        self.shards.share_(*(table[stage] for table in self.tables.buffers()))
        losses = self.selection_losses(place.stage + 1)
        kept = losses[-1] < self.chosen.selection_threshold
        self.made["stage"] = Selection(kept, self.tables.prediction[place.stage].long())
        if place.stage == len(self.timetable.iterations[place.iteration - 1]) - 1:
            self._relabel(run, place, losses)

    def selection_losses(self, stages: int) -> Tensor:
        """float32 [stages, N]: the losses by which samples are selected, of the first stages of this iteration."""
        losses = self.tables.loss[:stages]
        if self.chosen.selection_loss == "focal":
            return (1 - (-losses).exp()) ** self.chosen.gamma * losses
        return losses

    def _relabel(self, run: Run, place: Place, losses: Tensor) -> None:
        chosen = self.chosen
        found = consensus(
            losses,
            self.tables.prediction[: len(losses)],
            chosen.selection_threshold,
            options=ConsensusOptions(
                agree=chosen.agreement == "required", label_stage=-1 if chosen.label_stage == "last" else 0
            ),
        )
        collapse = self._collapse(found, losses)
        if chosen.pseudo_labels == "recomputed":
            self.pseudo.fill_(-1)
        member = torch.zeros_like(self.pseudo, dtype=torch.bool)
        if collapse:
            run.warn(
                f"iteration {place.iteration}: {collapse}; it relabels and copies no sample, and training continues"
            )
        else:
            index = torch.from_numpy(found.index).to(self.pseudo.device)
            self.pseudo[index] = torch.from_numpy(found.pseudo_labels).to(self.pseudo.device)
            member[index] = True
        run.labels.copy_(self.corrected(run.given))
        self.made["consensus"] = Selection(member, self.corrected(run.given))

    def _collapse(self, found: Consensus, losses: Tensor) -> str:
        """Why a consensus is of no use, or nothing."""
        threshold = self.chosen.selection_threshold
        if not found.num_members:
            least = float(losses.nan_to_num(torch.inf).amax(0).min())
            return (
                f"no sample has a loss below {threshold:g} at all stages"
                f"{' and one prediction' if self.chosen.agreement == 'required' else ''} (the sample with "
                f"the smallest losses reaches {least:.3g}; raise --selection-threshold or --learning-rate)"
            )
        classes = np.unique(found.pseudo_labels)
        if len(classes) == 1:
            return f"all {found.num_members} samples of the consensus are predicted as class {classes[0]}"
        return ""

    def report(self) -> dict[str, float]:
        return self.figures

    def selections(self) -> dict[str, Selection]:
        return self.made

    def corrected(self, labels: Tensor) -> Tensor:
        return torch.where(self.pseudo >= 0, self.pseudo, labels)

    def estimates(self, run: Run) -> Estimates:
        """Confidence: the last stage's probability of its prediction where that is the given label, else 1 less it.

        Suspected are the samples whose pseudo-label is not the given one.
        """
        corrected = self.corrected(run.given)
        last = len(self.timetable.iterations[-1]) - 1
        confidence = self.tables.confidence[last].nan_to_num(0.5)
        as_given = self.tables.prediction[last] == run.given
        return Estimates(corrected, torch.where(as_given, confidence, 1 - confidence), corrected != run.given)
