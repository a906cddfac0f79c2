"""The options of all methods, one dataclass each, with published defaults. Nothing here imports torch.

Those of methods that change the loss alone are in `options_of_losses`.

Recipes change the defaults by data set and noise. If several methods have an option of the same name, each declares
it, because it means something different in each.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from ..errors import ConfigError
from ..options import Above, AtLeast, Between, MethodOptions
from . import options_of_losses

# -- methods that correct the loss or the labels -------------------------------------------------------------------


@dataclass(frozen=True)
class ForwardOptions(MethodOptions):
    method: str = "forward"
    warm_up: Annotated[int, AtLeast(0)] = 10
    """Epochs of plain cross-entropy. The transition matrix is estimated after them."""
    percentile: Annotated[float, Between(0, 100, "(]")] = 97.0
    """Samples with a probability of class i at or above this percentile are ignored as outliers for row i of T.
    100 ignores none."""
    variant: Literal["paper", "code"] = "paper"
    """code clips probabilities to [1e-7, 1 - 1e-7], without gradient outside, as the authors' Keras code does."""


@dataclass(frozen=True)
class DualTOptions(MethodOptions):
    method: str = "dual_t"
    warm_up: Annotated[int, AtLeast(0)] = 20
    """Epochs of plain cross-entropy. The two factors of the transition matrix are estimated after them."""
    percentile: Annotated[float, Between(0, 100, "(]")] = 97.0
    """As of forward, for the rows of the first factor."""


@dataclass(frozen=True)
class VolMinNetOptions(MethodOptions):
    method: str = "volminnet"
    strength: Annotated[float, AtLeast(0)] = 1e-4
    """Weight lambda of log |det T|, the volume of the transition matrix T."""
    transition_optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimiser of T, without weight decay: SGD with momentum 0.9, or Adam."""
    transition_rate: Annotated[float, Above(0)] = 0.01
    """Learning rate of T. It follows --schedule as that of the network does."""
    initial: Annotated[float, Between(-20, 20)] | Literal["auto"] = "auto"
    """T's weights at first; T's flips grow with their sigmoid. auto: -2, and lower for more than ten classes."""


@dataclass(frozen=True)
class PLCOptions(MethodOptions):
    method: str = "plc"
    warm_up: Annotated[int, AtLeast(0)] = 8
    """Epochs on the given labels before the first correction."""
    window: Annotated[int, AtLeast(1)] = 5
    """Number of last epochs whose predictions are averaged."""
    threshold: Annotated[float, Between(0, 1)] = 0.3
    """A label is corrected if its probability, divided by the largest one, is below this threshold."""
    threshold_step: Annotated[float, Between(0, 1)] = 0.1
    """Added to the threshold after each epoch that corrects fewer than 0.1 % of the labels, up to 0.9."""


@dataclass(frozen=True)
class SELCOptions(MethodOptions):
    method: str = "selc"
    momentum: Annotated[float, Between(0, 1, "[)")] = 0.9
    """Momentum alpha of the targets' moving average."""
    update_from: Annotated[int, AtLeast(1)] | Literal["auto"] = "auto"
    """First epoch, counted from 1, that updates the targets. auto finds the turning point from the losses."""


@dataclass(frozen=True)
class SELCPlusOptions(SELCOptions):
    method: str = "selc_plus"
    mixup_alpha: Annotated[float, AtLeast(0)] = 0.9
    """Parameter alpha of Beta(alpha, alpha), from which a mixture's share is drawn. 0 mixes nothing."""


@dataclass(frozen=True)
class SOPOptions(MethodOptions):
    method: str = "sop"
    rate_u: Annotated[float, AtLeast(0)] = 10.0
    """Learning rate of u, what is too much in the given label."""
    rate_v: Annotated[float, AtLeast(0)] = 10.0
    """Learning rate of v, what is missing in the other classes."""


