"""The grammar of noise specs: `NAME[:ARGUMENT][,key=value...]`, one text for the command line, files and Python."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from .. import own
from ..checks import shown
from ..errors import ConfigError, nearest
from ..files import expanded
from .maps import MAP_NAMES
from .names import NOISES, OWN, Kind

# What an option may say, and what that means; options that aren't here have a reader of their own.
_VALUES: dict[str, dict[str, Any]] = {
    "true_class": {"excluded": "excluded", "included": "included"},
    "quota": {"none": "none", "global": "global", "class": "class"},
    "map": {name: name for name in MAP_NAMES},
    "sequential": {"false": False, "true": True},
    "strategy": {"1": 1, "2": 2},
    "variant": {"xia": "xia", "shared": "shared", "score": "score"},
    "inputs": {"raw": "raw", "normalised": "normalised", "centred": "centred"},
    "type": {"1": 1, "2": 2, "3": 3, "I": 1, "II": 2, "III": 3},
    "cardinality": {"kept": "kept", "free": "free"},
}

_OWN_KIND = Kind("RATE")

_HYBRIDS = ("symmetric", "asymmetric", "pair")


@dataclasses.dataclass(frozen=True)
class NoiseSpec:
    """A noise model and its options. `str(spec)` is its canonical text, and `parse(str(spec)) == spec`.

    kind        none; symmetric; asymmetric; pair; human; matrix; heterogeneous; idn (instance-dependent);
                pmd (polynomial-margin diminishing); swap (of several labels an image); gaussian (of values); own (a
                function of the user's)
    rate        in [0, 1]. symmetric, asymmetric, pair, heterogeneous: the probability or, with a quota, the share with
                which a label is drawn anew; idn: the mean of the samples' flip rates before they are cut to [0, 1];
                pmd: the expected share of wrong labels before any hybrid noise; swap: the probability that a label of
                the group is swapped for another of it
    name        human: which of the data set's human labels; matrix: an npy file with a row-stochastic float matrix;
                own: FILE.py:NAME
    true_class  symmetric: "excluded" draws from the other C - 1 classes, so that `rate` of the labels change;
                "included" draws from all C, so that only rate (1 - 1/C) do
    quota       "none" draws each label independently; "global" draws floor(rate N) labels anew, "class" floor(rate N_c)
                labels of each class (symmetric, asymmetric, pair)
    classes     symmetric: only labels of these classes change, and only to these (a task's classes); "0-49", "3+5+7"
    map         asymmetric, and pmd with that hybrid: one of `MAP_NAMES`; None for the data set's own
    sequential  asymmetric: the class map works on class 0, then 1, ..., each time on labels as they are by then, as in
                the public code of ELR (Liu et al., NeurIPS 2020); ceil(rate N_c) labels of each class
    clean       heterogeneous: the classes that keep their labels, written as `classes`
    strategy    heterogeneous: 1 draws from all other classes, 2 from the other corrupted ones
    variant     idn: "xia" has one projection per class, "shared" one for all, "score" takes posteriors
    inputs      idn, variants xia and shared: "raw" pixels, "normalised" per channel, "centred" on the mean image
    type        pmd: 1, 2 or 3
    hybrid      pmd: the noise that follows, symmetric, asymmetric or pair at a rate of its own: "symmetric:0.3"
    posteriors  pmd, and idn with variant score: an npy file with the class probabilities of a trained network, [N, C]

    group       swap: the labels that are swapped for each other, written as `classes`; None: all
    cardinality swap: "kept" swaps for labels that the image does not have, "free" for any other of the group
    sigma       gaussian: standard deviation of what is added before it is cut, in the values' unit
    low, high   gaussian: values in this range get noise, which is cut so that they stay in it; None: the least and the
                largest training value
    settings    own: further arguments of the function, pairs of name and text

    Raises ConfigError for an unknown kind, an option that the kind doesn't take, and a value outside its range.
    """

    kind: str
    rate: float | None = None
    name: str | None = None
    true_class: str = "excluded"
    quota: str = "none"
    classes: str | None = None
    map: str | None = None
    sequential: bool = False
    clean: str | None = None
    strategy: int = 1
    variant: str = "xia"
    inputs: str = "raw"
    type: int = 1
    hybrid: str | None = None
    posteriors: str | None = None
    group: str | None = None
    cardinality: str = "kept"
    sigma: float | None = None
    low: float | None = None
    high: float | None = None
    settings: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        argument = _kind(self.kind).argument
        if self.kind == OWN:
            self._check_own()
            return
        if self.settings:
            raise ConfigError(f"noise {self.kind!r} takes no settings; they are for your own functions")
        if argument == "RATE":
            object.__setattr__(self, "rate", self._checked_rate())
        elif self.rate is not None:
            raise ConfigError(f"noise {self.kind!r} takes no rate, got {shown(self.rate)}")
        if argument == "SIGMA":
            object.__setattr__(self, "sigma", self._checked_sigma())
        elif self.sigma is not None:
            raise ConfigError(f"noise {self.kind!r} takes no sigma, got {shown(self.sigma)}")
        if argument in ("NAME", "FILE"):
            if not self.name:
                what = (
                    "a name of labels, such as 'human:worse'"
                    if argument == "NAME"
                    else "a file, such as 'matrix:T.npy'"
                )
                raise ConfigError(f"noise {self.kind!r} needs {what}")
            if not _is_writable(self.name):
                raise ConfigError(f"noise {self.kind!r}: {self.name!r} can't be the name of {_NAMED[self.kind]}")
        elif self.name is not None:
            raise ConfigError(f"noise {self.kind!r} takes no name, got {shown(self.name)}")
        for key, default in _OPTIONS.items():
            value = getattr(self, key)
            if value == default:
                continue
            if key not in _kind(self.kind).options:
                raise ConfigError(_unknown_option(self.kind, key))
            object.__setattr__(self, key, self._checked_option(key, value))
        if self.kind == "heterogeneous" and self.clean is None:
            raise ConfigError("noise 'heterogeneous' needs its clean classes, such as 'heterogeneous:0.8,clean=3'")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ConfigError(f"noise {self.kind!r}: low={self.low!r} must lie below high={self.high!r}")
        if self.sequential and self.quota != "none":
            raise ConfigError("noise 'asymmetric': sequential=true has its own quota for each class; drop quota=")
        if self.kind == "pmd" and self.map is not None and self.hybrid_kind != "asymmetric":
            raise ConfigError("noise 'pmd': map= is only for hybrid=asymmetric:R; drop it")
        if self.kind == "idn" and self.variant != "score" and self.posteriors is not None:
            raise ConfigError("noise 'idn': posteriors= is only for variant=score; the other variants take inputs")
        if self.variant == "score" and self.inputs != "raw":
            raise ConfigError("noise 'idn': variant=score takes posteriors; drop inputs=")

    def _check_own(self) -> None:
        """Check the form of a user's function. Its arguments are checked when it is called."""
        file, name, rest = own.split(str(self.name)) if own.is_own(str(self.name)) else (None, "", "")
        if file is None or not name.isidentifier() or rest or not _is_writable(str(self.name)):
            raise ConfigError(f"noise {self.name!r} names no function in a file; write FILE.py:NAME, as in my.py:flip")
        if self.rate is not None:
            object.__setattr__(self, "rate", self._checked_rate())
        for key, default in _OPTIONS.items():
            if getattr(self, key) != default:
                raise ConfigError(f"noise {self.name!r} takes {key!r} among its settings")
        for key, text in self.settings:
            if not key.isidentifier() or not text or not _is_writable(text):
                raise ConfigError(f"noise {self.name!r}: {key}={text} can't be written; give NAME=VALUE")
        if len(dict(self.settings)) < len(self.settings):
            raise ConfigError(f"noise {self.name!r}: a setting is given twice")

    @property
    def hybrid_kind(self) -> str | None:
        """The kind of the noise that follows PMD."""
        return None if self.hybrid is None else self.hybrid.partition(":")[0]

    @property
    def of_inputs(self) -> bool:
        """Whether the noise is made of the samples' inputs. A user's function says so by a parameter of its own."""
        return self.kind == "idn" and self.variant != "score"

    @property
    def of_posteriors(self) -> bool:
        """Whether the noise is made of a network's class probabilities."""
        return self.kind == "pmd" or self.variant == "score"

    def require_task(self, task: str, labels: str | None = None) -> None:
        """ConfigError that names the noises for the labels of `task` if this is none of them.

        Args:
            task: the name of one of `fastnoise.tasks`.
            labels: what has these labels, for the message; by default a data set of the task.
        """
        tasks = _kind(self.kind).tasks
        if tasks is None or task in tasks:
            return
        what = own.short(str(self.name)) if self.kind == OWN else self.kind
        able = sorted(kind.example for kind in NOISES.values() if kind.tasks is None or task in kind.tasks)
        raise ConfigError(
            f"noise {what!r} is for {' and '.join(tasks)}, and {labels or f'the data set is one of {task}'}; "
            f"noise for it: {', '.join(able)}"
        )

    def _checked_sigma(self) -> float:
        if self.sigma is None:
            raise ConfigError(f"noise {self.kind!r} needs a sigma above 0, such as '{self.kind}:20'")
        if not isinstance(self.sigma, int | float) or not 0 < self.sigma < math.inf:
            raise ConfigError(f"noise {self.kind!r}: sigma must be a positive number, got {shown(self.sigma)}")
        return float(self.sigma)

    def _checked_rate(self) -> float:
        rate, what = self.rate, self.name if self.kind == OWN else self.kind
        if rate is None:
            raise ConfigError(f"noise {what!r} needs a rate in [0, 1], such as '{what}:0.4'")
        if not isinstance(rate, int | float) or math.isnan(rate):
            raise ConfigError(f"noise {what!r}: the rate must be a number in [0, 1], got {shown(rate)}")
        if not 0 <= rate <= 1:
            hint = f" (write {rate / 100:g} for {rate:g} %)" if 1 < rate <= 100 else ""
            raise ConfigError(f"noise {what!r}: rate {rate!r} is outside [0, 1]{hint}")
        return abs(float(rate))  # -0.0 and 0.0 are one rate and have one text

    def _checked_option(self, key: str, value: Any) -> Any:
        if key in ("low", "high"):
            return _number(self.kind, key, value)
        if key in ("classes", "clean", "group"):
            return _class_text(class_ranges(str(value)))
        if key == "posteriors":
            if not isinstance(value, str) or not value or not _is_writable(value):
                raise ConfigError(f"noise {self.kind!r}: {value!r} can't be the name of a file here")
            return value
        if key == "hybrid":
            following = parse(str(value))
            if following.kind not in _HYBRIDS or "," in str(following):
                raise ConfigError(f"noise 'pmd': hybrid={value} must be one of {', '.join(_HYBRIDS)} and a rate")
            return str(following)
        if value not in _VALUES[key].values():
            raise ConfigError(f"noise {self.kind!r}: {_unknown_value(key, value)}")
        return value

    def __str__(self) -> str:
        if self.kind == OWN:
            rate = "" if self.rate is None else f":{self.rate!r}"
            return f"{self.name}{rate}" + "".join(f",{key}={text}" for key, text in self.settings)
        number = self.rate if self.sigma is None else self.sigma
        argument = self.name if number is None else repr(number)
        given = {key: getattr(self, key) for key, default in _OPTIONS.items() if getattr(self, key) != default}
        return self.kind + (f":{argument}" if argument else "") + "".join(f",{k}={_text(v)}" for k, v in given.items())


_NAMED = {"human": "labels", "matrix": "a file here"}

# The fields of NoiseSpec that are written key=value, and their defaults.
_OPTIONS = {
    field.name: field.default
    for field in dataclasses.fields(NoiseSpec)
    if field.name not in ("kind", "rate", "name", "sigma", "settings")
}


# Of options without a list of values.
_EXAMPLES = {
    "hybrid": "symmetric:0.3",
    "posteriors": "FILE.npy",
    "low": "-10",
    "high": "10",
}  # of options without a list of values


def _is_writable(name: str) -> bool:
    """Whether a name can be written in the text of a spec and read back."""
    return name.isprintable() and "," not in name and name == name.strip()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind(name: Any) -> Kind:
    """How a kind of noise is written; ConfigError for an unknown one."""
    if name == OWN:
        return _OWN_KIND
    if name not in NOISES:
        raise ConfigError(f"unknown noise {name!r}: {nearest(str(name), [*NOISES, 'FILE.py:NAME'])}")
    return NOISES[name]


def _unknown_option(kind: str, key: str) -> str:
    options = list(_kind(kind).options)
    return f"noise {kind!r} has no option {key!r}: " + (nearest(key, options) if options else "it takes none")


def _unknown_value(key: str, value: Any) -> str:
    return f"unknown {key} {value!r}: {nearest(str(value), list(_VALUES[key]))}"


def class_ranges(text: str) -> list[tuple[int, int]]:
    """The classes that a text such as "3+5+10-19" names, as (first, last) pairs that neither touch nor overlap.

    ConfigError for any other text.
    """
    ranges: list[tuple[int, int]] = []
    for part in text.split("+"):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        last = last if dash else first
        plain = first.isascii() and last.isascii() and first.isdigit() and last.isdigit()
        if not plain or len(last) > 10 or int(first) > int(last):
            raise ConfigError(f"{text!r} names no classes; write them as 3, 3+5 or 10-19")
        ranges.append((int(first), int(last)))
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _class_text(ranges: list[tuple[int, int]]) -> str:
    return "+".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def parse(text: str) -> NoiseSpec:
    """Read a noise spec such as "symmetric:0.4", "symmetric:0.4,quota=class", "asymmetric:0.4,map=superclass",
    "heterogeneous:0.8,clean=3,strategy=2", "matrix:T.npy", "idn:0.3,inputs=centred", "pmd:0.35,posteriors=P.npy",
    "human:worse", "my.py:flip:0.4,step=2" or "none". Blanks around the parts are dropped, defaults and number forms
    normalised.

    Raises ConfigError (one line, with the nearest valid name) for whatever isn't a spec.
    """
    if not isinstance(text, str):
        raise ConfigError(f"a noise spec is a text such as 'symmetric:0.4', got {type(text).__name__}")
    head, *rest = (part.strip() for part in text.split(","))
    kind, colon, argument = (part.strip() for part in head.partition(":"))
    if own.is_own(head):
        return _parse_own(head, rest)
    if kind == OWN:
        raise ConfigError("write your own noise as FILE.py:NAME, for example my.py:flip:0.4")
    written = _kind(kind)
    fields: dict[str, Any] = {}
    for part in rest:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key not in written.options:
            raise ConfigError(_unknown_option(kind, key))
        if not equals or not value:
            examples = ", ".join(_VALUES[key]) if key in _VALUES else _EXAMPLES.get(key, "3+5")
            raise ConfigError(f"noise {kind!r}: option {key!r} needs a value: {examples}")
        if key in fields:
            raise ConfigError(f"noise {kind!r}: option {key!r} is given twice")
        if key in _VALUES and value not in _VALUES[key]:
            raise ConfigError(f"noise {kind!r}: {_unknown_value(key, value)}")
        fields[key] = _VALUES[key][value] if key in _VALUES else value
    if colon:
        if not argument:
            raise ConfigError(f"noise {kind!r}: nothing follows the colon in {text!r}")
        match written.argument:
            case "RATE":
                fields["rate"] = _rate(kind, argument)
            case "SIGMA":
                fields["sigma"] = _number(kind, "sigma", argument)
            case None:
                raise ConfigError(f"noise {kind!r} takes nothing after a colon, got {argument!r}")
            case _:
                fields["name"] = argument
    return NoiseSpec(kind, **fields)


def _number(kind: str, key: str, value: Any) -> float:
    """A finite number, also from its text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"noise {kind!r}: {key}={shown(value)} must be a finite number")
    return number


def _rate(what: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"noise {what!r}: {text!r} is not a rate; give a number in [0, 1]") from None


def _parse_own(head: str, rest: list[str]) -> NoiseSpec:
    """FILE.py:NAME or FILE.py:NAME:RATE, and the parts behind it."""
    file, _, behind = head.partition(".py:")
    function, colon, argument = (part.strip() for part in behind.partition(":"))
    name = f"{file}.py:{function}"
    if colon and not argument:
        raise ConfigError(f"noise {name!r}: nothing follows the colon in {head!r}")
    settings = []
    for part in rest:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise ConfigError(f"noise {name!r}: {part!r} is not a setting; write NAME=VALUE, as in step=2")
        settings.append((key, value))
    return NoiseSpec(OWN, _rate(name, argument) if colon else None, name, settings=tuple(settings))


def check_noise(text: str) -> NoiseSpec:
    """The spec that a text is, once the function that it may name is there. ConfigError as `parse` and `own.load`."""
    spec = parse(text)
    if spec.kind == OWN:
        own.load(str(spec.name), "noise")
    return spec


def with_absolute_paths(text: str) -> str:
    """The canonical text of a spec, its files named from the root, for use in any folder. ConfigError as `parse`."""
    spec = parse(text)
    if spec.kind == OWN:
        return str(dataclasses.replace(spec, name=own.located(str(spec.name))))
    return with_paths(str(spec), _absolute)


def with_paths(text: str, change: Callable[[str], str]) -> str:
    """A spec with the names of its npy files changed. One that names none stays as it is written."""
    spec = parse(text)
    if spec.kind == "matrix":
        return str(dataclasses.replace(spec, name=change(str(spec.name))))
    return text if spec.posteriors is None else str(dataclasses.replace(spec, posteriors=change(spec.posteriors)))


def _absolute(file: str) -> str:
    return str(expanded(file).absolute())
