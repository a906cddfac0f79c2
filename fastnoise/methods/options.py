"""The options of all methods, one dataclass each, with published defaults. Nothing here imports torch.

Recipes change the defaults by data set and noise. Options that several methods have are declared by each of them, since
they mean something of their own in each.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from ..errors import ConfigError
from ..options import Above, AtLeast, Between, MethodOptions

# -- methods that change the loss alone ----------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelSmoothingOptions(MethodOptions):
    method: str = "label_smoothing"
    label_smoothing: Annotated[float, Between(0, 1)] = 0.1
    """Share of the target that is spread over all classes."""


@dataclass(frozen=True)
class GCEOptions(MethodOptions):
    method: str = "gce"
    q: Annotated[float, Between(0, 1, "(]")] = 0.7
    """Exponent in (0, 1]: cross-entropy near 0, mean absolute error at 1."""
    k: Annotated[float, Between(0, 1)] = 0.5
    """Samples whose label has a probability of at most k are left out; 0: none."""
    update_from: Annotated[int, AtLeast(1)] = 41
    """First epoch, counted from 1, that leaves out pruned samples."""
    update_every: Annotated[int, AtLeast(1)] = 10
    """Epochs between two prunings."""


@dataclass(frozen=True)
class SCEOptions(MethodOptions):
    method: str = "sce"
    alpha: Annotated[float, AtLeast(0)] = 0.1
    """Weight of the cross-entropy."""
    beta: Annotated[float, AtLeast(0)] = 1.0
    """Weight of the reverse term."""
    variant: Literal["paper", "code"] = "code"
    """The paper's log 0 of -4, or the code's of log 1e-4."""


@dataclass(frozen=True)
class MAEOptions(MethodOptions):
    method: str = "mae"
    mae: Literal["l1", "reduced"] = "reduced"
    """Mean absolute error as the L1 distance 2 (1 - p_y), or as 1 - p_y."""


@dataclass(frozen=True)
class FocalOptions(MethodOptions):
    method: str = "focal"
    gamma: Annotated[float, AtLeast(0)] = 0.5
    """Exponent of the factor (1 - p_y)."""


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
    """Mean absolute error as the L1 distance 2 (1 - p_y), or as 1 - p_y."""


@dataclass(frozen=True)
class BootstrapOptions(MethodOptions):
    method: str = "bootstrap"
    kind: Literal["soft", "hard"] = "soft"
    """Towards the predicted probabilities, or towards the predicted class."""
    beta: Annotated[float, Between(0, 1)] | Literal["auto"] = "auto"
    """Share of the label; auto: 0.95 soft, 0.8 hard."""


@dataclass(frozen=True)
class MixupOptions(MethodOptions):
    method: str = "mixup"
    mixup_alpha: Annotated[float, AtLeast(0)] = 1.0
    """The share of a mixture is drawn from Beta(alpha, alpha); 0: nothing is mixed."""


# -- methods that correct the loss or the labels -------------------------------------------------------------------


@dataclass(frozen=True)
class ForwardOptions(MethodOptions):
    method: str = "forward"
    warm_up: Annotated[int, AtLeast(0)] = 10
    """Epochs of plain cross-entropy, after which the transition matrix is estimated."""
    percentile: Annotated[float, Between(0, 100, "(]")] = 97.0
    """Row i of T is read off the sample most likely of class i below this percentile; 100: of all."""


@dataclass(frozen=True)
class PLCOptions(MethodOptions):
    method: str = "plc"
    warm_up: Annotated[int, AtLeast(0)] = 8
    """Epochs on the given labels before the first correction."""
    window: Annotated[int, AtLeast(1)] = 5
    """Epochs over which predictions are averaged."""
    threshold: Annotated[float, Between(0, 1)] = 0.3
    """The predicted class is taken where the given label's probability is below this share of the largest."""
    threshold_step: Annotated[float, Between(0, 1)] = 0.1
    """What is added to the threshold after an epoch that corrects less than 0.1 % of the labels, up to 0.9."""


@dataclass(frozen=True)
class SELCOptions(MethodOptions):
    method: str = "selc"
    momentum: Annotated[float, Between(0, 1, "[)")] = 0.9
    """Momentum alpha of the targets' moving average."""
    update_from: Annotated[int, AtLeast(1)] | Literal["auto"] = "auto"
    """First epoch, counted from 1, that updates the targets; auto: at the turning point, which the losses show."""


@dataclass(frozen=True)
class SELCPlusOptions(SELCOptions):
    method: str = "selc_plus"
    mixup_alpha: Annotated[float, AtLeast(0)] = 0.9
    """The share of a mixture is drawn from Beta(alpha, alpha); 0: nothing is mixed."""


