"""The configuration of a run: nested frozen dataclasses, checked when built.

Every field has a name of its own across the groups, so that the command line and TOML files use flat names
(`--learning-rate`, `learning_rate = 0.02`). Recipes give the defaults (`fastnoise.recipes`).
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from . import own
from .data import names as data_names
from .errors import ConfigError, DataError, alternatives, nearest
from .models import names as model_names
from .noise import names as noise_names


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


def parse_spec(text: str, flag: str, names: tuple[str, ...]) -> tuple[str, list[str], dict[str, str]]:
    """Split `NAME[:VALUE,...,KEY=VALUE,...]` into its name, plain values and keyed values."""
    name, _, rest = text.partition(":")
    if name not in names:
        raise ConfigError(f"{flag} {text}: unknown name {name!r}; {nearest(name, list(names))}")
    parts = [part.strip() for part in rest.split(",")] if rest else []
    keyed = dict(part.split("=", 1) for part in parts if "=" in part)
    return name, [part for part in parts if "=" not in part], keyed


def parse_stages(text: str) -> tuple[tuple[int, ...], ...]:
    """Read `2,3,4;2,5,7`: for each iteration the epochs, counted from 1 within it, that are stages."""
    try:
        iterations = tuple(tuple(int(epoch) for epoch in part.split(",")) for part in text.split(";"))
    except ValueError as error:
        raise ConfigError(f"--stages {text}: {error}; write for example 2,3,4;2,5,7") from None
    for stages in iterations:
        _require(
            stages[0] > 0 and all(a < b for a, b in pairwise(stages)),
            f"--stages {text}: give rising epochs from 1 in each iteration, for example 2,3,4;2,5,7",
        )
    return iterations


def parse_factors(text: str) -> tuple[float, ...]:
    """Read `1,1,0.1`: positive numbers."""
    try:
        factors = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--rate-factors {text}: {error}; write for example 1,1,0.1") from None
    _require(all(0 < factor < math.inf for factor in factors), f"--rate-factors {text}: every factor must be positive")
    return factors


@dataclass(frozen=True)
class Schedule:
    """The learning rate over epochs, as `--schedule` spells it."""

    name: str
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    period: int = 0
    minimum: float = 0.0

    NAMES = ("constant", "multistep", "cosine", "cosine_restarts", "linear")

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Read `constant`, `multistep:40,80,gamma=0.01`, `cosine:min=0.001`, `cosine_restarts:10,min=0.001` or
        `linear:80`, which falls to 0 from epoch 80 on."""
        flag = "--schedule"
        name, plain, keyed = parse_spec(text, flag, cls.NAMES)
        allowed = {"multistep": ("gamma",), "cosine": ("min",), "cosine_restarts": ("min",)}.get(name, ())
        for key in keyed:
            _require(key in allowed, f"{flag} {text}: {name} has no option {key!r}; {nearest(key, list(allowed))}")
        try:
            numbers = tuple(int(part) for part in plain)
            values = {key: float(value) for key, value in keyed.items()}
        except ValueError as error:
            raise ConfigError(f"{flag} {text}: {error}; write for example multistep:40,80,gamma=0.1") from None
        if name == "multistep":
            _require(
                bool(numbers) and numbers[0] > 0 and all(a < b for a, b in pairwise(numbers)),
                f"{flag} {text}: give rising epochs, for example multistep:40,80,gamma=0.1",
            )
            gamma = values.get("gamma", 0.1)
            _require(0 < gamma <= 1, f"{flag} {text}: gamma must lie in (0, 1]")
            return cls(name, milestones=numbers, gamma=gamma)
        if name == "linear":
            _require(len(numbers) == 1 and numbers[0] >= 0, f"{flag} {text}: give one epoch, for example linear:80")
            return cls(name, milestones=numbers)
        if name == "cosine_restarts":
            _require(
                len(numbers) == 1 and numbers[0] > 0,
                f"{flag} {text}: give one period in epochs, for example cosine_restarts:10,min=0.001",
            )
        else:
            _require(not numbers, f"{flag} {text}: {name} takes no plain numbers")
        minimum = values.get("min", 0.0)
        _require(minimum >= 0 and math.isfinite(minimum), f"{flag} {text}: min must be a rate of 0 or more")
        return cls(name, period=numbers[0] if numbers else 0, minimum=minimum)


