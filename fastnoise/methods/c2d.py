"""C2D (Zheltonozhskii et al. 2022, "Contrast to Divide", arXiv:2103.13646): SimCLR, then DivideMix."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..errors import ConfigError
from ..models import Network
from .base import Forward, Phase, Run, Setting
from .dividemix import BEFORE, DivideMixAfter
from .options import C2DOptions
from .simclr import SimCLR


class C2D(DivideMixAfter):
    """DivideMix on networks whose backbones SimCLR has trained, in one run.

    For `pretrain_epochs` epochs the first network learns as `SimCLR` trains it, without labels, with a learning rate
    that falls from `pretrain_rate` to 0 along a cosine. The second network then gets its backbone. Their heads, drawn
    apart, have not been trained. What follows is a run of DivideMix over the other epochs, with the optimiser, schedule
    and warm-up of a run of its own. Until then accuracies say nothing: no classifier has seen a label.
    """

    name = "c2d"
    parallel = True
    Options = C2DOptions
    features = True
    full_precision_images = True  # as SimCLR's
    settings: C2DOptions

    def __init__(self, options: C2DOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.simclr = SimCLR(options, num_samples, num_classes)

    def configure(self, setting: Setting) -> None:
        super().configure(setting)
        self.simclr.configure(setting)
        self.weight_decay = setting.optim.weight_decay
        if setting.optim.epochs <= self.before:
            raise ConfigError(
                f"--epochs {setting.optim.epochs}: method c2d pretrains for {self.before} of them, which leaves none "
                "for DivideMix; give more, or a lower --pretrain-epochs"
            )

    def attach(self, networks: Sequence[Network]) -> None:
        self.simclr.attach(networks)

    @property
    def before(self) -> int:
        return self.settings.pretrain_epochs

    def phase(self, epoch: int) -> Phase | None:
        if epoch > self.before:
            return None
        share = (1 + math.cos(math.pi * (epoch - 1) / self.before)) / 2
        return Phase(self.settings.pretrain_rate * share, self.weight_decay, fresh=False)

    def order(self, epoch: int, seed: int) -> np.ndarray | None:
        return None if self.program == BEFORE else super().order(epoch, seed)

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        if self.program == BEFORE:
            self.simclr.before_step(epoch, batch, seed)
        else:
            super().before_step(epoch, batch, seed)

    def end_epoch(self, run: Run) -> None:
        if run.epoch <= self.before:
            self.simclr.end_epoch(run)
        super().end_epoch(run)

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        if self.program == BEFORE:
            features, loss = self.simclr.contrast(networks[0], images)
            return Forward(loss, networks[0].classifier(features[: len(index)].detach()).argmax(1))
        return super().training_step(networks, images, labels, index)
