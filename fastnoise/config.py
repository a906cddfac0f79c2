"""The configuration of a run: nested frozen dataclasses, checked when built.

Every field has a name of its own across the groups, so that the command line and TOML files use flat names
(`--learning-rate`, `learning_rate = 0.02`). Recipes give the defaults (`fastnoise.recipes`).
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from .errors import ConfigError, nearest


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


@dataclass(frozen=True)
class Schedule:
    """The learning rate over epochs, as `--schedule` spells it."""

    name: str
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    period: int = 0
    minimum: float = 0.0

    NAMES = ("constant", "multistep", "cosine", "cosine_restarts")

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Read `constant`, `multistep:40,80,gamma=0.01`, `cosine:min=0.001` or `cosine_restarts:10,min=0.001`."""
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
    dataset: str = "digits"
    """Data set: digits, mnist, cifar10, cifar100, cifar10n, cifar100n, or folder:PATH with class folders."""
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
    loader: Literal["auto", "dali", "torch"] = "auto"
    """Input pipeline; auto takes DALI where it is installed."""
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
    noise: str = "symmetric:0.4"
    """Label noise: none, symmetric:R, asymmetric:R, pair:R, matrix:T.npy, idn:R, heterogeneous:R,clean=3 or
    human:NAME (cifar10n, cifar100n), with options as in symmetric:R,true_class=included,quota=class or
    asymmetric:R,map=superclass."""
    noise_seed: int = 0
    """Seed of the label noise, apart from the training seed."""
    labels: str | None = None
    """File with the given labels of the training set in its order (.npy, or .npz:KEY); use with --noise none."""

    def __post_init__(self) -> None:
        _require(0 <= self.noise_seed < 2**63, f"--noise-seed must lie in [0, 2^63), not {self.noise_seed}")
        _require(
            self.labels is None or self.noise == "none",
            f"--labels brings labels as they are given; drop --noise {self.noise} or write --noise none",
        )


@dataclass(frozen=True)
class ModelConfig:
    model: str = "small_cnn"
    """Network: small_cnn, lenet5, resnet18, resnet34, preact_resnet18, preact_resnet34 or resnet50."""
    width: float = 1.0
    """Factor on the channels of every layer."""


@dataclass(frozen=True)
class MethodConfig:
    """A method's options; None stands for an option that the method does not have."""

    method: str = "nal"
    """Method: ce, elr, nal or swce (the loss alone)."""
    strength: float | None = None
    """Weight lambda of ELR's regulariser or of NAL's boost term."""
    momentum: float | None = None
    """Momentum of the soft targets' moving average (beta of ELR, alpha of NAL)."""
    variant: Literal["paper", "code"] | None = None
    """NAL as in the paper's Algorithm 1, or as in the authors' code (clamps, sparse target updates)."""
    update_from: int | None = None
    """First epoch, counted from 1, that updates NAL's targets."""
    update_every: int | None = None
    """NAL's targets are updated in epochs divisible by this number."""
    weight: Literal["detached", "literal"] | None = None
    """SWCE's weight p_y: a constant in the gradient, or differentiated as the formula is written."""

    def __post_init__(self) -> None:
        if self.strength is not None:
            _require(
                self.strength >= 0 and math.isfinite(self.strength),
                f"--strength must be 0 or more, not {self.strength}",
            )
        if self.momentum is not None:
            _require(0 <= self.momentum < 1, f"--momentum must lie in [0, 1), not {self.momentum}")
        for flag in ("update_from", "update_every"):
            value = getattr(self, flag)
            _require(value is None or value >= 1, f"--{flag.replace('_', '-')} must be at least 1, not {value}")

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
    """Learning rate over epochs: constant, multistep:40,80,gamma=0.1, cosine:min=0.001, or
    cosine_restarts:10,min=0.001."""

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
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of forward and loss; auto compiles on CUDA and not on CPUs."""
    log_every: int = 50
    """Steps between two readings of the running loss for the progress display."""
    save_every: int = 1
    """Epochs between checkpoints; the last epoch and an interruption are always saved."""

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, f"--seed must lie in [0, 2^63), not {self.seed}")
        _require(self.log_every > 0, f"--log-every must be positive, not {self.log_every}")
        _require(self.save_every > 0, f"--save-every must be positive, not {self.save_every}")


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
# change them.
FREE_ON_RESUME = frozenset({"data_root", "download", "loader_threads", "log_every", "save_every", "run_dir"})