@dataclass(frozen=True)
class SOPPlusOptions(SOPOptions):
    method: str = "sop_plus"
    consistency: Annotated[float, AtLeast(0)] = 0.9
    """Weight lambda_C of the divergence between what is predicted for an image and for its strong view."""
    class_balance: Annotated[float, AtLeast(0)] = 0.1
    """Weight lambda_B of the term for balanced classes."""


@dataclass(frozen=True)
class CORESOptions(MethodOptions):
    method: str = "cores"
    strength: Annotated[float, AtLeast(0)] = 2.0
    """Weight beta of the confidence regulariser at the end of its ramp."""
    ramp_from: Annotated[int, AtLeast(0)] = 11
    """Epochs in which the regulariser has no weight yet. Then it grows linearly."""
    ramp_to: Annotated[int, AtLeast(1)] = 40
    """First epoch, counted from 1, in which the regulariser has its full weight."""
    sieve_from: Annotated[int, AtLeast(1)] = 32
    """First epoch, counted from 1, that leaves out the samples whose loss is above the mean over all classes."""
    damping: Literal["on", "off"] = "on"
    """Whether gradients are divided by 1 + beta, as the authors divide the learning rate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ramp_to <= self.ramp_from:
            raise ConfigError(f"--ramp-to {self.ramp_to} must be above --ramp-from {self.ramp_from}")


@dataclass(frozen=True)
class DISCOptions(MethodOptions):
    method: str = "disc"
    by_rate: ClassVar[tuple[str, ...]] = ("hard_strength", "threshold_momentum")
    warm_up: Annotated[int, AtLeast(0)] = 20
    """Epochs of cross-entropy on the given labels, before samples are selected."""
    threshold_momentum: Annotated[float, Between(0, 1)] = 0.99
    """Momentum of each sample's threshold, which follows the largest probability that is predicted for it."""
    hard_strength: Annotated[float, AtLeast(0)] = 1.0
    """Weight of the samples whose label passes the threshold in one view and not in the other."""
    q: Annotated[float, Between(0, 1, "(]")] = 0.7
    """Exponent in (0, 1] of their loss, generalised cross-entropy."""
    mixup_alpha: Annotated[float, Above(0)] = 5.0
    """Parameter alpha of Beta(alpha, alpha), from which a mixture's share is drawn."""


@dataclass(frozen=True)
class SSROptions(MethodOptions):
    method: str = "ssr"
    by_rate: ClassVar[tuple[str, ...]] = ("relabel_threshold",)
    relabel_threshold: Annotated[float, Between(0, 1)] = 0.9
    """A prediction replaces the given label if its probability is above this (theta_r)."""
    select_threshold: Annotated[float, Between(0, 1, "(]")] = 1.0
    """Votes of the neighbours for a sample's label, over the most votes, that select the sample (theta_s)."""
    neighbours: Annotated[int, AtLeast(1)] = 200
    """Number k of nearest neighbours that vote, the sample itself among them."""
    mixup_alpha: Annotated[float, Above(0)] = 4.0
    """Parameter alpha of Beta(alpha, alpha), from which a mixture's share is drawn."""


@dataclass(frozen=True)
class SSRPlusOptions(SSROptions):
    method: str = "ssr_plus"
    consistency: Annotated[float, AtLeast(0)] = 1.0
    """Weight lambda of the feature consistency between weak and strong views."""


@dataclass(frozen=True)
class PESOptions(MethodOptions):
    method: str = "pes"
    warm_up: Annotated[int, AtLeast(0)] = 25
    """Epochs of cross-entropy on the given labels before the refinement."""
    stage_epochs: Annotated[int, AtLeast(0)] = 7
    """Epochs in which the network's last stage and linear layer, drawn anew, are trained alone. 0 leaves them out."""
    head_epochs: Annotated[int, AtLeast(0)] = 5
    """Epochs after them in which the linear layer, drawn anew once more, is trained alone. 0 leaves them out."""
    refine_rate: Annotated[float, Above(0)] = 1e-4
    """Learning rate of Adam in both."""
    renewed: Literal["trained", "frozen"] = "trained"
    """Whether the renewed layers are trained after the refinement too. frozen as in the authors' code."""


