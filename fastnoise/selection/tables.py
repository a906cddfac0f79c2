"""Per-sample loss, prediction and confidence at several stages of training."""

import torch
from torch import Tensor, nn

from ..errors import ConfigError, nearest
from ..ops.selection import select
from ..ops.tables import FixedDtype

LOSSES = ("ce", "nce+mae")
MAE_WEIGHTS = {"l1": 2.0, "reduced": 1.0}


class StageTables(FixedDtype, nn.Module):
    """Loss, prediction and confidence of every training sample at each stage, recorded batch by batch in one pass.

    Buffers, saved in `state_dict`, [num_stages, num_samples]: `loss`, float32; `prediction`, int32, the first class
    with the highest logit; `confidence`, float32, the probability of that class. If nothing was recorded they are NaN,
    -1 and NaN. A row of NaN logits records the same three values.

    Args:
        num_stages: S.
        num_samples: N, size of the training set.
        loss: "ce", -log p_y; or "nce+mae", log p_y / sum_k log p_k plus the mean absolute error (Ma et al. 2020,
            "Normalized Loss Functions for Deep Learning with Noisy Labels").
        mae: for "nce+mae". "l1" is sum_k |y_k - p_k| = 2 (1 - p_y), as in the papers; "reduced" is 1 - p_y, as in the
            authors' code. With "l1" a loss below 1 implies p_y > 1/2; with "reduced", p_y may be far less.
    """

    loss: Tensor
    prediction: Tensor
    confidence: Tensor

    def __init__(self, num_stages: int, num_samples: int, *, loss: str = "nce+mae", mae: str = "l1"):
        super().__init__()
        for name, size in (("num_stages", num_stages), ("num_samples", num_samples)):
            if size < 1:
                raise ConfigError(f"{name} is {size}: give at least 1")
        for name, value, valid in (("loss", loss, LOSSES), ("mae", mae, tuple(MAE_WEIGHTS))):
            if value not in valid:
                raise ConfigError(f"unknown {name} {value!r}: {nearest(str(value), list(valid))}")
        self.loss_name, self.mae = loss, mae
        shape = num_stages, num_samples
        self.register_buffer("loss", torch.full(shape, float("nan"), dtype=torch.float32))
        self.register_buffer("prediction", torch.full(shape, -1, dtype=torch.int32))
        self.register_buffer("confidence", torch.full(shape, float("nan"), dtype=torch.float32))

    def record(self, stage: int, logits: Tensor, index: Tensor, labels: Tensor | None = None) -> None:
        """Write a batch's entries of one stage, in place and without gradient; nothing waits for the device.

        Args:
            stage: in 0..S-1.
            logits: [B, C] float32, float16 or bfloat16, C at least 2.
            index: [B] int64 in 0..N-1, positions in the training set, distinct within the batch.
            labels: [B] int64 in 0..C-1, whose loss is recorded. Without labels the loss of the predictions is recorded.

        Raises:
            DataError: a tensor of the wrong form, or a stage out of range. On the CPU, and within
                `fastnoise.losses.debug` on a CUDA device, also a label or index out of range. Otherwise on a CUDA
                device such a label records NaN as the loss, and such an index records nothing.
        """
        tables = self.loss, self.prediction, self.confidence
        select(logits, labels, index, *tables, stage, ce=self.loss_name == "ce", mae=MAE_WEIGHTS[self.mae])

    def clear(self) -> None:
        """Forget all stages."""
        self.loss.fill_(float("nan"))
        self.prediction.fill_(-1)
        self.confidence.fill_(float("nan"))

    def extra_repr(self) -> str:
        num_stages, num_samples = self.loss.shape
        return f"num_stages={num_stages}, num_samples={num_samples}, loss={self.loss_name!r}, mae={self.mae!r}"
