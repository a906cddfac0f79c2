"""What the labels of a sample's nearest neighbours say (Cover and Hart 1967), exactly and in bounded memory."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import DataError

BLOCK = 1 << 26
"""Similarities that are held at once: 256 MiB in float32."""


@torch.no_grad()
def neighbour_votes(features: Tensor, labels: Tensor, num_classes: int, k: int = 200) -> Tensor:
    """The share of each class among the labels of each sample's k nearest neighbours, of which the sample is one.

    Nearest are those with the largest cosine of features, each sample compared with all. As many rows of the matrix of
    cosines are made at once as BLOCK allows, so that [N, N] is never held. If there are fewer than k samples, all are
    neighbours. Of neighbours that are equally near, which ones count is left to `torch.topk`.

    Args:
        features: [N, F] floating point, of any length; those of length 0 have the cosine 0 to all.
        labels: int64 [N] in 0..num_classes-1, on the device of `features`.
        num_classes: C.
        k: at least 1.

    Returns:
        float32 [N, C], whose rows add up to 1.

    Raises:
        DataError: features and labels are not of the same samples, or k is no number of neighbours.
    """
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise DataError(f"features are {list(features.shape)} and labels {list(labels.shape)}: expected [N, F] and [N]")
    if k < 1:
        raise DataError(f"k is {k}: a sample needs at least 1 neighbour")
    directions = normalize(features.float(), dim=1)
    k = min(k, len(directions))
    votes = directions.new_zeros(len(directions), num_classes)
    one = directions.new_ones(1, 1)
    size = max(1, BLOCK // max(1, len(directions)))
    for queries, counts in zip(directions.split(size), votes.split(size), strict=True):
        nearest = (queries @ directions.T).topk(k, sorted=False).indices
        counts.scatter_add_(1, labels[nearest], one.expand(nearest.shape))
    return votes / k