# -- methods with two networks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CoTeachingOptions(MethodOptions):
    method: str = "coteaching"
    forget_rate: Annotated[float, Between(0, 1, "[)")] = 0.2
    """Share of each batch that is left out in the end: the noise rate, as well as it is known."""
    forget_epochs: Annotated[int, AtLeast(1)] = 10
    """Epochs over which the forget rate grows."""


@dataclass(frozen=True)
class DivideMixOptions(MethodOptions):
    method: str = "dividemix"
    warm_up: Annotated[int, AtLeast(0)] = 10
    """Epochs of cross-entropy on the given labels before the first division."""
    confidence_penalty: Annotated[float, AtLeast(0)] = 0.0
    """Weight of the negative entropy in the warm-up, which keeps asymmetric noise from overconfidence."""
    clean_threshold: Annotated[float, Between(0, 1, "(]")] = 0.5
    """Labels with a larger probability of being right are trusted."""
    loss_epochs: Annotated[int, AtLeast(1)] = 1
    """Epochs over which a sample's loss is averaged before the mixture is fitted."""
    sharpening: Annotated[float, Between(0, 1, "(]")] = 0.5
    """Temperature T: targets are raised to the power 1 / T."""
    mixup_alpha: Annotated[float, Above(0)] = 4.0
    """The share of a mixture is drawn from Beta(alpha, alpha)."""
    unlabelled_strength: Annotated[float, AtLeast(0)] = 25.0
    """Weight lambda_u of the loss on the samples whose labels are not trusted."""
    unlabelled_ramp: Annotated[int, AtLeast(0)] = 16
    """Epochs after the warm-up over which that weight grows."""


# -- methods with soft targets -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ELROptions(MethodOptions):
    method: str = "elr"
    strength: Annotated[float, AtLeast(0)] = 3.0
    """Weight lambda of the regulariser."""
    momentum: Annotated[float, Between(0, 1, "[)")] = 0.7
    """Momentum beta of the targets' moving average."""


@dataclass(frozen=True)
class ELRPlusOptions(MethodOptions):
    method: str = "elr_plus"
    strength: Annotated[float, AtLeast(0)] = 3.0
    """Weight lambda of the regulariser."""
    momentum: Annotated[float, Between(0, 1, "[)")] = 0.7
    """Momentum beta of the targets' moving average."""
    networks: Literal[1, 2] = 2
    """Networks: 2, each with targets from the other's average, or 1 with targets from its own."""
    mixup_alpha: Annotated[float, AtLeast(0)] = 1.0
    """The share of a mixture is drawn from Beta(alpha, alpha); 0: nothing is mixed."""
    average_momentum: Annotated[float, Between(0, 1, "[)")] = 0.997
    """Momentum of the averaged weights; 0: the weights themselves."""
    average_ramp: Annotated[int, AtLeast(0)] = 40_000
    """Steps until the averaged weights have their full momentum; 0: from the first."""
    averaged: Literal["parameters", "everything"] = "parameters"
    """What the averages follow: the parameters (authors' code), or batch norm's running statistics too."""
    strength_ramp: Annotated[int, AtLeast(0)] = 0
    """Steps over which the strength grows; 0: it is full from the first."""
    target: Literal["labels", "weighted"] = "labels"
    """Target of the cross-entropy: the mixed labels, or (authors' code, CIFAR-100) weighted by the soft targets."""


@dataclass(frozen=True)
class NALOptions(MethodOptions):
    method: str = "nal"
    strength: Annotated[float, AtLeast(0)] = 0.5
    """Weight lambda of the boost term."""
    momentum: Annotated[float, Between(0, 1, "[)")] = 0.9
    """Momentum alpha of the targets' moving average."""
    variant: Literal["paper", "code"] = "paper"
    """As in the paper's Algorithm 1, or as in the authors' code (clamps, sparse target updates)."""
    update_from: Annotated[int, AtLeast(1)] = 1
    """First epoch, counted from 1, that updates the targets."""
    update_every: Annotated[int, AtLeast(1)] = 1
    """Targets are updated in epochs divisible by this number."""
    reverse: Annotated[float, AtLeast(0)] = 0.0
    """Weight beta of RNAL, the reverse term; 0: NAL."""
    gate: Annotated[float, Between(0, 1)] = 0.0
    """NAL's delta: only samples with an attention weight above it have their targets updated."""
    target_estimation: Literal["on", "off"] = "on"
    """The targets; off: the given labels throughout, as in the ablation of the paper's Table 6."""
    attention: Literal["branch", "confidence"] = "branch"
    """The attention weight: from its branch, or the largest probability, as in the ablation of Table 6."""