@dataclass(frozen=True)
class PESSemiOptions(PESOptions):
    method: str = "pes_semi"
    warm_up: Annotated[int, AtLeast(0)] = 20
    """Epochs of cross-entropy on the given labels before the refinement."""
    stage_epochs: Annotated[int, AtLeast(0)] = 0
    """Epochs in which the network's last stage and linear layer, drawn anew, are trained alone. 0 leaves them out."""
    sharpening: Annotated[float, Between(0, 1, "(]")] = 0.5
    """Temperature T. Targets of unlabelled samples are raised to the power 1 / T and normalised."""
    mixup_alpha: Annotated[float, Above(0)] = 4.0
    """Parameter alpha of Beta(alpha, alpha), from which a mixture's share is drawn."""
    late_mixup_alpha: Annotated[float, Above(0)] = 0.75
    """The same from the epoch --late-from on."""
    late_from: Annotated[int, AtLeast(1)] = 156
    """First epoch, counted from 1, with --late-mixup-alpha."""
    unlabelled_strength: Annotated[float, AtLeast(0)] = 150.0
    """Weight lambda_u of the loss on the samples whose labels are not predicted."""
    unlabelled_ramp: Annotated[int, AtLeast(0)] = 16
    """Epochs after the refinement in which lambda_u grows from 0."""


# -- methods with two networks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CoTeachingOptions(MethodOptions):
    method: str = "coteaching"
    by_rate: ClassVar[tuple[str, ...]] = ("forget_rate",)
    forget_rate: Annotated[float, Between(0, 1, "[)")] = 0.2
    """Share of each batch that is left out at the end of the ramp. Give the noise rate, or your best estimate of it."""
    forget_epochs: Annotated[int, AtLeast(1)] = 10
    """Epochs in which the share that is left out grows from 0 to the forget rate."""
    variant: Literal["paper", "code"] = "paper"
    """paper reaches the forget rate in the last of these epochs (Algorithm 1), code an epoch earlier."""


@dataclass(frozen=True)
class JoCoROptions(CoTeachingOptions):
    method: str = "jocor"
    by_rate: ClassVar[tuple[str, ...]] = ("forget_rate", "strength")
    strength: Annotated[float, Between(0, 1)] = 0.1
    """Weight lambda of the disagreement of the networks. That of their cross-entropies is 1 - lambda."""


@dataclass(frozen=True)
class DivideMixOptions(MethodOptions):
    method: str = "dividemix"
    by_rate: ClassVar = ("clean_threshold", "loss_epochs", "unlabelled_strength")
    warm_up: Annotated[int, AtLeast(0)] = 10
    """Epochs of cross-entropy on the given labels before the first division."""
    confidence_penalty: Annotated[float, AtLeast(0)] = 0.0
    """Weight of the negative entropy in the warm-up. With asymmetric noise it keeps the network from overconfidence."""
    clean_threshold: Annotated[float, Between(0, 1, "(]")] = 0.5
    """A label is trusted if its probability of being right is above this."""
    loss_epochs: Annotated[int, AtLeast(1)] = 1
    """Epochs over which a sample's loss is averaged before the mixture is fitted."""
    sharpening: Annotated[float, Between(0, 1, "(]")] = 0.5
    """Temperature T. Targets are raised to the power 1 / T and normalised."""
    mixup_alpha: Annotated[float, Above(0)] = 4.0
    """Parameter alpha of Beta(alpha, alpha), from which a mixture's share is drawn."""
    unlabelled_strength: Annotated[float, AtLeast(0)] = 25.0
    """Weight lambda_u of the loss on the samples whose labels are not trusted."""
    unlabelled_ramp: Annotated[int, AtLeast(0)] = 16
    """Epochs after the warm-up in which lambda_u grows from 0."""


