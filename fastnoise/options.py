"""Options as frozen dataclasses: a field's annotation says which values it takes. The base of methods' options is here.

The range of a field is part of its annotation. It is checked when the dataclass is built:

    @dataclass(frozen=True)
    class Options(MethodOptions):
        boost: Annotated[float, AtLeast(0)] = 2.0
        "Weight of the boost term."
        start: Annotated[int, AtLeast(1)] | Literal["auto"] = "auto"
        "First epoch, counted from 1, that boosts. auto: the epoch in which the losses turn."

The command line, TOML files and sweeps take these fields by their names. The docstring under a field is its help text.
"""

import dataclasses
import math
import types
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from .checks import shown
from .errors import ConfigError

AUTO = "auto"
"""The name that asks for a method to be chosen before the run (`fastnoise.auto`). It is no method by itself."""


@dataclass(frozen=True)
class AtLeast:
    """Finite numbers of at least `low`."""

    low: float

    def holds(self, value: Any) -> bool:
        return bool(self.low <= value < math.inf)

    def describe(self) -> str:
        return "be 0 or more" if self.low == 0 else f"be at least {self.low:g}"


@dataclass(frozen=True)
class Above:
    """Numbers above `low`. Infinity is allowed if `finite` is False."""

    low: float
    finite: bool = True

    def holds(self, value: Any) -> bool:
        return bool(value > self.low and (value < math.inf or not self.finite))

    def describe(self) -> str:
        return "be positive" if self.low == 0 else f"be above {self.low:g}"


@dataclass(frozen=True)
class Between:
    """Numbers from `low` to `high`. A round bracket in `ends` excludes that end: "[)" means low <= number < high."""

    low: float
    high: float
    ends: Literal["[]", "[)", "(]", "()"] = "[]"

    def holds(self, value: Any) -> bool:
        after = value >= self.low if self.ends[0] == "[" else value > self.low
        return bool(after and (value <= self.high if self.ends[1] == "]" else value < self.high))

    def describe(self) -> str:
        high = f"2^{math.log2(self.high):g}" if self.high > 1e6 else f"{self.high:g}"
        return f"lie in {self.ends[0]}{self.low:g}, {high}{self.ends[1]}"


Range = AtLeast | Above | Between

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Values:
    """The values that a field takes: some types, some literal values, perhaps None. Numbers must lie in `ranges`."""

    kinds: tuple[type, ...]
    literals: tuple[Any, ...]
    ranges: tuple[Range, ...]

    @classmethod
    def of(cls, hint: Any) -> "Values":
        """Read a type hint: bool, int, float, str, None and Literal, joined by | or within Annotated.

        TypeError for any other.
        """
        kinds: list[type] = []
        literals: list[Any] = []
        ranges: list[Range] = []
        for part in _parts(hint):
            if isinstance(part, Range):
                ranges.append(part)
            elif isinstance(part, _Literals):
                literals += part.values
            elif part in (bool, int, float, str, types.NoneType):
                kinds.append(part)
            else:
                raise TypeError(f"{part!r} is no bool, int, float, str or Literal")
        return cls(tuple(kinds), tuple(literals), tuple(ranges))

    def read(self, what: str, value: Any) -> Any:
        """`value` as the field holds it: numbers of numpy's as Python's, an integer as a float if the field takes no
        integers.

        ConfigError for a value of another type or out of range; the message begins with `what`.
        """
        if value is None and types.NoneType in self.kinds:
            return None
        if any(value == literal and type(value) is type(literal) for literal in self.literals):
            return value
        if isinstance(value, bool) or not isinstance(value, Real):
            if type(value) not in self.kinds:
                raise ConfigError(f"{what} must be {self._wanted()}, not {shown(value)}")
            return value
        whole = isinstance(value, Integral) and int in self.kinds
        if not whole and float not in self.kinds:
            raise ConfigError(f"{what} must be {self._wanted()}, not {shown(value)}")
        if isinstance(value, Integral) and not -(2**63) <= int(value) < 2**63:
            raise ConfigError(f"{what} must fit into 64 bits, not {shown(value)}")
        for limits in self.ranges:
            if not limits.holds(value):
                raise ConfigError(f"{what} must {limits.describe()}, not {value}")
        return int(value) if isinstance(value, Integral) and whole else float(value)

    def _wanted(self) -> str:
        words = [_WORDS[kind] for kind in self.kinds if kind in _WORDS]
        if self.literals:
            listed = ", ".join(map(str, self.literals))
            words.append(f"one of {listed}" if len(self.literals) > 1 else listed)
        return " or ".join(words)


@dataclass(frozen=True)
class _Literals:
    values: tuple[Any, ...]


def _parts(hint: Any) -> Iterator[Any]:
    """The types, literals and ranges that a type hint is made of."""
    if get_origin(hint) is Annotated:
        inner, *more = get_args(hint)
        yield from _parts(inner)
        yield from (item for item in more if isinstance(item, Range))
    elif isinstance(hint, types.UnionType) or get_origin(hint) is Union:
        for part in get_args(hint):
            yield from _parts(part)
    elif get_origin(hint) is Literal:
        yield _Literals(get_args(hint))
    else:
        yield hint


_VALUES: dict[type, dict[str, Values]] = {}


def values_of(kind: Any) -> dict[str, Values]:
    """The values that each field of an options dataclass takes, by name, in the order of the fields."""
    if kind not in _VALUES:
        hints = get_type_hints(kind, include_extras=True)
        _VALUES[kind] = {field.name: Values.of(hints[field.name]) for field in dataclasses.fields(kind)}
    return _VALUES[kind]


@dataclass(frozen=True)
class Checked:
    """A dataclass that checks its fields against their annotations. ConfigError in one line for any other value."""

    def __post_init__(self) -> None:
        for name, values in values_of(type(self)).items():
            given = getattr(self, name)
            read = values.read(f"--{name.replace('_', '-')}", given)
            if isinstance(given, Real) and not isinstance(given, int | float):  # numpy's, which no file can hold
                object.__setattr__(self, name, read)


@dataclass(frozen=True)
class MethodOptions(Checked):
    """The base class of a method's options. A method without options uses it as it is.

    Every option needs a default, because a recipe or a file need not name it. No option may be None.
    """

    method: str = "ce"
    """Method, of `fastnoise methods`. apl, augdesc, bootstrap, c2d, ce, cores, coteaching, disc, dividemix, dual_t, \
elr, elr_plus, focal, forward, gce, gjs, jocor, label_smoothing, mae, mixup, multitask, nal, pes, pes_semi, plain \
(the task's own loss), plc, posteriors, promix, sce, selc, selc_plus, simclr, sop, sop_plus, ssr, ssr_plus, swce, \
swce_dividemix, swce_loss (the loss alone), volminnet, auto (chosen after a look at the labels), or FILE.py:CLASS \
(your own)."""

    AUTO: ClassVar[str] = "auto"
    """The value of an option that the method chooses by itself."""

    by_rate: ClassVar[tuple[str, ...]] = ()
    """The options that follow from the rate of wrong labels. A recipe sets them for the rate that --noise-rate gives,
    or that the noise has; in a method of your own each is set to the rate itself. If the rate is unknown, the run says
    which values it takes."""

    pictures: ClassVar[bool] = False
    """Whether the method needs pictures, since it changes their colours or places. Then it can't train on features."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The options by name, without the method's own name."""
        return tuple(field.name for field in dataclasses.fields(cls) if field.name != "method")
