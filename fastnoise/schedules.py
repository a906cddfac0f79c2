"""Learning rates over epochs, optimisers, and when checkpoints are written, as the command line spells them. Imports no
torch."""

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
            require(key in allowed, f"{flag} {text}: {name} has no option {key!r}; {nearest(key, list(allowed))}")
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
            require(not plain and not keyed, f"{flag} {text}: {name} takes no options here")
            return cls(name)
        require(
            set(plain) <= {"nesterov"} and set(keyed) <= {"momentum"},
            f"{flag} {text}: sgd takes momentum=NUMBER and nesterov, for example sgd:momentum=0.9,nesterov",
        )
        try:
            momentum = float(keyed.get("momentum", 0.9))
        except ValueError as error:
            raise ConfigError(f"{flag} {text}: {error}; write for example sgd:momentum=0.9") from None
        require(0 <= momentum < 1, f"{flag} {text}: momentum must lie in [0, 1)")
        require(momentum > 0 or not plain, f"{flag} {text}: nesterov needs momentum")
        return cls(name, momentum, nesterov=bool(plain))


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