@dataclass(frozen=True)
class Optimizer:
    """The optimiser, as `--optimizer` spells it."""

    name: str
    momentum: float = 0.0
    nesterov: bool = False

    NAMES = ("sgd", "adam", "adamw")

    @classmethod
    def parse(cls, text: str) -> "Optimizer":
        """Read `sgd` (momentum 0.9), `sgd:momentum=0`, `sgd:momentum=0.9,nesterov`, `adam` or `adamw`."""
        flag = "--optimizer"
        name, plain, keyed = parse_spec(text, flag, cls.NAMES)
        if name != "sgd":
            _require(not plain and not keyed, f"{flag} {text}: {name} takes no options here")
            return cls(name)
        _require(
            set(plain) <= {"nesterov"} and set(keyed) <= {"momentum"},
            f"{flag} {text}: sgd takes momentum=NUMBER and nesterov, for example sgd:momentum=0.9,nesterov",
        )
        try:
            momentum = float(keyed.get("momentum", 0.9))
        except ValueError as error:
            raise ConfigError(f"{flag} {text}: {error}; write for example sgd:momentum=0.9") from None
        _require(0 <= momentum < 1, f"{flag} {text}: momentum must lie in [0, 1)")
        _require(momentum > 0 or not plain, f"{flag} {text}: nesterov needs momentum")
        return cls(name, momentum, nesterov=bool(plain))


@dataclass(frozen=True)
class DataConfig:
    dataset: Annotated[str, arg(help=f"Data set: {alternatives(data_names.FORMS)}.")] = "digits"
    data_root: str = "data"
    """Folder that holds the data sets, in torchvision's layout; a folder you name must exist."""
    download: bool = True
    """Download a data set that is not under data-root."""
    limit_train: int | None = None
    """Train on the first so many training images only; evaluation stays on the whole test set."""
    val_fraction: float = 0.0
    """Share of the training set held out for validation, drawn per class; its labels are noisy too."""
    image_size: int | None = None
    """Side to which the images of a folder are resized; None: their own size, or 224 if sizes differ."""
    crop_padding: int = 4
    """Zero padding of the random crop in training, in pixels; 0 switches the crop off."""
    flip: bool = True
    """Flip training images left to right with probability 1/2."""
    batch_size: int = 128
    """Images per training step."""
    drop_last: bool = False
    """Leave out the last, smaller batch of an epoch."""
    loader: Literal["auto", "dali", "resident", "synthetic", "torch"] = "auto"
    """Input pipeline; auto takes resident for images in memory (on CUDA if they fit there), else DALI where it is
    installed, else torch. synthetic gives noise for images, to measure training without loading."""
    loader_threads: int = 2
    """CPU threads of the input pipeline."""

    def __post_init__(self) -> None:
        _require(
            self.limit_train is None or self.limit_train > 0, f"--limit-train must be positive, not {self.limit_train}"
        )
        _require(0 <= self.val_fraction < 1, f"--val-fraction must lie in [0, 1), not {self.val_fraction}")
        _require(
            self.image_size is None or self.image_size > 0, f"--image-size must be positive, not {self.image_size}"
        )
        _require(
            self.image_size is None or self.dataset.startswith("folder:"),
            f"--image-size resizes the images of folder:PATH; {self.dataset} has a fixed size",
        )
        _require(self.crop_padding >= 0, f"--crop-padding must be 0 or more, not {self.crop_padding}")
        _require(self.batch_size > 0, f"--batch-size must be positive, not {self.batch_size}")
        _require(self.loader_threads > 0, f"--loader-threads must be positive, not {self.loader_threads}")


@dataclass(frozen=True)
class NoiseConfig:
    noise: Annotated[
        str,
        arg(
            help=f"Label noise: {alternatives(noise_names.FORMS)}, with options as in "
            "symmetric:R,true_class=included,quota=class or asymmetric:R,map=superclass."
        ),
    ] = "symmetric:0.4"
    noise_seed: int = 0
    """Seed of the label noise, apart from the training seed."""
    labels: str | None = None
    """File with the given labels of the training set in its order: FILE.npy, FILE.npz:ARRAY, FILE.csv:COLUMN or
    FILE.txt; use with --noise none."""

    def __post_init__(self) -> None:
        _require(0 <= self.noise_seed < 2**63, f"--noise-seed must lie in [0, 2^63), not {self.noise_seed}")
        _require(
            self.labels is None or self.noise == "none",
            f"--labels brings labels as they are given; drop --noise {self.noise} or write --noise none",
        )


