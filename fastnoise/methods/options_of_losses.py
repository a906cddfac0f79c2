"""The options of methods that change the loss alone, as `methods.options` has those of all others."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ..options import AtLeast, Between, MethodOptions


@dataclass(frozen=True)
class LabelSmoothingOptions(MethodOptions):
    method: str = "label_smoothing"
    label_smoothing: Annotated[float, Between(0, 1)] = 0.1
    """Share of the target that is spread evenly over all classes."""


@dataclass(frozen=True)
class GCEOptions(MethodOptions):
    method: str = "gce"
    q: Annotated[float, Between(0, 1, "(]")] = 0.7
    """Exponent in (0, 1]. Near 0 the loss is cross-entropy, at 1 it is the mean absolute error."""
    k: Annotated[float, Between(0, 1)] = 0.5
    """Pruning leaves out the samples whose given label has a probability of at most k. 0 prunes nothing."""
    update_from: Annotated[int, AtLeast(1)] = 40
    """First epoch, counted from 1, that leaves out samples."""
    update_every: Annotated[int, AtLeast(1)] = 10
    """Number of epochs after which the pruned samples are chosen anew."""


@dataclass(frozen=True)
class GJSOptions(MethodOptions):
    method: str = "gjs"
    pi: Annotated[float, Between(0, 1, "()")] = 0.3
    """Weight of the label among the distributions, in (0, 1). Near 0 the loss is cross-entropy, near 1 like MAE."""
    views: Literal[1, 2] = 2
    """Augmented views of each image, which share the rest of the weight. With 1 the loss is JS."""
    scale: Literal["on", "off"] = "on"
    """Whether the loss is scaled as between cross-entropy and MAE. off as the authors do on WebVision."""
    passes: Literal["by_view", "joint"] = "by_view"
    """Whether each view goes through the network by itself, with batch statistics of its own, or all as one batch."""


@dataclass(frozen=True)
class SCEOptions(MethodOptions):
    method: str = "sce"
    alpha: Annotated[float, AtLeast(0)] = 0.1
    """Weight of the cross-entropy."""
    beta: Annotated[float, AtLeast(0)] = 1.0
    """Weight of the reverse cross-entropy."""
    variant: Literal["paper", "code"] = "code"
    """The value that stands for log 0: -4 (paper), or log 1e-4 (authors' code)."""


@dataclass(frozen=True)
class MAEOptions(MethodOptions):
    method: str = "mae"
    mae: Literal["l1", "reduced"] = "reduced"
    """Form of the mean absolute error: l1 is 2 (1 - p_y), reduced is 1 - p_y."""


@dataclass(frozen=True)
class FocalOptions(MethodOptions):
    method: str = "focal"
    gamma: Annotated[float, AtLeast(0)] = 0.5
    """Exponent of the factor (1 - p_y)."""
    variant: Literal["paper", "code"] = "paper"
    """paper differentiates the whole loss (Lin et al.), code holds (1 - p_y)^gamma fixed (code of Ma et al.)."""


@dataclass(frozen=True)
class APLOptions(MethodOptions):
    method: str = "apl"
    active: Literal["ce", "focal", "nce", "nfl"] = "nce"
    """Active loss."""
    passive: Literal["mae", "rce"] = "mae"
    """Passive loss."""
    alpha: Annotated[float, AtLeast(0)] = 1.0
    """Weight of the active loss."""
    beta: Annotated[float, AtLeast(0)] = 1.0
    """Weight of the passive loss."""
    gamma: Annotated[float, AtLeast(0)] = 0.5
    """Exponent of the focal losses."""
    mae: Literal["l1", "reduced"] = "reduced"
    """Form of the mean absolute error: l1 is 2 (1 - p_y), reduced is 1 - p_y."""
    variant: Literal["paper", "code"] = "paper"
    """Of focal and nfl: paper differentiates them whole, code holds the factors (1 - p)^gamma fixed (authors' code)."""


@dataclass(frozen=True)
class BootstrapOptions(MethodOptions):
    method: str = "bootstrap"
    kind: Literal["soft", "hard"] = "soft"
    """soft mixes the label with the predicted probabilities, hard with the predicted class."""
    beta: Annotated[float, Between(0, 1)] | Literal["auto"] = "auto"
    """Share of the given label in the target. auto: 0.95 if kind is soft, 0.8 if it is hard."""
    variant: Literal["paper", "code"] = "paper"
    """code clips probabilities to [1e-7, 1 - 1e-7], without gradient outside, as the Keras code of the tables does."""


@dataclass(frozen=True)
class MixupOptions(MethodOptions):
    method: str = "mixup"
    mixup_alpha: Annotated[float, AtLeast(0)] = 1.0
    """Parameter alpha of Beta(alpha, alpha), from which a mixture's share is drawn. 0 mixes nothing."""
