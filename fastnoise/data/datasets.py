"""Data sets by name."""

from dataclasses import replace
from pathlib import Path

from .. import lazy, own
from ..errors import ConfigError, DataError
from .folder import load_folder
from .names import DATASETS, FOLDER, check_dataset, family, needs_root
from .table import ImageDataset


def load_dataset(name: str, root: str | Path | None, *, download: bool = True) -> ImageDataset:
    """Load a data set by name from the folder `root`. Missing files are downloaded if `download` allows it.

    digits        scikit-learn's 1,797 digits, 8 x 8 grey, 80/20 per class with seed 0; needs no root
    mnist         ROOT/MNIST/raw/*-ubyte
    cifar10       ROOT/cifar-10-batches-py
    cifar100      ROOT/cifar-100-python
    cifar10n      cifar10 and ROOT/CIFAR-10_human.pt or ROOT/cifar_n_labels.npz
    cifar100n     cifar100 and ROOT/CIFAR-100_human.pt or ROOT/cifar_n_labels.npz
    mnist-canvas  several digits of mnist on a canvas, and which they are (`load_canvas`)
    coco:...      several labels an image, by annotation files of COCO's form (`load_coco`)
    rotated:...   digits or other images, and the angles that they are turned by (`load_rotated`)
    values:...    image files and the values that a CSV gives them (`load_values`)
    folder:PATH   class folders, see `load_folder`; needs no root
    FILE.py:NAME  the result of a user's function (fastnoise/extend.md)

    A missing root is created for a download; its parent folder must exist. ConfigError for an unknown name, DataError
    for data that is missing, damaged or of the wrong form.
    """
    check_dataset(name)
    if name.startswith(FOLDER):
        return load_folder(Path(name.removeprefix(FOLDER)).expanduser())
    path = None if root is None else Path(root).expanduser()
    if own.is_own(name):
        return _own(name, path, download)
    if path is None and needs_root(name):
        raise ConfigError(f"{name} needs a data root: the folder that holds its files or will hold them")
    dataset: ImageDataset = lazy.named(DATASETS[family(name)])(name, path, download)
    return dataset


def _own(name: str, root: Path | None, download: bool) -> ImageDataset:
    """The data set that a user's function returns. Its labels count as given labels."""
    flag = f"--dataset {name}"
    found = own.call(own.load(name, "dataset"), flag, root=root, download=download)
    if not isinstance(found, ImageDataset):
        raise DataError(
            f"{flag} gives {type(found).__name__}; it must return a fastnoise.ImageDataset, such as "
            "fastnoise.ImageDataset.from_arrays(images, labels)"
        )
    return replace(found, given_labels=True)
