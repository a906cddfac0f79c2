"""Noise models by name: how each is written."""

from typing import Literal, NamedTuple


class Kind(NamedTuple):
    """How a noise model is written: NAME[:ARGUMENT][,key=value...]."""

    argument: Literal["RATE", "NAME", "FILE", "SIGMA", None]
    """What follows the colon."""
    options: tuple[str, ...] = ()
    example: str = ""
    """An example for help texts, with all that the noise requires."""
    tasks: tuple[str, ...] | None = ("classification", "multitask")
    """The tasks whose labels it is for (`fastnoise.tasks`); None: any."""


NOISES: dict[str, Kind] = {
    "none": Kind(None, (), "none", None),
    "symmetric": Kind("RATE", ("true_class", "quota", "classes"), "symmetric:R"),
    "asymmetric": Kind("RATE", ("map", "quota", "sequential"), "asymmetric:R"),
    "pair": Kind("RATE", ("quota",), "pair:R"),
    "human": Kind("NAME", (), "human:NAME"),
    "matrix": Kind("FILE", (), "matrix:T.npy"),
    "heterogeneous": Kind("RATE", ("clean", "strategy"), "heterogeneous:R,clean=3"),
    "idn": Kind("RATE", ("variant", "inputs", "posteriors"), "idn:R"),
    "pmd": Kind("RATE", ("type", "hybrid", "map", "posteriors"), "pmd:R,posteriors=P.npy"),
    "swap": Kind("RATE", ("group", "cardinality"), "swap:R", ("multilabel",)),
    "gaussian": Kind("SIGMA", ("low", "high"), "gaussian:SIGMA", ("regression",)),
}

OWN = "own"
"""The kind of FILE.py:NAME. In a spec it is written as FILE.py:NAME, not as this word."""

FORMS: tuple[str, ...] = (*(kind.example for kind in NOISES.values()), "FILE.py:NAME:R")
"""The forms in which a noise can be written."""
