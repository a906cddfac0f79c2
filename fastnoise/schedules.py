"""Learning rates over a course, optimisers, averages of weights, sizes of images and times of checkpoints, as the
command line spells them. Imports no torch."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from .errors import ConfigError, nearest, require


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
    """The learning rate over epochs, or of one_cycle over steps, as `--schedule` spells it."""

    name: str
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    period: int = 0
    minimum: float = 0.0
    peak: float = 0.0
    """Of one_cycle: the share of the course after which the rate is the whole."""
    start: float = 0.0
    """Of one_cycle: the rate at the beginning of the course, as a share of the whole."""
    end: float = 0.0
    """Of one_cycle: the rate at the end of the course, as a share of the whole."""

    NAMES = ("constant", "multistep", "cosine", "cosine_restarts", "linear", "one_cycle")

    OPTIONS: ClassVar[dict[str, tuple[str, ...]]] = {
        "multistep": ("gamma",),
        "cosine": ("min",),
        "cosine_restarts": ("min",),
        "one_cycle": ("start", "end"),
    }

    @property
    def by_step(self) -> bool:
        """Whether the rate changes from step to step, and not only from epoch to epoch."""
        return self.name == "one_cycle"

    def share(self, place: float) -> float:
        """Of one_cycle: the rate as a share of the whole at a place of the course, from 0 to 1."""
        if place < self.peak:
            return self.start + (1 - self.start) * place / self.peak
        return self.end + (1 - self.end) * min(1.0, max(0.0, (1 - place) / (1 - self.peak)))

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Read `constant`, `multistep:40,80,gamma=0.01`, `cosine:min=0.001`, `cosine_restarts:10,min=0.001`,
        `linear:80`, which falls to 0 from epoch 80 on, or `one_cycle:0.15,start=0.1,end=0.05`."""
        flag = "--schedule"
        name, plain, keyed = parse_spec(text, flag, cls.NAMES)
        allowed: tuple[str, ...] = cls.OPTIONS.get(name, ())
        for key in keyed:
            require(key in allowed, f"{flag} {text}: {name} has no option {key!r}; {nearest(key, list(allowed))}")
        if name == "one_cycle":
            return cls._one_cycle(text, plain, keyed)
        try:
            numbers = tuple(int(part) for part in plain)
            values = {key: float(value) for key, value in keyed.items()}
        except ValueError as error:
            raise ConfigError(f"{flag} {text}: {error}; write for example multistep:40,80,gamma=0.1") from None
        if name == "multistep":
            require(
                bool(numbers) and numbers[0] > 0 and all(a < b for a, b in pairwise(numbers)),
                f"{flag} {text}: give rising epochs, for example multistep:40,80,gamma=0.1",
            )
            gamma = values.get("gamma", 0.1)
            require(0 < gamma <= 1, f"{flag} {text}: gamma must lie in (0, 1]")
            return cls(name, milestones=numbers, gamma=gamma)
        if name == "linear":
            require(len(numbers) == 1 and numbers[0] >= 0, f"{flag} {text}: give one epoch, for example linear:80")
            return cls(name, milestones=numbers)
        if name == "cosine_restarts":
            require(
                len(numbers) == 1 and numbers[0] > 0,
                f"{flag} {text}: give one period in epochs, for example cosine_restarts:10,min=0.001",
            )
        else:
            require(not numbers, f"{flag} {text}: {name} takes no plain numbers")
        minimum = values.get("min", 0.0)
        require(minimum >= 0 and math.isfinite(minimum), f"{flag} {text}: min must be a rate of 0 or more")
        return cls(name, period=numbers[0] if numbers else 0, minimum=minimum)

    @classmethod
    def _one_cycle(cls, text: str, plain: list[str], keyed: dict[str, str]) -> "Schedule":
        hint = f"--schedule {text}: give the peak's place as a share of the course in [0, 1), as in one_cycle:0.15"
        try:
            (peak,) = (float(part) for part in plain)
            start, end = (float(keyed.get(key, 0)) for key in ("start", "end"))
        except ValueError:
            raise ConfigError(hint) from None
        require(0 <= peak < 1, hint)
        for key, value in (("start", start), ("end", end)):
            require(0 <= value <= 1, f"--schedule {text}: {key} must be a share of the rate in [0, 1]")
        return cls("one_cycle", peak=peak, start=start, end=end)


