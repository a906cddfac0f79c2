"""Dual-T (Yao et al. 2020, "Dual T: Reducing Estimation Error for Transition Matrix in Label-noise Learning")."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .correction import EstimatedTransition, transition_from
from .options import DualTOptions


class DualT(EstimatedTransition):
    """Forward correction with T as the product of two matrices.

    The network's prediction stands between the true class and the given label. T_club[true, predicted] is what the
    network predicts for the sample that it takes most surely for a class, which is all of T to `forward`. It holds for
    these samples alone, and is as far off as the network's probabilities. T_spade[predicted, given] is counted: the
    shares of the given labels among the samples for which a class is predicted. T = T_club T_spade.

    A class that is predicted for no sample has no row in T_spade. The rows of T are then divided by their sums.
    """

    weighted = parallel = fused_head = True
    name = "dual_t"
    Options = DualTOptions

    def estimate(self, sure: NDArray[np.float64], predictions: Tensor, given: Tensor) -> NDArray[np.float64]:
        num_classes = len(sure)
        pairs = torch.bincount(predictions * num_classes + given, minlength=num_classes**2)
        counts = pairs.view(num_classes, num_classes).cpu().double().numpy()
        return transition_from(sure @ (counts / counts.sum(1, keepdims=True).clip(min=1)))
