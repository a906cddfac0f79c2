"""The layers on a network's penultimate features: the classifier, and the heads that methods add."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..errors import ConfigError
from ..ops.linear import fused_linear

AUTO_FUSED_HEAD = False
"""Whether --fused-head auto fuses on CUDA: only once a GPU has shown that steps with many classes are faster by it. The
step `fused_head` of the fourth programme of benchmarks.gpu measures that; no GPU has run it yet."""


class Outputs(NamedTuple):
    """What a network returns for a batch."""

    logits: Tensor
    """[B, C]. In training batches of a network with `Network.fuse_head` they are `LinearLogits`, for one loss."""
    attention: Tensor | None = None
    """[B], the attention logit h of NAL, before the sigmoid; None without an attention branch."""
    features: Tensor | None = None
    """[B, F], the penultimate features, the input of the heads. None if they are unknown: for the mean of several
    networks, and in `Run.scan` of stacked runs."""

    def map(self, of: Callable[[Tensor], Tensor]) -> "Outputs":
        """The outputs with `of` applied to each part that is not None."""
        return Outputs(of(self.logits), *(None if part is None else of(part) for part in self[1:]))

    def take(self, rows: Tensor) -> "Outputs":
        """The outputs of these images, int64 [R]."""
        return self.map(lambda part: part[rows])


class Backbone(nn.Module):
    """A network without its classifier: images [B, channels, H, W] -> penultimate features [B, num_features]."""

    num_features: int
    smallest: ClassVar[int] = 1
    """The smallest side of an image for which every layer has at least one pixel."""

    def fit(self, images: Tensor) -> None:
        """Make frozen layers from a run's training images before it begins; only networks of FITTED do.

        images: float32 [N, channels, H, W], the first of the training set, as the network gets them in evaluation.
        """


_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
"""PyTorch's normalisation layers, of which those of other packages are subclasses."""


class Network(nn.Module):
    """A backbone, a linear classifier and, if the method asks for it, NAL's attention branch.

    Args:
        backbone: everything before the classifier.
        num_classes: C.
        attention: adds the branch h = W H + b, W in R^{1 x M}, of NAL (Lu et al. 2022, section 3.1). The loss computes
            its sigmoid (Eq. 2), because it can fuse it and keep it finite.
        head: takes the number of features and returns the layer that turns features into logits [B, C]. The default is
            a linear layer.
    """

    PARTS: ClassVar = ("backbone", "classifier", "attention", "module")
    """Its modules, by their names in a state_dict. Others a method has added for its training."""
    frozen: Literal["none", "backbone", "norm"] = "none"
    """What training leaves as it is (`freeze`)."""
    fused_head: bool = False
    """Whether training batches leave the classifier to the loss (`fuse_head`)."""

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        attention: bool = False,
        head: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        self.backbone = backbone
        size = backbone.num_features
        self.classifier: nn.Module = nn.Linear(size, num_classes) if head is None else head(size)
        self.attention = nn.Linear(backbone.num_features, 1) if attention else None

    def freeze(self, what: Literal["none", "backbone", "norm"]) -> None:
        """Let training leave the backbone, or its normalisation layers, as they are.

        They take no gradients and stay in evaluation mode, so that running statistics do not move, and a frozen
        backbone drops nothing. ConfigError if there are no normalisation layers to freeze.
        """
        self.frozen = what
        layers = self._frozen_layers()
        if what != "none" and not layers:
            raise ConfigError(f"--freeze {what}: the network has no normalisation layers; drop the option")
        for layer in layers:
            layer.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Choose training or evaluation mode for all that is not frozen."""
        super().train(mode)
        for layer in self._frozen_layers():
            layer.eval()
        return self

    def _deferred(self, features: Tensor) -> Any:
        """Logits that the loss makes."""
        layer = self.classifier
        return fused_linear(features, layer.weight, layer.bias, argmax=True)  # type: ignore[arg-type]

    def _frozen_layers(self) -> list[nn.Module]:
        if self.frozen == "none":
            return []
        body = self.module if isinstance(self, LogitsNetwork) else self.backbone
        return [body] if self.frozen == "backbone" else [layer for layer in body.modules() if isinstance(layer, _NORMS)]

    def fuse_head(self) -> bool:
        """Let the loss of training batches take features, weight and bias of the classifier (`fused_linear`), so that
        no one writes the logits [B, C]. Evaluation goes on as before. False if there is no linear classifier."""
        self.fused_head = not isinstance(self, LogitsNetwork) and type(self.classifier) is nn.Linear
        return self.fused_head

    def forward(self, images: Tensor) -> Outputs:
        features: Tensor = self.backbone(images)
        logits = self._deferred(features) if self.fused_head and self.training else self.classifier(features)
        if self.attention is None:
            return Outputs(logits, None, features)
        return Outputs(logits, torch.squeeze(self.attention(features), 1), features)


def chooses_fused_head(setting: str, device: torch.device) -> bool:
    """Whether --fused-head fuses on this device, if method and network allow it."""
    return setting == "on" or (setting == "auto" and AUTO_FUSED_HEAD and device.type == "cuda")


def joint(networks: Sequence[Network], images: Tensor) -> Outputs:
    """The answer of several networks together: one network's outputs, or the mean of the networks' logits."""
    if len(networks) == 1:
        outputs: Outputs = networks[0](images)
        return outputs
    return Outputs(torch.stack([network(images).logits for network in networks]).mean(0))


def with_mirror(answer: Callable[[Tensor], Outputs], images: Tensor, mirrored: bool = True) -> Outputs:
    """What `answer` says of images [..., H, W]; `mirrored`: the mean of what it says of them and of their mirror
    images, logits and attention logits alike, without features."""
    outputs = answer(images)
    if not mirrored:
        return outputs
    other = answer(images.flip(-1))
    attention = None
    if outputs.attention is not None and other.attention is not None:
        attention = (outputs.attention + other.attention) / 2
    return Outputs((outputs.logits + other.logits) / 2, attention)


class LogitsNetwork(Network):
    """A user's network that gives logits and no features. No head can be added to it.

    Args:
        module: images [B, channels, H, W] -> logits [B, C].
    """

    def __init__(self, module: nn.Module):
        nn.Module.__init__(self)
        self.module = module
        self.attention = None

    def forward(self, images: Tensor) -> Outputs:
        return Outputs(self.module(images))