@dataclass(frozen=True)
class ModelConfig:
    model: Annotated[str, arg(help=f"Network: {alternatives(model_names.FORMS)}.")] = "small_cnn"
    width: float = 1.0
    """Factor on the channels of every layer."""
    dropout: float = 0.0
    """Probability with which training zeroes each hidden unit of lenet5's fully connected layers, or each unit after
    cnn9's pooling."""
    encoder: str | None = None
    """File with a pretrained backbone that every network begins from (`fastnoise pretrain --out FILE`)."""

    def __post_init__(self) -> None:
        _require(0 <= self.dropout < 1, f"--dropout must lie in [0, 1), not {self.dropout}")


COMPILE_OPTIONS = ("combo_kernels", "pdl")
"""What --compile-options can name: independent kernels of small tensors launched as one, and programmatic dependent
launch, by which a kernel begins while the one before it ends."""

AUTO_COMPILE_OPTIONS: tuple[str, ...] = ()
"""Those of COMPILE_OPTIONS that `auto` takes: what a figure in benchmarks/results/gpu has shown to make steps faster.
Today there is none."""


def parse_compile_options(text: str) -> tuple[str, ...]:
    """Read `auto`, `none` or `combo_kernels,pdl`: names of COMPILE_OPTIONS in their order."""
    if text in ("auto", "none"):
        return AUTO_COMPILE_OPTIONS if text == "auto" else ()
    names = {part.strip() for part in text.split(",")}
    for name in sorted(names):
        _require(name not in ("auto", "none"), f"--compile-options {text}: {name} stands alone; drop it or the others")
        _require(
            name in COMPILE_OPTIONS,
            f"--compile-options {text}: unknown option {name!r}; {nearest(name, ['auto', 'none', *COMPILE_OPTIONS])}",
        )
    return tuple(name for name in COMPILE_OPTIONS if name in names)


@dataclass(frozen=True)
class SaveEvery:
    """How far checkpoints are apart, as `--save-every` spells it: in epochs, in seconds, or, with neither, by what they
    take."""

    epochs: int | None = None
    seconds: float | None = None

    UNITS: ClassVar[dict[str, float]] = {"s": 1.0, "m": 60.0, "h": 3600.0}

    @classmethod
    def parse(cls, value: int | str) -> "SaveEvery":
        """Read an integer or its digits, a time as `60s`, `1.5m` or `1h`, or `auto`."""
        if value == "auto":
            return cls()
        hint = f"--save-every {value}: give a number of epochs from 1, a time as 60s, 5m or 1h, or auto"
        text = str(value)
        unit = cls.UNITS.get(text[-1:])
        try:
            number = int(text) if unit is None else unit * float(text[:-1])
        except ValueError:
            raise ConfigError(hint) from None
        _require(0 < number < math.inf and not isinstance(value, bool), hint)
        return cls(epochs=int(number)) if unit is None else cls(seconds=number)


