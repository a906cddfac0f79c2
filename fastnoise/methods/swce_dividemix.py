"""The SWCE pipeline, then DivideMix on the labels of its consensus (Gupta: "our pipeline on top of Dividemix")."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..models import Network
from .base import Estimates, Forward, Phase, Run, Selection, Setting
from .dividemix import BEFORE, DivideMixAfter
from .options import SWCEDivideMixOptions, SWCEOptions
from .swce import SWCEPipeline


class SWCEDivideMix(DivideMixAfter):
    """DivideMix on the consensus labels of the SWCE pipeline, in one run.

    For the epochs of `pipeline_warm_up` and `stages` the first network goes through `SWCEPipeline`, by this run's
    optimiser and weight decay and with its learning rates relative to `pipeline_rate`. Then the label table holds the
    labels of the last consensus, and of the other samples the given ones; the second network gets the first one's
    backbone, and keeps the head that was drawn for it. What follows is a run of DivideMix over the other epochs, on
    these labels, with the optimiser, schedule and warm-up of a run of its own. The paper says no more of how the two
    are joined than that its pipeline is implemented on top of DivideMix.
    """

    name = "swce_dividemix"
    parallel = True
    whole_batches = True
    Options = SWCEDivideMixOptions
    settings: SWCEDivideMixOptions

    def __init__(self, options: SWCEDivideMixOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        of_pipeline = SWCEOptions(
            warm_up=options.pipeline_warm_up,
            stages=options.stages,
            rate_factors=options.rate_factors,
            train_loss=options.train_loss,
            selection_loss=options.selection_loss,
            selection_threshold=options.selection_threshold,
            copies=options.copies,
            gamma=options.gamma,
            decay_in="all",  # DivideMix goes on with it
        )
        self.pipeline = SWCEPipeline(of_pipeline, num_samples, num_classes)

    def configure(self, setting: Setting) -> None:
        super().configure(setting)
        self.pipeline.rate, self.pipeline.decay = self.settings.pipeline_rate, setting.optim.weight_decay
        if setting.optim.epochs <= self.before:
            raise ConfigError(
                f"--epochs {setting.optim.epochs}: the pipeline of method swce_dividemix takes {self.before} of them, "
                "which leaves none for DivideMix; give more, or fewer --stages"
            )

    @property
    def before(self) -> int:
        """The epochs of the pipeline."""
        return self.pipeline.timetable.epochs

    def phase(self, epoch: int) -> Phase | None:
        return self.pipeline.phase(epoch) if epoch <= self.before else None

    def order(self, epoch: int, seed: int) -> np.ndarray | None:
        return self.pipeline.order(epoch, seed) if self.program == BEFORE else super().order(epoch, seed)

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        if self.program != BEFORE:
            super().before_step(epoch, batch, seed)

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        if self.program == BEFORE:  # takes the first view
            return self.pipeline.training_step(networks[:1], images[: len(index)], labels, index)
        return super().training_step(networks, images, labels, index)

    def end_epoch(self, run: Run) -> None:
        if run.epoch <= self.before:
            self.pipeline.end_epoch(run)
        super().end_epoch(run)

    def report(self) -> dict[str, float]:
        return super().report() if self.program != BEFORE else self.pipeline.report()

    def selections(self) -> dict[str, Selection]:
        return super().selections() if self.program != BEFORE else self.pipeline.selections()

    def corrected(self, labels: Tensor) -> Tensor:
        """What DivideMix makes of the consensus labels."""
        return super().corrected(self.pipeline.corrected(labels))

    def estimates(self, run: Run) -> Estimates | None:
        """As DivideMix's, whose confidence is in the consensus label: if that is another than the given one, the given
        one is suspected, and the confidence in it is what is left."""
        found = super().estimates(run)
        if found is None:
            return None
        relabelled = self.pipeline.corrected(run.given) != run.given
        confidence = torch.where(relabelled, 1 - found.confidence, found.confidence)
        return Estimates(found.labels, confidence, found.suspected | relabelled)
