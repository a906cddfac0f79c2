"""The grammar of noise specs: `NAME[:RATE][,key=value...]`, one text for the command line, files and Python."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

from ..errors import ConfigError, nearest
from .maps import CLASS_MAPS


class _Kind(NamedTuple):
    argument: Literal["RATE", "NAME"] | None  # what stands behind the colon
    options: dict[str, tuple[str, ...]]  # key: valid values


_KINDS = {
    "none": _Kind(None, {}),
    "symmetric": _Kind("RATE", {"true_class": ("excluded", "included")}),
    "asymmetric": _Kind("RATE", {"map": tuple(CLASS_MAPS)}),
    "pair": _Kind("RATE", {}),
    "human": _Kind("NAME", {}),
}


@dataclasses.dataclass(frozen=True)
class NoiseSpec:
    """A noise model and its options. `str(spec)` is its canonical text, and `parse(str(spec)) == spec`.

    kind        "none", "symmetric", "asymmetric", "pair" or "human"
    rate        symmetric, asymmetric, pair: the probability in [0, 1] that a label is replaced, independently of others
    name        human: which of the data set's human labels
    true_class  symmetric: "excluded" draws from the C - 1 other classes, so that `rate` of the labels change;
                "included" draws from all C, so that only rate (1 - 1/C) do
    map         asymmetric: a key of `CLASS_MAPS`; None for the data set's own

    Raises ConfigError for an unknown kind, an option that the kind doesn't take, and a value outside its range.
    """

    kind: str
    rate: float | None = None
    name: str | None = None
    true_class: str = "excluded"
    map: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ConfigError(f"unknown noise {self.kind!r}: {nearest(str(self.kind), list(_KINDS))}")
        argument, options = _KINDS[self.kind]
        if argument == "RATE":
            object.__setattr__(self, "rate", self._checked_rate())
        elif self.rate is not None:
            raise ConfigError(f"noise {self.kind!r} takes no rate, got {self.rate!r}")
        if argument == "NAME":
            if not self.name:
                raise ConfigError(f"noise {self.kind!r} needs a name of labels, such as '{self.kind}:worse'")
            if not self.name.isprintable() or "," in self.name or self.name != self.name.strip():
                raise ConfigError(f"noise {self.kind!r}: {self.name!r} can't be the name of labels")
        elif self.name is not None:
            raise ConfigError(f"noise {self.kind!r} takes no name, got {self.name!r}")
        for key, default in _OPTIONS.items():
            value = getattr(self, key)
            if value == default:
                continue
            if key not in options:
                raise ConfigError(_unknown_option(self.kind, key))
            if value not in options[key]:
                raise ConfigError(
                    f"noise {self.kind!r}: unknown {key} {value!r}: {nearest(str(value), list(options[key]))}"
                )

    def _checked_rate(self) -> float:
        rate = self.rate
        if rate is None:
            raise ConfigError(f"noise {self.kind!r} needs a rate in [0, 1], such as '{self.kind}:0.4'")
        if not isinstance(rate, int | float) or math.isnan(rate):
            raise ConfigError(f"noise {self.kind!r}: the rate must be a number in [0, 1], got {rate!r}")
        if not 0 <= rate <= 1:
            hint = f" (write {rate / 100:g} for {rate:g} %)" if 1 < rate <= 100 else ""
            raise ConfigError(f"noise {self.kind!r}: rate {rate!r} is outside [0, 1]{hint}")
        return abs(float(rate))  # -0.0 and 0.0 are one rate and have one text

    def __str__(self) -> str:
        argument = self.name if self.rate is None else repr(self.rate)
        options = [f",{key}={getattr(self, key)}" for key, default in _OPTIONS.items() if getattr(self, key) != default]
        return self.kind + (f":{argument}" if argument else "") + "".join(options)


# The fields of NoiseSpec that are written key=value, and their defaults.
_OPTIONS = {
    field.name: field.default for field in dataclasses.fields(NoiseSpec) if field.name not in ("kind", "rate", "name")
}


def _unknown_option(kind: str, key: str) -> str:
    options = list(_KINDS[kind].options)
    return f"noise {kind!r} has no option {key!r}: " + (nearest(key, options) if options else "it takes none")


def parse(text: str) -> NoiseSpec:
    """Read a noise spec such as "symmetric:0.4", "symmetric:0.4,true_class=included", "asymmetric:0.4,map=superclass",
    "pair:0.45", "human:worse" or "none". Blanks around the parts are dropped, defaults and number forms normalised.

    Raises ConfigError (one line, with the nearest valid name) for whatever isn't a spec.
    """
    if not isinstance(text, str):
        raise ConfigError(f"a noise spec is a text such as 'symmetric:0.4', got {type(text).__name__}")
    head, *rest = (part.strip() for part in text.split(","))
    kind, colon, argument = (part.strip() for part in head.partition(":"))
    if kind not in _KINDS:
        raise ConfigError(f"unknown noise {kind!r}: {nearest(kind, list(_KINDS))}")
    fields: dict[str, Any] = {}
    for part in rest:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key not in _KINDS[kind].options:
            raise ConfigError(_unknown_option(kind, key))
        if not equals or not value:
            raise ConfigError(f"noise {kind!r}: option {key!r} needs a value: {', '.join(_KINDS[kind].options[key])}")
        if key in fields:
            raise ConfigError(f"noise {kind!r}: option {key!r} is given twice")
        fields[key] = value
    if colon:
        if not argument:
            raise ConfigError(f"noise {kind!r}: nothing follows the colon in {text!r}")
        match _KINDS[kind].argument:
            case "RATE":
                try:
                    fields["rate"] = float(argument)
                except ValueError:
                    raise ConfigError(f"noise {kind!r}: {argument!r} is no rate: give a number in [0, 1]") from None
            case "NAME":
                fields["name"] = argument
            case None:
                raise ConfigError(f"noise {kind!r} takes nothing behind a colon, got {argument!r}")
    return NoiseSpec(kind, **fields)
