"""Methods that train one network with one loss: ce, elr, nal, swce."""

from torch import Tensor

from ..config import MethodConfig
from ..losses import CrossEntropyLoss, ELRLoss, NALLoss, SWCELoss
from ..models import Outputs
from .base import Method


class CrossEntropy(Method):
    """Plain cross-entropy on the given labels: the baseline of every table."""

    name = "ce"

    def __init__(self, options: MethodConfig, num_samples: int, num_classes: int):
        self.criterion = CrossEntropyLoss()


class SoftmaxWeightedCrossEntropy(Method):
    """Cross-entropy weighted by the probability of the given label (SWCE, the loss alone)."""

    name = "swce"
    options = ("weight",)

    def __init__(self, options: MethodConfig, num_samples: int, num_classes: int):
        self.criterion = SWCELoss(**options.read("weight"))


class EarlyLearningRegularization(Method):
    """ELR (Liu et al. 2020): cross-entropy + strength * log(1 - <p, t>), Eq. 6, targets by Eq. 9."""

    name = "elr"
    options = ("strength", "momentum")
    criterion: ELRLoss

    def __init__(self, options: MethodConfig, num_samples: int, num_classes: int):
        self.criterion = ELRLoss(num_samples, num_classes, **options.read("strength", "momentum"))

    def corrected(self, labels: Tensor) -> Tensor:
        return self.criterion.hard_targets(labels)


class NoiseAttention(Method):
    """NAL (Lu et al. 2022): the attention loss of Eq. 3 on the targets of Eq. 4.

    Targets are updated at every visit in the epochs e >= update_from with e divisible by update_every:
    1 and 1 is the paper's Algorithm 1; the authors' code waits for epoch `es` and then updates every tenth.
    """

    name = "nal"
    options = ("strength", "momentum", "variant", "update_from", "update_every")
    attention = True
    criterion: NALLoss

    def __init__(self, options: MethodConfig, num_samples: int, num_classes: int):
        self.criterion = NALLoss(num_samples, num_classes, **options.read("strength", "momentum", "variant"))
        self.schedule = options.read("update_from", "update_every")

    def loss(self, outputs: Outputs, labels: Tensor, index: Tensor) -> Tensor:
        return self.criterion(outputs.logits, labels, index, outputs.attention)

    def start_epoch(self, epoch: int) -> None:
        self.criterion.set_update(epoch >= self.schedule["update_from"] and epoch % self.schedule["update_every"] == 0)

    def corrected(self, labels: Tensor) -> Tensor:
        return self.criterion.hard_targets(labels)
