"""What one difference between fastnoise and the authors' code is."""

from typing import Any, NamedTuple

CIFAR10, CIFAR100 = ("cifar10", "cifar10n"), ("cifar100", "cifar100n")
CIFAR = (*CIFAR10, *CIFAR100)


class Deviation(NamedTuple):
    """One difference that stays."""

    key: str
    """Its name, by which a test finds it."""
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    """() for all data sets."""
    what: str
    """What the authors' code does, and what fastnoise does."""
    why: str
    field: str = ""
    """The configuration's field whose published value the recipe does not have; "" if no field says it."""
    theirs: Any = None
    """The authors' value of `field`."""
    kinds: tuple[str, ...] = ()
    """Kinds of noise that it is limited to; () for all."""
    size: str = ""
    """How large it is. A test counts it anew."""
    uncounted: str = ""
    """Why there is no size that can be counted in a second."""

    def holds(self, method: str, dataset: str, kind: str) -> bool:
        """Whether it concerns such a run."""
        return method in self.methods and dataset in (self.datasets or (dataset,)) and kind in (self.kinds or (kind,))

    def describe(self) -> str:
        """In one line."""
        return f"{self.what} Size: {self.extent} Why: {self.why}"

    @property
    def extent(self) -> str:
        """Its size, or why it has none, as a sentence."""
        return f"{self.size}." if self.size else f"not counted: {self.uncounted}"