@dataclass(frozen=True)
class AugDescOptions(DivideMixOptions):
    method: str = "augdesc"
    warm_up_view: Literal["weak", "strong"] = "weak"
    """Whether the warm-up learns a weak view of each sample, or one that --augment's RandAugment or AutoAugment
    changes."""


@dataclass(frozen=True)
class ProMixOptions(MethodOptions):
    method: str = "promix"
    by_rate: ClassVar[tuple[str, ...]] = ("keep_from", "keep_to")
    warm_up: Annotated[int, AtLeast(0)] = 10
    """Epochs of cross-entropy on the given labels before samples are chosen."""
    confidence_penalty: Annotated[float, AtLeast(0)] = 0.0
    """Weight of the negative entropy in the warm-up, against overconfidence under asymmetric noise."""
    keep_from: Annotated[float, Between(0, 1)] = 0.2
    """Share of the samples of a class of mean size that are chosen of each class by their losses, at the beginning."""
    keep_to: Annotated[float, Between(0, 1)] = 0.6
    """The same share at the end of its ramp (rho)."""
    keep_ramp: Annotated[int, AtLeast(0)] = 50
    """Epochs from the run's first one in which the share changes."""
    threshold: Annotated[float, Between(0, 1)] = 0.99
    """A given label, or a guess of both networks, is learnt from this probability on (tau)."""
    debias: Annotated[float, AtLeast(0)] = 0.8
    """Weight of the mean prediction's logarithm, added to logits that are learnt and taken away from guesses."""
    prior_momentum: Annotated[float, Between(0, 1)] = 0.9999
    """Momentum of the mean predictions."""
    mixup_alpha: Annotated[float, Above(0)] = 4.0
    """Parameter alpha of Beta(alpha, alpha), from which a mixture's share is drawn."""
    strong_ramp: Annotated[int, AtLeast(0)] = 50
    """Epochs in which the weight of strong views and mixtures grows from 0 to 1."""
    guess_from: Annotated[int, AtLeast(1)] = 352
    """First epoch, counted from 1, that learns samples whose class both networks guess alike."""
    guess_share: Annotated[float, Between(0, 1)] = 0.9
    """Such samples are learnt up to this share of a batch."""
    rest_strength: Annotated[float, AtLeast(0)] = 0.1
    """Weight of the samples that are left, in the loss of the pseudo head."""
    rest_ramp: Annotated[int, AtLeast(0)] = 100
    """Epochs in which it grows from 0."""
    rest_until: Annotated[int, AtLeast(0)] = 0
    """Last epoch, counted from 1, with this weight; 0: to the end. 100 as in the authors' code."""


# -- methods with soft targets -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ELROptions(MethodOptions):
    method: str = "elr"
    strength: Annotated[float, AtLeast(0)] = 3.0
    """Weight lambda of the regulariser."""
    momentum: Annotated[float, Between(0, 1, "[)")] = 0.7
    """Momentum beta of the targets' moving average."""
    update_from: Annotated[int, AtLeast(1)] = 1
    """First epoch, counted from 1, that updates the targets. Before it targets are 0, and the loss is cross-entropy."""


@dataclass(frozen=True)
class ELRPlusOptions(MethodOptions):
    method: str = "elr_plus"
    strength: Annotated[float, AtLeast(0)] = 3.0
    """Weight lambda of the regulariser."""
    momentum: Annotated[float, Between(0, 1, "[)")] = 0.7
    """Momentum beta of the targets' moving average."""
    networks: Literal[1, 2] = 2
    """Number of networks. With 2, each gets its targets from the other's averaged weights; with 1, from its own."""
    mixup_alpha: Annotated[float, AtLeast(0)] = 1.0
    """Parameter alpha of Beta(alpha, alpha), from which a mixture's share is drawn. 0 mixes nothing."""
    average_momentum: Annotated[float, Between(0, 1, "[)")] = 0.997
    """Momentum of the averaged weights. 0 uses the weights themselves."""
    average_ramp: Annotated[int, AtLeast(0)] = 40_000
    """Steps until the averaged weights have their full momentum. 0: full from the first step."""
    averaged: Literal["parameters", "everything"] = "parameters"
    """What is averaged: only the parameters (authors' code), or batch norm's running statistics too."""
    strength_ramp: Annotated[int, AtLeast(0)] = 0
    """Steps in which the strength grows. 0: full from the first step."""
    target: Literal["labels", "weighted"] = "labels"
    """Target of the cross-entropy: the mixed labels, or these weighted by soft targets (authors' code, CIFAR-100)."""


