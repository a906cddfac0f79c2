"""MNIST, in the files that it is published as."""

from pathlib import Path

import numpy as np

from ..errors import DataError
from .download import complete
from .images import one_line
from .table import ImageDataset, ImageTable


def load_mnist(name: str, root: Path, download: bool) -> ImageDataset:
    """ROOT/MNIST/raw/*-ubyte, where torchvision puts them."""
    from torchvision.datasets import MNIST
    from torchvision.datasets.mnist import read_image_file, read_label_file

    raw = root / "MNIST" / "raw"

    def get() -> None:
        root.mkdir(exist_ok=True)
        MNIST(str(root), download=True)

    complete(
        [raw / file.removesuffix(".gz") for file, _ in MNIST.resources],
        name=name,
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
        name=name,
        train=table("train"),
        test=table("t10k"),
        class_names=tuple(map(str, range(10))),
        mean=(0.1307,),
        std=(0.3081,),
    )
