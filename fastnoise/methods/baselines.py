"""Methods that change only the loss, and mixup: the baselines of the papers' tables."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses import (
    APLLoss,
    BootstrapLoss,
    CrossEntropyLoss,
    FocalLoss,
    GCELoss,
    MAELoss,
    SCELoss,
    SWCELoss,
)
from ..models import Network, Outputs
from ..options import MethodOptions
from .base import Forward, Method, Run
from .mixup import Mixup
from .options import SWCELossOptions
from .options_of_losses import (
    APLOptions,
    BootstrapOptions,
    FocalOptions,
    GCEOptions,
    LabelSmoothingOptions,
    MAEOptions,
    MixupOptions,
    SCEOptions,
)


class CrossEntropy(Method):
    """Plain cross-entropy on the given labels: the baseline of every table."""

    stackable = weighted = parallel = fused_head = True
    name = "ce"

    def __init__(self, options: MethodOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.criterion = CrossEntropyLoss()


class Plain(Method):
    """The task's own loss on the given labels: cross-entropy, binary cross-entropy of each label, or squared error."""

    name = "plain"
    tasks = None
    parallel = True

    def loss(self, outputs: Outputs, labels: Tensor, index: Tensor) -> Tensor:
        return self.task.loss(outputs.logits, labels)


class LabelSmoothing(Method):
    """Cross-entropy on labels smoothed towards the uniform distribution (Szegedy et al. 2016, Sec. 7)."""

    stackable = weighted = parallel = fused_head = True
    name = "label_smoothing"
    Options = LabelSmoothingOptions

    def __init__(self, options: LabelSmoothingOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.criterion = CrossEntropyLoss(label_smoothing=options.label_smoothing)


class SoftmaxWeightedCrossEntropy(Method):
    """Cross-entropy weighted by the probability of the given label (SWCE, the loss alone)."""

    stackable = weighted = parallel = fused_head = True
    name = "swce_loss"
    Options = SWCELossOptions

    def __init__(self, options: SWCELossOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.criterion = SWCELoss(weight=options.weight)


class SymmetricCrossEntropy(Method):
    """SCE (Wang et al. 2019): alpha * cross-entropy + beta * reverse cross-entropy, Eq. 7."""

    stackable = weighted = parallel = fused_head = True
    name = "sce"
    Options = SCEOptions

    def __init__(self, options: SCEOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.criterion = SCELoss(alpha=options.alpha, beta=options.beta, variant=options.variant)


class MeanAbsoluteError(Method):
    """MAE between probabilities and the one-hot label (Ghosh et al. 2017)."""

    stackable = weighted = parallel = fused_head = True
    name = "mae"
    Options = MAEOptions

    def __init__(self, options: MAEOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.criterion = MAELoss(form=options.mae)


class Focal(Method):
    """Focal loss (Lin et al. 2017, Eq. 4)."""

    stackable = weighted = parallel = fused_head = True
    name = "focal"
    Options = FocalOptions

    def __init__(self, options: FocalOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.criterion = FocalLoss(gamma=options.gamma, variant=options.variant)


class ActivePassive(Method):
    """APL (Ma et al. 2020): alpha * active + beta * passive, such as NCE + MAE, NCE + RCE or NFL + MAE."""

    stackable = weighted = parallel = fused_head = True
    name = "apl"
    Options = APLOptions

    def __init__(self, options: APLOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.criterion = APLLoss(
            active=options.active,
            passive=options.passive,
            alpha=options.alpha,
            beta=options.beta,
            gamma=options.gamma,
            mae=options.mae,
            variant=options.variant,
        )


class Bootstrap(Method):
    """Bootstrapping (Reed et al. 2015): the label mixed with the network's own prediction, soft or hard."""

    stackable = weighted = parallel = fused_head = True
    name = "bootstrap"
    Options = BootstrapOptions

    def __init__(self, options: BootstrapOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        beta = None if options.beta == "auto" else options.beta
        self.criterion = BootstrapLoss(kind=options.kind, beta=beta, variant=options.variant)


class GeneralisedCrossEntropy(Method):
    """GCE (Zhang & Sabuncu 2018), truncated by pruning as in its Algorithm 1.

    From epoch `update_from` on, samples whose label has a probability of at most k are left out: their loss is the
    constant (1 - k^q) / q, which has no gradient and is counted as 0. Which those are is read off one pass over the
    training set before that epoch, and again every `update_every` epochs. The paper takes the model that was best so
    far on a validation set, and public code the best on the test set; here it is the model as it stands, which needs
    neither. k = 0 prunes nothing.

    If no sample is left, none is pruned until the next pass.
    """

    stackable = weighted = parallel = True
    per_sample = ("kept",)
    name = "gce"
    Options = GCEOptions
    kept: Tensor

    def __init__(self, options: GCEOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.k, self.first, self.every = options.k, options.update_from, options.update_every
        self.criterion = GCELoss(q=options.q)
        self.register_buffer("kept", torch.ones(num_samples))

    def loss(self, outputs: Outputs, labels: Tensor, index: Tensor) -> Tensor:
        weight = self.kept[index]
        if self.class_weights is not None:
            weight = weight * self.class_weights[labels]
        loss: Tensor = self.criterion(outputs.logits, labels, weight=weight)
        return loss

    def end_epoch(self, run: Run) -> None:
        passed = run.epoch + 1 - self.first
        if self.k == 0 or run.epoch == 0 or passed < 0 or passed % self.every:
            return  # the last epoch is no exception: the run may go on to more

        def likely(outputs: Sequence[Outputs], index: Tensor) -> Tensor:
            probs = outputs[0].logits.softmax(1)
            return probs.gather(1, run.labels[index, None]).squeeze(1) > self.k

        self.kept.copy_(run.scan(likely))
        if not self.kept.any():
            run.warn(f"gce: no label has a probability above k = {self.k}; no sample is pruned; lower --k")
            self.kept.fill_(1)

    def report(self) -> dict[str, float]:
        return {"kept": float(self.kept.mean())}


class MixupTraining(Method):
    """Mixup (Zhang et al. 2018): cross-entropy on mixtures of images and of their labels.

    The figures of the training passes are those of the mixed images, each counted as its first image.
    """

    name = "mixup"
    parallel = True
    Options = MixupOptions

    def __init__(self, options: MixupOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.num_classes = num_classes
        self.mixup = Mixup(options.mixup_alpha)
        self.criterion = CrossEntropyLoss()

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        self.mixup.draw(epoch, batch, seed)

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        logits = networks[0](self.mixup.mix(images)).logits
        one_hot = torch.zeros(len(labels), self.num_classes, device=labels.device).scatter_(1, labels[:, None], 1.0)
        answers = logits.detach()
        unmixed = None if self.mixup.alpha else answers
        return Forward(self.criterion(logits, self.mixup.mix(one_hot)), answers.argmax(1), logits=unmixed)