@dataclass(frozen=True)
class Optimizer:
    """The optimiser, as `--optimizer` spells it."""

    name: str
    momentum: float = 0.0
    nesterov: bool = False
    lookahead: int = 0
    """Steps between two moves of Lookahead's slow weights (Zhang et al. 2019, "Lookahead Optimizer: k steps forward, 1
    step back", Algorithm 1). 0: there are none."""
    alpha: float = 0.5
    """The share of the way to the weights that the slow weights go in each move."""

    NAMES = ("sgd", "adam", "adamw")

    @classmethod
    def parse(cls, text: str) -> "Optimizer":
        """Read `sgd` (momentum 0.9), `sgd:momentum=0`, `sgd:momentum=0.9,nesterov`, `adam` or `adamw`; each may have
        `lookahead=5`, and `alpha=0.8` with it."""
        flag = "--optimizer"
        name, plain, keyed = parse_spec(text, flag, cls.NAMES)
        own = ("momentum",) if name == "sgd" else ()
        if not (set(plain) <= ({"nesterov"} if own else set()) and set(keyed) <= {*own, "lookahead", "alpha"}):
            takes = "momentum=NUMBER, nesterov and " if own else "no options here but "
            raise ConfigError(
                f"{flag} {text}: {name} takes {takes}lookahead=STEPS,alpha=SHARE, for example {name}:"
                + ("momentum=0.9,nesterov" if own else "lookahead=5")
            )
        try:
            momentum = float(keyed.get("momentum", 0.9 if own else 0))
            lookahead, alpha = int(keyed.get("lookahead", 0)), float(keyed.get("alpha", cls.alpha))
        except ValueError as error:
            raise ConfigError(f"{flag} {text}: {error}; write for example sgd:momentum=0.9,lookahead=5") from None
        require(0 <= momentum < 1, f"{flag} {text}: momentum must lie in [0, 1)")
        require(momentum > 0 or not plain, f"{flag} {text}: nesterov needs momentum")
        require("lookahead" not in keyed or lookahead > 1, f"{flag} {text}: lookahead must be 2 steps or more")
        require("alpha" not in keyed or lookahead > 0, f"{flag} {text}: alpha is a part of lookahead; add lookahead=5")
        require(0 < alpha < 1, f"{flag} {text}: alpha must lie in (0, 1)")
        return cls(name, momentum, bool(plain), lookahead, alpha)


@dataclass(frozen=True)
class Averaging:
    """The average of weights that evaluation and model files take, as `--average-weights` spells it."""

    momentum: float
    """Of the exponential moving average, for each step."""
    since: float
    """Share of the epochs after which it begins."""

    @classmethod
    def parse(cls, text: str) -> "Averaging | None":
        """Read `none`, `ema:0.99` or `ema:0.99,from=0.67`; None for none."""
        flag = "--average-weights"
        name, plain, keyed = parse_spec(text, flag, ("none", "ema"))
        if name == "none":
            require(not plain and not keyed, f"{flag} {text}: none takes no numbers")
            return None
        hint = f"{flag} {text}: give the momentum and the share of the epochs before it, as in ema:0.99,from=0.67"
        require(set(keyed) <= {"from"}, hint)
        try:
            (momentum,) = (float(part) for part in plain)
            since = float(keyed.get("from", 0))
        except ValueError:
            raise ConfigError(hint) from None
        require(0 < momentum < 1, f"{flag} {text}: the momentum must lie in (0, 1)")
        require(0 <= since < 1, f"{flag} {text}: from must be a share of the epochs in [0, 1)")
        return cls(momentum, since)

    def first(self, epochs: int) -> int:
        """The first of so many epochs, counted from 1, whose steps it averages."""
        return min(epochs, int(self.since * epochs + 1e-9) + 1)


@dataclass(frozen=True)
class Growth:
    """The sides of training images that grow in the course, as `--grow-size` spells them."""

    stages: tuple[tuple[int, float], ...]
    """Of each stage the shorter side in pixels, and the share of the epochs at which it ends. Both rise."""

    @classmethod
    def parse(cls, text: str) -> "Growth | None":
        """Read `none`, `24:0.4` (24 pixels over the first 40 % of the epochs) or `16:0.2,24:0.4`; None for none."""
        if text == "none":
            return None
        hint = f"--grow-size {text}: give a side in pixels and the share of the epochs at which it ends, as in 24:0.4"
        try:
            pairs = [part.split(":") for part in text.split(",")]
            stages = tuple((int(side), float(end)) for side, end in pairs)
        except ValueError:
            raise ConfigError(hint) from None
        require(stages[0][0] > 0 and stages[0][1] > 0 and stages[-1][1] < 1, f"{hint}; shares lie in (0, 1)")
        require(
            all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(stages)),
            f"--grow-size {text}: sides and shares must rise, as in 16:0.2,24:0.4",
        )
        return cls(stages)

    def side(self, epoch: int, epochs: int) -> int | None:
        """The shorter side of the images in one of so many epochs, counted from 1; None: the whole size, which the last
        epoch always has."""
        return next((side for side, end in self.stages if epoch <= min(end * epochs + 1e-9, epochs - 1)), None)


@dataclass(frozen=True)
class SaveEvery:
    """The distance between checkpoints, as `--save-every` spells it: epochs or seconds.

    If both are None, the distance follows from how long a checkpoint takes.
    """

    epochs: int | None = None
    seconds: float | None = None

    UNITS: ClassVar[dict[str, float]] = {"s": 1.0, "m": 60.0, "h": 3600.0}

    @classmethod
    def parse(cls, value: int | str) -> "SaveEvery":
        """Read an integer or its digits, a time as `60s`, `1.5m` or `1h`, or `auto`."""
        if value == "auto":
            return cls()
        hint = f"--save-every {value}: give a number of epochs (1 or more), a time such as 60s, 5m or 1h, or auto"
        text = str(value)
        unit = cls.UNITS.get(text[-1:])
        try:
            number = int(text) if unit is None else unit * float(text[:-1])
        except ValueError:
            raise ConfigError(hint) from None
        require(0 < number < math.inf and not isinstance(value, bool), hint)
        return cls(epochs=int(number)) if unit is None else cls(seconds=number)