@dataclass(frozen=True)
class MethodConfig:
    """A method's options; None stands for an option that the method does not have."""

    method: str = "nal"
    """Method: apl, bootstrap, ce, coteaching, dividemix, elr, elr_plus, focal, forward, gce, label_smoothing, mae,
    mixup, nal, plc, sce, selc, selc_plus, swce or swce_loss (the loss alone)."""
    strength: float | None = None
    """Weight lambda of ELR's regulariser or of NAL's boost term."""
    momentum: float | None = None
    """Momentum of the soft targets' moving average (beta of ELR, alpha of NAL and SELC)."""
    variant: Literal["paper", "code"] | None = None
    """NAL as in the paper's Algorithm 1, or as in the authors' code (clamps, sparse target updates); SCE with the
    paper's log 0 of -4, or with the code's of log 1e-4."""
    update_from: int | None = None
    """First epoch, counted from 1, that updates the targets of NAL or SELC (for SELC None: at the turning point, which
    the losses show), or that leaves out the samples pruned by truncated GCE."""
    update_every: int | None = None
    """NAL's targets are updated in epochs divisible by this number; epochs between two prunings of truncated GCE."""
    reverse: float | None = None
    """Weight beta of RNAL, the reverse term; 0: NAL."""
    gate: float | None = None
    """NAL's delta: only samples with an attention weight above it have their targets updated."""
    target_estimation: Literal["on", "off"] | None = None
    """NAL's targets; off: the given labels throughout, as in the ablation of the paper's Table 6."""
    attention: Literal["branch", "confidence"] | None = None
    """NAL's attention weight: from its branch, or the largest probability, as in the ablation of Table 6."""
    label_smoothing: float | None = None
    """Share of the target that label smoothing spreads over all classes."""
    q: float | None = None
    """Exponent of GCE in (0, 1]: cross-entropy near 0, mean absolute error at 1."""
    k: float | None = None
    """Truncated GCE leaves out samples whose label has a probability of at most k; 0: none."""
    active: Literal["ce", "focal", "nce", "nfl"] | None = None
    """Active loss of APL."""
    passive: Literal["mae", "rce"] | None = None
    """Passive loss of APL."""
    alpha: float | None = None
    """Weight of SCE's cross-entropy or of APL's active loss."""
    beta: float | None = None
    """Weight of SCE's reverse term or of APL's passive loss; in bootstrapping the label's share (None: 0.95 soft, 0.8
    hard)."""
    gamma: float | None = None
    """Exponent of the focal loss."""
    mae: Literal["l1", "reduced"] | None = None
    """Mean absolute error as the L1 distance 2 (1 - p_y), or as 1 - p_y: of mae, of APL and of the SWCE pipeline's
    selection."""
    kind: Literal["soft", "hard"] | None = None
    """Bootstrapping towards the predicted probabilities, or towards the predicted class."""
    percentile: float | None = None
    """Forward correction reads row i of T off the sample most likely of class i below this percentile; 100: of all."""
    window: int | None = None
    """Epochs over which PLC averages predictions."""
    threshold: float | None = None
    """PLC takes the predicted class where the given label's probability is below this share of the largest."""
    threshold_step: float | None = None
    """What is added to PLC's threshold after an epoch that corrects less than 0.1 % of the labels, up to 0.9."""
    weight: Literal["detached", "literal"] | None = None
    """SWCE's weight p_y: a constant in the gradient, or differentiated as the formula is written."""
    networks: int | None = None
    """Networks of ELR+: 2, each with targets from the other's average, or 1 with targets from its own."""
    mixup_alpha: float | None = None
    """Mixup's share is drawn from Beta(alpha, alpha); 0 switches mixup off where a method goes without."""
    average_momentum: float | None = None
    """Momentum of ELR+'s averaged weights; 0: the weights themselves."""
    average_ramp: int | None = None
    """Steps until the averaged weights have their full momentum; 0: from the first."""
    averaged: Literal["parameters", "everything"] | None = None
    """What ELR+'s averages follow: the parameters (authors' code), or batch norm's running statistics too."""
    strength_ramp: int | None = None
    """Steps over which ELR+'s strength grows; 0: it is full from the first."""
    target: Literal["labels", "weighted"] | None = None
    """Target of ELR+'s cross-entropy: the mixed labels, or (authors' code, CIFAR-100) weighted by the soft targets."""
    forget_rate: float | None = None
    """Share of each batch that co-teaching leaves out in the end: the noise rate, as well as it is known."""
    forget_epochs: int | None = None
    """Epochs over which co-teaching's forget rate grows."""
    warm_up: int | None = None
    """Epochs of training on the given labels before a method sets in (DivideMix, forward, PLC, SWCE)."""
    confidence_penalty: float | None = None
    """Weight of the negative entropy in DivideMix's warm-up, which keeps asymmetric noise from overconfidence."""
    clean_threshold: float | None = None
    """DivideMix trusts labels with a larger probability of being right."""
    loss_epochs: int | None = None
    """Epochs over which DivideMix averages a sample's loss before it fits the mixture."""
    sharpening: float | None = None
    """Temperature T of DivideMix's sharpening: targets are raised to the power 1 / T."""
    unlabelled_strength: float | None = None
    """Weight lambda_u of DivideMix's loss on the samples whose labels it doesn't trust."""
    unlabelled_ramp: int | None = None
    """Epochs after the warm-up over which that weight grows."""

    stages: str | None = None
    """The SWCE pipeline's stages, as in 2,3,4;2,5,7: iterations parted by semicolons, of each the epochs after which
    all training samples are evaluated; the last stage ends its iteration."""
    rate_factors: str | None = None
    """Factors on --learning-rate in the SWCE pipeline: that of the warm-up, then one per iteration."""
    decay_in: Literal["warm_up", "all"] | None = None
    """Where the SWCE pipeline has --weight-decay: in its warm-up, or in the iterations too."""
    optimizer_state: Literal["fresh", "kept"] | None = None
    """Whether each iteration of the SWCE pipeline begins with a fresh optimiser."""
    train_loss: Literal["swce", "focal"] | None = None
    """Loss that the SWCE pipeline trains with."""
    selection_loss: Literal["nce+mae", "focal", "ce"] | None = None
    """Loss by which the SWCE pipeline selects samples."""
    selection_label: Literal["predicted", "given"] | None = None
    """Label whose loss selects samples in the SWCE pipeline."""
    selection_threshold: float | None = None
    """A sample is selected at a stage where its loss lies below this."""
    stage_statistics: Literal["running", "batch"] | None = None
    """Batch norm's statistics when the SWCE pipeline evaluates the training set: running ones, or each batch's."""
    agreement: Literal["required", "ignored"] | None = None
    """Whether a consensus needs the same prediction at all stages."""
    label_stage: Literal["last", "first"] | None = None
    """Stage whose prediction becomes the pseudo-label."""
    pseudo_labels: Literal["recomputed", "kept"] | None = None
    """Whether pseudo-labels hold for one iteration, or until a later consensus replaces them."""
    copies: int | None = None
    """Augmented copies of each pseudo-labelled sample that an epoch adds."""
    copies_in: Literal["training_set", "batch"] | None = None
    """Where copies come: anywhere in the epoch, or next to their sample in its batch."""
    temperature: float | None = None
    """Temperature of SimCLR's NT-Xent loss."""
    projection: int | None = None
    """Width of SimCLR's projections."""
    jitter: float | None = None
    """Strength of SimCLR's colour jitter; 0: none."""
    min_area: float | None = None
    """Least area of SimCLR's crops, as a share of the image."""

    def __post_init__(self) -> None:
        if self.strength is not None:
            _require(
                self.strength >= 0 and math.isfinite(self.strength),
                f"--strength must be 0 or more, not {self.strength}",
            )
        if self.momentum is not None:
            _require(0 <= self.momentum < 1, f"--momentum must lie in [0, 1), not {self.momentum}")
        for flag in ("update_from", "update_every", "window", "forget_epochs", "loss_epochs"):
            value = getattr(self, flag)
            _require(value is None or value >= 1, f"--{flag.replace('_', '-')} must be at least 1, not {value}")
        for flag in ("average_ramp", "strength_ramp", "warm_up", "unlabelled_ramp"):
            value = getattr(self, flag)
            _require(value is None or value >= 0, f"--{flag.replace('_', '-')} must be 0 or more, not {value}")
        for flag in ("mixup_alpha", "confidence_penalty", "unlabelled_strength", "reverse", "alpha", "gamma", "beta"):
            value = getattr(self, flag)
            _require(
                value is None or 0 <= value < math.inf, f"--{flag.replace('_', '-')} must be 0 or more, not {value}"
            )
        for flag in ("gate", "label_smoothing", "k", "threshold", "threshold_step"):
            value = getattr(self, flag)
            _require(value is None or 0 <= value <= 1, f"--{flag.replace('_', '-')} must lie in [0, 1], not {value}")
        _require(self.q is None or 0 < self.q <= 1, f"--q must lie in (0, 1], not {self.q}")
        _require(
            self.percentile is None or 0 < self.percentile <= 100,
            f"--percentile must lie in (0, 100], not {self.percentile}",
        )
        for flag in ("average_momentum", "forget_rate"):
            value = getattr(self, flag)
            _require(value is None or 0 <= value < 1, f"--{flag.replace('_', '-')} must lie in [0, 1), not {value}")
        _require(self.networks in (None, 1, 2), f"--networks must be 1 or 2, not {self.networks}")
        for flag in ("clean_threshold", "sharpening"):
            value = getattr(self, flag)
            _require(value is None or 0 < value <= 1, f"--{flag.replace('_', '-')} must lie in (0, 1], not {value}")

        if self.stages is not None:
            parse_stages(self.stages)
        if self.rate_factors is not None:
            parse_factors(self.rate_factors)
        _require(self.jitter is None or 0 <= self.jitter < math.inf, f"--jitter must be 0 or more, not {self.jitter}")
        threshold, temperature = self.selection_threshold, self.temperature
        _require(threshold is None or threshold > 0, f"--selection-threshold must be positive, not {threshold}")
        _require(
            temperature is None or 0 < temperature < math.inf, f"--temperature must be positive, not {temperature}"
        )
        _require(self.copies is None or self.copies >= 0, f"--copies must be 0 or more, not {self.copies}")
        _require(
            self.projection is None or self.projection > 0, f"--projection must be positive, not {self.projection}"
        )
        _require(self.min_area is None or 0 < self.min_area <= 1, f"--min-area must lie in (0, 1], not {self.min_area}")

    def read(self, *names: str) -> dict[str, Any]:
        """The named options as keyword arguments; ConfigError for one that is not set."""
        values = {name: getattr(self, name) for name in names}
        for name, value in values.items():
            _require(value is not None, f"method {self.method} needs --{name.replace('_', '-')}")
        return values


