"""Data sets by name, without importing any: a data set is its file and a line here."""

from .. import own
from ..errors import ConfigError, nearest

DATASETS: dict[str, str] = {
    "digits": "fastnoise.data.digits:load_digits",
    "mnist": "fastnoise.data.mnist:load_mnist",
    "cifar10": "fastnoise.data.cifar:load_cifar",
    "cifar100": "fastnoise.data.cifar:load_cifar",
    "cifar10n": "fastnoise.data.cifar:load_cifar_n",
    "cifar100n": "fastnoise.data.cifar:load_cifar_n",
}
"""Name -> MODULE:NAME of a function `(name, root: Path, download: bool) -> ImageDataset`, whose root may be None for
what lies under none."""

ROOTLESS = frozenset({"digits"})
"""Those that lie under no root."""

FOLDER = "folder:"
"""How the name of a data set of class folders begins."""

FORMS: tuple[str, ...] = (*DATASETS, "folder:PATH", "FILE.py:NAME")
"""The forms in which a data set can be written."""


def is_named(name: str) -> bool:
    """Whether a data set can be loaded by this name, at any time; else it was given as arrays."""
    return name in DATASETS or name.startswith(FOLDER) or own.is_own(name)


def check_dataset(name: str) -> None:
    """ConfigError for an unknown data set, with the nearest and all valid names, or for what is wrong with FILE.py."""
    if own.is_own(name):
        own.load(name, "dataset")
    elif name == FOLDER:
        raise ConfigError("the dataset folder:PATH needs the path of a folder after the colon")
    elif not is_named(name):
        raise ConfigError(f"unknown dataset {name!r}; {nearest(name, list(FORMS))}")
