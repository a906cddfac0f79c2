"""The loss of contrastive pretraining, NT-Xent."""

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DataError
from ..ops.contrastive import nt_xent_rows


def nt_xent(projections: Tensor, *, temperature: float = 0.5) -> Tensor:
    """Normalised temperature-scaled cross-entropy (Chen et al. 2020, "A Simple Framework for Contrastive Learning of
    Visual Representations", Eq. 1), the mean over all 2B views.

    With z the rows scaled to length 1 and s = z z^T / temperature, view i's loss is log sum_{k != i} exp(s_ik) - s_ij,
    j the other view of its sample. One op: on CUDA a kernel that never holds the [2B, 2B] matrix, on the CPU PyTorch's
    products. All is float32 under autocast too: in bfloat16 similarities near 1 / temperature would be told apart to
    one part in 256 only.

    Args:
        projections: [2B, D] float, view after view: rows i and B + i belong together.
        temperature: positive.

    Returns:
        float32 [] (float64 for float64), differentiable.

    Raises:
        DataError: not a matrix with an even number of rows.
    """
    if projections.ndim != 2 or len(projections) % 2 or not len(projections):
        raise DataError(f"projections are {list(projections.shape)}; expected [2B, D], two views of B samples")
    with torch.autocast(projections.device.type, enabled=False):
        wide = projections if projections.dtype == torch.float64 else projections.float()
        directions = nn.functional.normalize(wide, dim=1)
        return nt_xent_rows(directions, temperature).mean()


class NTXentLoss(nn.Module):
    """`nt_xent` as a module: called with projections [2B, D].

    Args:
        temperature: positive and finite; ConfigError otherwise.
    """

    def __init__(self, *, temperature: float = 0.5):
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise ConfigError(f"temperature is {temperature}: it must be positive and finite")
        self.temperature = temperature

    def forward(self, projections: Tensor) -> Tensor:
        return nt_xent(projections, temperature=self.temperature)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature!r}"