@dataclass(frozen=True)
class NALOptions(MethodOptions):
    method: str = "nal"
    strength: Annotated[float, AtLeast(0)] = 0.5
    """Weight lambda of the boost term."""
    momentum: Annotated[float, Between(0, 1, "[)")] = 0.9
    """Momentum alpha of the targets' moving average."""
    variant: Literal["paper", "code"] = "paper"
    """paper follows Algorithm 1, code follows the authors' code (clamps, rare updates of the targets)."""
    update_from: Annotated[int, AtLeast(1)] = 1
    """First epoch, counted from 1, that updates the targets."""
    update_every: Annotated[int, AtLeast(1)] = 1
    """Targets are updated in the epochs whose number is divisible by this."""
    reverse: Annotated[float, AtLeast(0)] = 0.0
    """Weight beta of the reverse term of RNAL. 0 is NAL."""
    gate: Annotated[float, Between(0, 1)] = 0.0
    """Threshold delta. Only samples with a larger attention weight get their targets updated."""
    target_estimation: Literal["on", "off"] = "on"
    """Whether targets are estimated. off keeps the given labels as targets (ablation of the paper's Table 6)."""
    attention: Literal["branch", "confidence"] = "branch"
    """The attention weight: output of its own branch, or the largest probability (ablation of the paper's Table 6)."""


# -- pretraining ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SimCLROptions(MethodOptions):
    pictures: ClassVar = True
    method: str = "simclr"
    temperature: Annotated[float, Above(0)] = 0.5
    """Temperature of the NT-Xent loss."""
    projection: Annotated[int, Above(0)] = 128
    """Number of outputs of the projection head."""
    jitter: Annotated[float, AtLeast(0)] = 0.5
    """Strength of the colour jitter. 0 switches it off."""
    min_area: Annotated[float, Between(0, 1, "(]")] = 0.08
    """Smallest area of a random crop, as a share of the image."""


@dataclass(frozen=True)
class C2DOptions(DivideMixOptions, SimCLROptions):
    method: str = "c2d"
    pretrain_epochs: Annotated[int, AtLeast(1)] = 30
    """Epochs of SimCLR before those of DivideMix. --epochs counts both."""
    pretrain_rate: Annotated[float, Above(0)] = 0.125
    """Learning rate at the start of these epochs. It falls to 0 along a cosine."""


# -- softmax-weighted cross-entropy, alone and in its pipeline -----------------------------------------------------


@dataclass(frozen=True)
class SWCELossOptions(MethodOptions):
    method: str = "swce_loss"
    weight: Literal["detached", "literal"] = "detached"
    """detached treats the weight p_y as a constant in the gradient, literal differentiates it too."""


