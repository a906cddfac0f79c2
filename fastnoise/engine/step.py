"""One training step and one evaluation step: forward, loss, backward, update; compiled and under AMP."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import EngineConfig, OptimConfig, Optimizer, Schedule
from ..errors import ConfigError
from ..methods import Method
from ..models import Network

LRScheduler = torch.optim.lr_scheduler.LRScheduler


class Forward(NamedTuple):
    """What the forward half of a step gives; everything stays on the device."""

    loss: Tensor
    """Scalar, with gradient."""
    predictions: Tensor
    """[B] int64, the class of the largest logit."""
    attention: Tensor | None
    """[B] float32, NAL's attention weight tau in (0, 1)."""


def choose_device(name: str) -> torch.device:
    """The device that `--device` names; ConfigError where it isn't there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device {name}: no such device; valid: auto, cpu, cuda, cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name}: fastnoise runs on cpu and cuda")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise ConfigError(f"--device {name}: PyTorch sees {count} CUDA device(s); use --device cpu or mend the driver")
    return device


def choose_amp(setting: str, device: torch.device) -> tuple[torch.dtype | None, str]:
    """The autocast dtype (None: full precision) and the reason for it."""
    if setting == "off":
        return None, "full precision as asked"
    if setting == "auto":
        if device.type == "cpu":
            return None, "full precision: autocast is slower on CPUs without native bf16"
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "bf16: the GPU has it"
        return torch.float16, "fp16 with loss scaling: the GPU has no bf16"
    if setting == "fp16" and device.type == "cpu":
        raise ConfigError("--amp fp16 needs a GPU; on a CPU use --amp off or bf16")
    return (torch.bfloat16 if setting == "bf16" else torch.float16), f"{setting} as asked"


def choose_compile(setting: str, device: torch.device) -> tuple[bool, str]:
    """Whether the step is compiled, and the reason."""
    if setting == "auto":
        if device.type == "cuda":
            return True, "compiled: the device is a GPU"
        return False, "eager: compiling seldom pays on a CPU"
    return setting == "on", ("compiled" if setting == "on" else "eager") + " as asked"


def create_optimizer(config: OptimConfig, network: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimiser in PyTorch's fused form, which exists for CPUs and GPUs alike."""
    choice = Optimizer.parse(config.optimizer)
    parameters, rate, decay = network.parameters(), config.learning_rate, config.weight_decay
    if choice.name == "sgd":
        return torch.optim.SGD(
            parameters, rate, momentum=choice.momentum, weight_decay=decay, nesterov=choice.nesterov, fused=True
        )
    kind = torch.optim.Adam if choice.name == "adam" else torch.optim.AdamW
    return kind(parameters, rate, weight_decay=decay, fused=True)


def create_schedule(config: OptimConfig, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """The learning rate's course, stepped once per epoch."""
    choice = Schedule.parse(config.schedule)
    schedulers = torch.optim.lr_scheduler
    if choice.name == "multistep":
        return schedulers.MultiStepLR(optimizer, list(choice.milestones), choice.gamma)
    if choice.name == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, config.epochs, eta_min=choice.minimum)
    if choice.name == "cosine_restarts":
        return schedulers.CosineAnnealingWarmRestarts(optimizer, choice.period, eta_min=choice.minimum)
    return schedulers.ConstantLR(optimizer, factor=1.0, total_iters=0)


class Step:
    """Training and evaluation of one batch, eager or compiled.

    Nothing here waits for the device. Only batches of exactly `batch_size` images reach the compiled graph;
    an epoch's smaller last batch runs eagerly, so that it never makes the compiler specialise again.

    Args:
        network: on `device`, channels_last.
        method: its criterion is on `device`.
        labels: int64 [N], the given labels of the training set, on `device`; read anew at every step.
        batch_size: images in a full training batch.
    """

    def __init__(
        self,
        network: Network,
        method: Method,
        optimizer: torch.optim.Optimizer,
        labels: Tensor,
        *,
        batch_size: int,
        config: EngineConfig,
        device: torch.device,
    ):
        self.network, self.method, self.optimizer, self.labels = network, method, optimizer, labels
        self.batch_size = batch_size
        self.device_type = device.type
        self.amp, self.amp_reason = choose_amp(config.amp, device)
        self.compiled, self.compile_reason = choose_compile(config.compile, device)
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=self.amp == torch.float16)
        self._forward: Callable[[Tensor, Tensor], Forward] = self._eager_forward
        self._evaluate: Callable[[Tensor], tuple[Tensor, Tensor | None]] = self._eager_evaluate
        if self.compiled:
            self._forward = torch.compile(self._eager_forward, fullgraph=True, dynamic=False)
            self._evaluate = torch.compile(self._eager_evaluate, fullgraph=True, dynamic=False)

    def _autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self.amp is None else torch.autocast(self.device_type, self.amp)

    def _eager_forward(self, images: Tensor, index: Tensor) -> Forward:
        with self._autocast():
            outputs = self.network(images)
            loss = self.method.loss(outputs, self.labels[index], index)
        attention = None if outputs.attention is None else outputs.attention.detach().float().sigmoid()
        return Forward(loss, outputs.logits.detach().argmax(1), attention)

    def _eager_evaluate(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        with self._autocast():
            outputs = self.network(images)
        return outputs.logits.float(), None if outputs.attention is None else outputs.attention.float().sigmoid()

    def train(self, images: Tensor, index: Tensor) -> Forward:
        """One update of the network. images [B, channels, H, W] channels_last; index int64 [B]."""
        forward = self._forward if len(index) == self.batch_size else self._eager_forward
        result = forward(images, index)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(result.loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return result

    @torch.no_grad()
    def evaluate(self, images: Tensor, batch_size: int) -> tuple[Tensor, Tensor | None]:
        """Logits float32 [B, C] and attention weights [B] (or None) of one batch, in evaluation mode.

        `batch_size` is that of a full batch of the loader that `images` comes from.
        """
        return (self._evaluate if len(images) == batch_size else self._eager_evaluate)(images)
