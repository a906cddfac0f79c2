"""The loss of contrastive pretraining, NT-Xent."""

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DataError
from ..ops.contrastive import nt_xent_rows


def nt_xent(projections: Tensor, *, temperature: float = 0.5) -> Tensor:
    """Normalised temperature-scaled cross-entropy (Chen et al. 2020, "A Simple Framework for Contrastive Learning of
    Visual Representations", Eq. 1), the mean over all 2B views.

    Let z be the rows scaled to length 1, and s = z z^T / temperature. The loss of view i is
    log sum_{k != i} exp(s_ik) - s_ij, with j the other view of the same sample. On CUDA one kernel computes it, which
    never holds the [2B, 2B] matrix; on the CPU PyTorch's products do. Everything is float32, under autocast too:
    bfloat16 would resolve similarities near 1 / temperature to one part in 256 only.

    Args:
        projections: [2B, D] float, view after view: rows i and B + i belong together.
        temperature: positive.

    Returns:
        float32 [] (float64 for float64), differentiable.

    Raises:
        DataError: `projections` is not a matrix with an even number of rows.
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
