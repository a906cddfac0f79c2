"""Data sets by name."""

from dataclasses import replace
from pathlib import Path

from .. import lazy, own
from ..errors import ConfigError, DataError
from ..files import expanded
from .folder import FileSet, find_folder, read_files
from .lists import find_list
from .members import Members
from .names import CHECKED, DATASETS, FOLDER, check_dataset, family, needs_root
from .table import ImageDataset, ImageTable
from .texts import Texts


def load_dataset(
    name: str, root: str | Path | None, *, download: bool = True, exif: bool = True, skip_unreadable: bool = False
) -> ImageDataset:
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
    mini_coco     25,000 of COCO's training images and its validation images (`load_mini_coco`)
    animal10n, blue_mini_imagenet, chaoyang, chest_xray, clothing1m, food101n, imagenet, mini_webvision,
    red_mini_imagenet, tiny_imagenet, webvision: in their official layouts under ROOT (`fastnoise.data.facts`); they are
                  not downloaded
    folder:PATH   class folders, see `find_folder`; needs no root
    list:FILE     a CSV of paths and labels, see `find_list`; needs no root
    FILE.py:NAME  the result of a user's function (fastnoise/extend.md)

    `exif` says whether image files are turned upright as the camera noted; `skip_unreadable` leaves out what cannot be
    decoded of a folder or list, which else is refused. A missing root is created for a download; its parent folder must
    exist. ConfigError for an unknown name, DataError for data that is missing, damaged or of the wrong form.
    """
    check_dataset(name)
    if family(name) in CHECKED:
        return read_files(find_files(name), exif=exif, skip_unreadable=skip_unreadable)
    path = None if root is None else expanded(root)
    if own.is_own(name):
        return _own(name, path, download)
    if path is None and needs_root(name):
        raise ConfigError(f"{name} needs a data root: the folder that holds its files or will hold them")
    dataset: ImageDataset = lazy.named(DATASETS[family(name)])(name, path, download)
    if exif:
        return dataset
    validation = None if dataset.validation is None else _stored(dataset.validation)
    second = {name: _stored(table) for name, table in dataset.second_tests.items()}
    stored = replace(dataset, train=_stored(dataset.train), test=_stored(dataset.test))
    return replace(stored, validation=validation, second_tests=second)


def _stored(table: ImageTable) -> ImageTable:
    """A table whose files are not turned upright, and so may have another size, unless the data set sets it."""
    if table.images is not None:
        return table
    is_set = isinstance(table.files, Texts) and not isinstance(table.files, Members)
    return replace(table, exif=False, size=table.size if is_set else (0, 0))


def find_files(name: str) -> FileSet:
    """The files of a folder or list, as they are before any is read."""
    path = expanded(name.partition(":")[2])
    return find_folder(path) if name.startswith(FOLDER) else find_list(path)


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
