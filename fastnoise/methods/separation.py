"""SOP (Liu et al. 2022, "Robust Training under Label Noise by Over-parameterization")."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ..losses import SOPLoss
from ..models import Network
from .base import Estimates, Forward, Run
from .options import SOPOptions, SOPPlusOptions
from .scan import by_blocks
from .single import TargetMethod


class SparseOverparameterization(TargetMethod):
    """Cross-entropy and squared error on predictions to which the noise of each label is added (`SOPLoss`).

    The noise is made of parameters of the sample, u and v, which the loss moves with rates of their own. They begin
    near 0, by numbers that depend on the run's seed, and grow fastest where a label contradicts the network. What is
    left of a label without its noise is the method's estimate.
    """

    weighted = parallel = fused_head = True
    name = "sop"
    Options = SOPOptions
    criterion: SOPLoss

    def __init__(self, options: SOPOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.criterion = SOPLoss(
            num_samples,
            num_classes,
            rate_u=options.rate_u,
            rate_v=options.rate_v,
            balance=options.class_balance if isinstance(options, SOPPlusOptions) else 0.0,
        )

    def end_epoch(self, run: Run) -> None:
        if run.epoch == 0:
            self.criterion.start(run.seed)

    def corrected(self, labels: Tensor) -> Tensor:
        return self.cleaned(labels)[0]

    def cleaned(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """The class that has most of each label without its noise, int64 [N], and the given class's share of it,
        float32 [N] in [0, 1]."""
        own, table = self.shards.own(given), self.criterion.targets

        def of_rows(rows: slice) -> tuple[Tensor, Tensor]:
            cleaned = self.criterion.cleaned(table[rows].to(own.device), own[rows])
            shares = cleaned.gather(1, own[rows, None]).squeeze(1) / cleaned.sum(1)
            return cleaned.argmax(1), shares.where(cleaned.any(1), 0.0)

        classes, shares = by_blocks(of_rows, table)
        return self.shards.join(classes, len(given)), self.shards.join(shares, len(given))

    def estimates(self, run: Run) -> Estimates:
        """Confidence: the given label's share of what is left of the label without its noise."""
        corrected, confidence = self.cleaned(run.given)
        return Estimates(corrected, confidence, corrected != run.given)


class SparseOverparameterizationPlus(SparseOverparameterization):
    """SOP with consistency between two views and balanced classes (SOP+).

    Two views of each image go through the network as one batch. SOP's loss is that of the first, with the term for
    balanced classes (`SOPLoss`, balance), and `consistency` weighs KL(p_1 || p_2), whose gradient reaches the second
    alone. The loader's augmentation makes the views, and its AutoAugment leaves the first one out. Several processes
    balance the classes of a batch each.
    """

    weighted = parallel = True
    name = "sop_plus"
    Options = SOPPlusOptions
    views = 2

    def __init__(self, options: SOPPlusOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.consistency = options.consistency

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        first, second = networks[0](images).logits.chunk(2)
        loss = self.criterion(first, labels, index, **self.weight_of(labels))
        probs = first.detach().float().softmax(1)
        apart = F.kl_div(second.float().log_softmax(1), probs, reduction="batchmean")
        answers = first.detach()
        return Forward(loss + self.consistency * apart, answers.argmax(1), logits=answers)