# -- pretraining ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SimCLROptions(MethodOptions):
    method: str = "simclr"
    temperature: Annotated[float, Above(0)] = 0.5
    """Temperature of the NT-Xent loss."""
    projection: Annotated[int, Above(0)] = 128
    """Width of the projections."""
    jitter: Annotated[float, AtLeast(0)] = 0.5
    """Strength of the colour jitter; 0: none."""
    min_area: Annotated[float, Between(0, 1, "(]")] = 0.08
    """Least area of the crops, as a share of the image."""


# -- softmax-weighted cross-entropy, alone and in its pipeline -----------------------------------------------------


@dataclass(frozen=True)
class SWCELossOptions(MethodOptions):
    method: str = "swce_loss"
    weight: Literal["detached", "literal"] = "detached"
    """The weight p_y: a constant in the gradient, or differentiated as the formula is written."""


@dataclass(frozen=True)
class SWCEOptions(MethodOptions):
    method: str = "swce"
    weight: Literal["detached", "literal"] = "detached"
    """SWCE's weight p_y: a constant in the gradient, or differentiated as the formula is written."""
    warm_up: Annotated[int, AtLeast(0)] = 5
    """Epochs on the given labels before the first iteration."""
    stages: str = "2,3,4;2,5,7;2,5,7;2,5,7"
    """Iterations parted by semicolons, of each the epochs after which all training samples are evaluated; the last
    stage ends its iteration."""
    rate_factors: str = "1,1,0.1,0.1,0.01"
    """Factors on --learning-rate: that of the warm-up, then one per iteration."""
    decay_in: Literal["warm_up", "all"] = "warm_up"
    """Where --weight-decay holds: in the warm-up, or in the iterations too."""
    optimizer_state: Literal["fresh", "kept"] = "fresh"
    """Whether each iteration begins with a fresh optimiser."""
    train_loss: Literal["swce", "focal"] = "swce"
    """Loss to train with."""
    selection_loss: Literal["nce+mae", "focal", "ce"] = "nce+mae"
    """Loss by which samples are selected."""
    mae: Literal["l1", "reduced"] = "l1"
    """Mean absolute error of the selection as the L1 distance 2 (1 - p_y), or as 1 - p_y."""
    selection_label: Literal["predicted", "given"] = "predicted"
    """Label whose loss selects samples."""
    selection_threshold: Annotated[float, Above(0, finite=False)] = 1.0
    """A sample is selected at a stage where its loss lies below this."""
    stage_statistics: Literal["running", "batch"] = "running"
    """Batch norm's statistics when the training set is evaluated: running ones, or each batch's."""
    agreement: Literal["required", "ignored"] = "required"
    """Whether a consensus needs the same prediction at all stages."""
    label_stage: Literal["last", "first"] = "last"
    """Stage whose prediction becomes the pseudo-label."""
    pseudo_labels: Literal["recomputed", "kept"] = "recomputed"
    """Whether pseudo-labels hold for one iteration, or until a later consensus replaces them."""
    copies: Annotated[int, AtLeast(0)] = 2
    """Augmented copies of each pseudo-labelled sample that an epoch adds."""
    copies_in: Literal["training_set", "batch"] = "training_set"
    """Where copies come: anywhere in the epoch, or next to their sample in its batch."""
    gamma: Annotated[float, AtLeast(0)] = 2.0
    """Exponent of the focal losses."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_stages(self.stages)
        parse_factors(self.rate_factors)


def parse_stages(text: str) -> tuple[tuple[int, ...], ...]:
    """Read `2,3,4;2,5,7`: for each iteration the epochs, counted from 1 within it, that are stages."""
    try:
        iterations = tuple(tuple(int(epoch) for epoch in part.split(",")) for part in text.split(";"))
    except ValueError as error:
        raise ConfigError(f"--stages {text}: {error}; write for example 2,3,4;2,5,7") from None
    for stages in iterations:
        if not (stages[0] > 0 and all(a < b for a, b in pairwise(stages))):
            raise ConfigError(f"--stages {text}: give rising epochs from 1 in each iteration, for example 2,3,4;2,5,7")
    return iterations


def parse_factors(text: str) -> tuple[float, ...]:
    """Read `1,1,0.1`: positive numbers."""
    try:
        factors = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--rate-factors {text}: {error}; write for example 1,1,0.1") from None
    if not all(0 < factor < math.inf for factor in factors):
        raise ConfigError(f"--rate-factors {text}: every factor must be positive")
    return factors


OPTIONS: dict[str, type[MethodOptions]] = {
    kind.method: kind for kind in list(globals().values()) if isinstance(kind, type) and issubclass(kind, MethodOptions)
}
"""The options of fastnoise's methods by the method's name. A method that is not among them has none."""