@dataclass(frozen=True)
class SWCEOptions(MethodOptions):
    method: str = "swce"
    weight: Literal["detached", "literal"] = "detached"
    """detached treats SWCE's weight p_y as a constant in the gradient, literal differentiates it too."""
    warm_up: Annotated[int, AtLeast(0)] = 5
    """Epochs on the given labels before the first iteration."""
    stages: str = "2,3,4;2,5,7;2,5,7;2,5,7"
    """Stages of each iteration: the epochs after which all training samples are evaluated. The last one ends it.
    Semicolons separate the iterations, commas the epochs."""
    rate_factors: str = "1,1,0.1,0.1,0.01"
    """Factors that multiply --learning-rate: one for the warm-up, then one for each iteration."""
    decay_in: Literal["warm_up", "all"] = "warm_up"
    """Where --weight-decay applies: in the warm-up only, or in the iterations too."""
    optimizer_state: Literal["fresh", "kept"] = "fresh"
    """Whether each iteration begins with a fresh optimiser or keeps the state of the one before."""
    train_loss: Literal["swce", "focal"] = "swce"
    """Loss of the training steps."""
    selection_loss: Literal["nce+mae", "focal", "ce"] = "nce+mae"
    """Loss that selects samples."""
    mae: Literal["l1", "reduced"] = "l1"
    """Form of the mean absolute error in the selection: l1 is 2 (1 - p_y), reduced is 1 - p_y."""
    selection_label: Literal["predicted", "given"] = "predicted"
    """Label for which the selection loss is computed."""
    selection_threshold: Annotated[float, Above(0, finite=False)] = 1.0
    """A stage selects the samples whose loss is below this."""
    stage_statistics: Literal["running", "batch"] = "running"
    """Statistics of batch norm when a stage evaluates the training set: the running ones, or each batch's own."""
    agreement: Literal["required", "ignored"] = "required"
    """Whether the consensus requires the same prediction at all stages."""
    label_stage: Literal["last", "first"] = "last"
    """Stage whose prediction becomes the pseudo-label."""
    pseudo_labels: Literal["recomputed", "kept"] = "recomputed"
    """recomputed keeps pseudo-labels for one iteration, kept until a later consensus replaces them."""
    copies: Annotated[int, AtLeast(0)] = 2
    """Number of augmented copies that an epoch adds for each pseudo-labelled sample."""
    copies_in: Literal["training_set", "batch"] = "training_set"
    """Where copies are placed: anywhere in the epoch, or in the batch of their sample."""
    gamma: Annotated[float, AtLeast(0)] = 2.0
    """Exponent of the focal losses."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_stages(self.stages)
        parse_factors(self.rate_factors)


@dataclass(frozen=True)
class SWCEDivideMixOptions(DivideMixOptions):
    method: str = "swce_dividemix"
    pipeline_warm_up: Annotated[int, AtLeast(0)] = 5
    """Epochs of the SWCE pipeline on the given labels before its first iteration. --epochs counts the pipeline's
    epochs and DivideMix's."""
    pipeline_rate: Annotated[float, Above(0)] = 0.02
    """Learning rate of the pipeline. The factors of --rate-factors multiply it."""
    stages: str = "2,3,4;2,5,7;2,5,7;2,5,7"
    """Stages of each iteration of the pipeline: the epochs after which all training samples are evaluated. The last
    one ends it. Semicolons separate the iterations, commas the epochs."""
    rate_factors: str = "1,1,0.1,0.1,0.01"
    """Factors that multiply --pipeline-rate: one for the pipeline's warm-up, then one for each iteration."""
    train_loss: Literal["swce", "focal"] = "swce"
    """Loss of the pipeline's training steps."""
    selection_loss: Literal["nce+mae", "focal", "ce"] = "nce+mae"
    """Loss that selects samples for the consensus."""
    selection_threshold: Annotated[float, Above(0, finite=False)] = 1.0
    """A stage selects the samples whose loss is below this."""
    copies: Annotated[int, AtLeast(0)] = 2
    """Number of augmented copies that an epoch of the pipeline adds for each pseudo-labelled sample."""
    gamma: Annotated[float, AtLeast(0)] = 2.0
    """Exponent of the focal losses."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_stages(self.stages)
        parse_factors(self.rate_factors)


def parse_stages(text: str) -> tuple[tuple[int, ...], ...]:
    """Read `2,3,4;2,5,7`: the stages of each iteration, as epochs counted from 1 within it."""
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
    kind.method: kind
    for kind in [*vars(options_of_losses).values(), *globals().values()]
    if isinstance(kind, type) and issubclass(kind, MethodOptions)
}
"""The options of fastnoise's methods, by the method's name. A method that is missing here has no options."""
