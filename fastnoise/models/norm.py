"""Batch norm without the counter of batches. Nothing reads the counter, and it costs a launch per layer and step."""

from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError

COUNTER = "num_batches_tracked"


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that doesn't count batches: [B, num_features, H, W] -> the same shape, the same numbers.

    PyTorch reads the counter only if the momentum is None, to average over all batches. On CUDA each layer needs a
    launch to raise it, 36 in a step of ResNet-34. A state with counters, from an older run or from torchvision, loads
    as before; the counters are ignored. A state without counters loads in `nn.BatchNorm2d`, which keeps its own
    counter.

    A training batch raises ConfigError if the momentum is None, as `torch.optim.swa_utils.update_bn` sets it: PyTorch
    would silently leave the running statistics unchanged.
    """

    _version = 1
    """Version of the state's form. nn.BatchNorm2d has counters since version 2, and needs none in version 1 states."""

    def __init__(self, num_features: int):
        super().__init__(num_features)
        self.num_batches_tracked = None

    def reset_running_stats(self) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        self.running_mean.zero_()
        self.running_var.fill_(1)

    def forward(self, images: Tensor) -> Tensor:
        if self.momentum is None and self.training:
            raise ConfigError("fastnoise's batch norm counts no batches: give it a momentum, such as 0.1, not None")
        return super().forward(images)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.pop(prefix + COUNTER, None)
        # Not batch norm's own form of it, which would put a counter into states of version 1.
        nn.Module._load_from_state_dict(self, state_dict, prefix, *rest)
