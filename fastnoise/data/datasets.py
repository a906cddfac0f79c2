"""Datasets by name."""

from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError, nearest
from .cifar import load_cifar, load_cifar_n
from .download import complete
from .folder import load_folder
from .images import one_line
from .table import ImageDataset, ImageTable, stratified_split

DATASETS = ("digits", "mnist", "cifar10", "cifar100", "cifar10n", "cifar100n")
"""All but "folder:PATH"."""

DIGITS_TEST_FRACTION = 0.2
DIGITS_SPLIT_SEED = 0


def load_dataset(name: str, root: str | Path | None, *, download: bool = True) -> ImageDataset:
    """Load a dataset by name from under `root`, downloading what is missing where that is allowed.

    digits        scikit-learn's 1,797 digits, 8 x 8 grey, 80/20 per class with seed 0; needs no root
    mnist         ROOT/MNIST/raw/*-ubyte
    cifar10       ROOT/cifar-10-batches-py
    cifar100      ROOT/cifar-100-python
    cifar10n      cifar10 and ROOT/CIFAR-10_human.pt or ROOT/cifar_n_labels.npz
    cifar100n     cifar100 and ROOT/CIFAR-100_human.pt or ROOT/cifar_n_labels.npz
    folder:PATH   class folders, see `load_folder`; needs no root

    A missing root is created for a download, its parents are not. ConfigError for an unknown name, DataError for data
    that is missing, damaged or of the wrong form.
    """
    if name.startswith("folder:"):
        if name == "folder:":
            raise ConfigError("the dataset folder:PATH needs the path of a folder after the colon")
        return load_folder(Path(name.removeprefix("folder:")).expanduser())
    if name not in DATASETS:
        raise ConfigError(f"unknown dataset {name!r}: {nearest(name, [*DATASETS, 'folder:PATH'])}")
    if name == "digits":
        return _digits()
    if root is None:
        raise ConfigError(f"{name} needs a data root: the folder that holds its files or is to hold them")
    root = Path(root).expanduser()
    if name == "mnist":
        return _mnist(root, download)
    return (load_cifar_n if name.endswith("n") else load_cifar)(name, root, download)


def _digits() -> ImageDataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    table = ImageTable(digits.target, images=images)
    kept, held_out = stratified_split(table.labels, DIGITS_TEST_FRACTION, DIGITS_SPLIT_SEED)
    scaled = images[kept] / 255
    return ImageDataset(
        name="digits",
        train=table.take(kept),
        test=table.take(held_out),
        class_names=tuple(map(str, digits.target_names)),
        mean=(float(scaled.mean()),),
        std=(float(scaled.std()),),
    )


def _mnist(root: Path, download: bool) -> ImageDataset:
    from torchvision.datasets import MNIST
    from torchvision.datasets.mnist import read_image_file, read_label_file

    raw = root / "MNIST" / "raw"

    def get() -> None:
        root.mkdir(exist_ok=True)
        MNIST(str(root), download=True)

    complete(
        [raw / file.removesuffix(".gz") for file, _ in MNIST.resources],
        name="mnist",
        remedy=f"put the four files {MNIST.mirrors[0]}*.gz, unpacked, into {raw}",
        download=get if download else None,
    )

    def read(file: str) -> np.ndarray:
        reader = read_label_file if "labels" in file else read_image_file
        try:
            return reader(str(raw / file)).numpy()
        except Exception as error:  # torchvision's reader asserts, and fails inside torch, on damaged files
            raise DataError(f"{raw / file} is damaged ({one_line(error)}): delete it and get it again") from error

    def table(split: str) -> ImageTable:
        images = read(f"{split}-images-idx3-ubyte")[..., None]
        return ImageTable(read(f"{split}-labels-idx1-ubyte"), images=images)

    return ImageDataset(
        name="mnist",
        train=table("train"),
        test=table("t10k"),
        class_names=tuple(map(str, range(10))),
        mean=(0.1307,),
        std=(0.3081,),
    )
