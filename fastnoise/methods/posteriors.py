"""What a network says of each sample while it learns, for noise that depends on the images."""

import torch
from torch import Tensor

from ..models import Outputs
from ..options import MethodOptions
from .baselines import CrossEntropy


class Posteriors(CrossEntropy):
    """Cross-entropy that keeps each sample's probabilities, as training saw them last.

    `fastnoise posteriors` writes those of the last epoch, from which PMD noise is drawn (PLC's code: the softmax in
    training mode, on augmented images, before the step that learns from them).
    """

    name = "posteriors"
    weighted = parallel = True
    learns_true_labels = True
    probs: Tensor
    """[N, C] float32"""

    def __init__(self, options: MethodOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.register_buffer("probs", torch.zeros(num_samples, num_classes))

    def loss(self, outputs: Outputs, labels: Tensor, index: Tensor) -> Tensor:
        self.probs[index] = outputs.logits.detach().float().softmax(1)
        return super().loss(outputs, labels, index)

    def exchange(self) -> None:
        self.shards.share_(self.probs)