@dataclass(frozen=True)
class OptimConfig:
    epochs: int = 100
    """Passes over the training set."""
    optimizer: str = "sgd"
    """Optimiser: sgd (momentum 0.9), sgd:momentum=0, sgd:momentum=0.9,nesterov, adam or adamw."""
    learning_rate: float = 0.02
    """Learning rate at the start."""
    weight_decay: float = 1e-3
    """Weight decay; decoupled with adamw."""
    schedule: str = "constant"
    """Learning rate over epochs: constant, multistep:40,80,gamma=0.1, cosine:min=0.001,
    cosine_restarts:10,min=0.001, or linear:80, which falls to 0 from epoch 80 to the end."""

    def __post_init__(self) -> None:
        _require(self.epochs > 0, f"--epochs must be positive, not {self.epochs}")
        _require(
            self.learning_rate > 0 and math.isfinite(self.learning_rate),
            f"--learning-rate must be positive, not {self.learning_rate}",
        )
        _require(
            self.weight_decay >= 0 and math.isfinite(self.weight_decay),
            f"--weight-decay must be 0 or more, not {self.weight_decay}",
        )
        Optimizer.parse(self.optimizer)
        Schedule.parse(self.schedule)


@dataclass(frozen=True)
class EngineConfig:
    seed: int = 0
    """Seed of weights, batch order and augmentation."""
    device: str = "auto"
    """Device: auto (CUDA where there is a GPU), cpu, cuda or cuda:N."""
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    """Mixed precision; auto takes bf16 on GPUs that have it, fp16 on older ones, and none on CPUs."""
    gear: Literal["auto", "eager", "compiled", "graphed", "compiled_graphed"] = "auto"
    """How a step runs: op by op (eager), with forward and loss compiled, as one CUDA graph of the ops (graphed), or as
    one of compiled kernels (compiled_graphed). auto captures a graph where device and precision allow, and compiles as
    --compile says; an explicit choice is never replaced by another."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of a training step's forward pass and loss, for the gears auto and graphed. auto compiles on CUDA
    where the steps to go win back the seconds that it takes: measured ones where earlier runs left them, else assumed
    ones; the run says which. It does not compile on CPUs."""
    compile_options: str = "auto"
    """What the compiler may do beyond its defaults: none, or combo_kernels (small kernels launched together) and pdl (a
    kernel begins while the one before it ends), joined by a comma. auto takes what was measured to pay: today none.
    They act on CUDA; on a CPU the compiler ignores them."""
    profile: bool = False
    """Record ten training steps after ten others: a trace in the run folder, and at the end the ops that take the time,
    layout copies, synchronisations and gaps."""
    log_every: int = 50
    """Steps between two readings of the running loss for the progress display."""
    save_every: int | str = "auto"
    """Between checkpoints: a number of epochs, or a time since the last one was written, as 60s, 5m or 1h, which is
    looked at after each step. auto saves after the first epoch, and then so seldom that checkpoints take a fiftieth of
    the time: seconds of work are all that a kill can cost a small network, and a large one is not held up after every
    epoch. The last epoch and an interruption are always saved."""

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, f"--seed must lie in [0, 2^63), not {self.seed}")
        _require(
            (self.gear, self.compile) not in (("eager", "on"), ("compiled", "off"), ("compiled_graphed", "off")),
            f"--gear {self.gear} and --compile {self.compile} contradict each other; drop one",
        )
        parse_compile_options(self.compile_options)
        never = self.compile == "off" or self.gear == "eager" or (self.gear == "graphed" and self.compile == "auto")
        _require(
            self.compile_options in ("auto", "none") or not never,
            f"--compile-options {self.compile_options} is for compiled steps, and these are not; drop it"
            + (", or add --compile on" if (self.gear, self.compile) == ("graphed", "auto") else ""),
        )
        _require(self.log_every > 0, f"--log-every must be positive, not {self.log_every}")
        SaveEvery.parse(self.save_every)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes, and where it is kept."""

    method: MethodConfig = field(default_factory=MethodConfig)
    data: DataConfig = field(default_factory=DataConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    run_dir: str | None = None
    """Folder of this run; by default a new one under ./runs named after method, data set, noise and seed."""

    def flat(self) -> dict[str, Any]:
        """All fields by their flat names, in the order of the groups."""
        values: dict[str, Any] = {}
        for group in dataclasses.fields(self):
            value = getattr(self, group.name)
            if dataclasses.is_dataclass(value):
                values |= {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
            else:
                values[group.name] = value
        return values

    def replace(self, changes: Mapping[str, Any]) -> "RunConfig":
        """A copy with the fields named flatly in `changes`; ConfigError for a name that is no field."""
        groups: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            groups.setdefault(FIELD_GROUPS[check_field(name)], {})[name] = value
        top = groups.pop("", {})
        return dataclasses.replace(
            self, **{group: dataclasses.replace(getattr(self, group), **part) for group, part in groups.items()}, **top
        )


FIELD_GROUPS: dict[str, str] = {
    name: group.name if dataclasses.is_dataclass(group.default_factory) else ""
    for group in dataclasses.fields(RunConfig)
    for name in (
        [item.name for item in dataclasses.fields(group.default_factory)]
        if dataclasses.is_dataclass(group.default_factory)
        else [group.name]
    )
}
"""Flat field name -> the group of RunConfig that holds it ('' for RunConfig itself)."""


def check_field(name: str) -> str:
    """Return `name` if a configuration has such a field, else raise ConfigError with the nearest and all."""
    if name not in FIELD_GROUPS:
        raise ConfigError(f"unknown key {name!r}; {nearest(name, list(FIELD_GROUPS))}")
    return name


# Fields that change how fast a run goes or where things lie, but not what it computes: a resumed run may
# change them, and they are no part of the name of a sweep's job.
FREE_ON_RESUME = frozenset(
    {
        *("data_root", "download", "loader_threads", "log_every", "save_every", "profile", "run_dir"),
        "compile_options",
    }
)


def located(config: RunConfig) -> RunConfig:
    """The configuration with its paths made absolute, so that its run can be resumed from any folder.

    DataError where `data_root` is not the default and no such folder exists.
    """
    root = Path(config.data.data_root)
    named = config.data.data_root != DataConfig.data_root
    needed = config.data.dataset in data_names.DATASETS and config.data.dataset not in data_names.ROOTLESS
    if named and needed and not root.is_dir():
        raise DataError(f"--data-root {root}: no such folder; create it, or drop the option to use ./data")
    paths = {"data_root": str(root.absolute())}
    if config.data.dataset.startswith("folder:"):
        folder = Path(config.data.dataset.removeprefix("folder:")).expanduser()
        paths["dataset"] = f"folder:{folder.absolute()}"
    if any(word in config.noise.noise for word in ("matrix", "posteriors", ".py:")):
        from .noise.spec import with_absolute_paths

        paths["noise"] = with_absolute_paths(config.noise.noise)
    for kind, name in (("method", config.method.method), ("model", config.model.model)):
        if own.is_own(name):
            paths[kind] = own.located(name)
    if own.is_own(config.data.dataset):
        paths["dataset"] = own.located(config.data.dataset)
    if config.model.encoder is not None:
        paths["encoder"] = str(Path(config.model.encoder).expanduser().absolute())
    if config.noise.labels is not None:
        paths["labels"] = str(Path(config.noise.labels).absolute())
    return config.replace(paths)
