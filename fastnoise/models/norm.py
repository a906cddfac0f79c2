"""Batch norm without its counter of batches, which nothing reads and which costs a launch a layer and step."""

from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError

COUNTER = "num_batches_tracked"


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that doesn't count batches: [B, num_features, H, W] -> the same shape, the same numbers.

    PyTorch reads the counter only where the momentum is None, to average over all batches. On CUDA raising it is a
    launch of its own, 36 in a step of ResNet-34. A state with counters, of an older run or of torchvision's networks,
    loads as before, and the counters are passed over. One without them loads in `nn.BatchNorm2d`, which keeps its own.

    ConfigError from a training batch where someone has set the momentum to None, as `torch.optim.swa_utils.update_bn`
    does: PyTorch would leave the running statistics as they are and say nothing.
    """

    _version = 1
    """Of the state's form: nn.BatchNorm2d has counters from version 2 on and asks states of version 1 for none."""

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
