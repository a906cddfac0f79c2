"""Class folders of image files."""

from pathlib import Path

import numpy as np

from ..errors import DataError
from .images import EXTENSIONS, image_size
from .table import ImageDataset, ImageTable, common_size, stratified_split

TEST_FRACTION = 0.2
SPLIT_SEED = 0
IMAGENET_MEAN_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_folder(path: Path) -> ImageDataset:
    """PATH/train/CLASS/* and PATH/test/CLASS/* (or val for test), classes in the order of their names.

    Without test and val, and where PATH holds the class folders themselves, every fifth image of each class (drawn with
    a fixed seed) is the test set. Every file's header is read, so that what is no image is found here. Files that all
    have one size keep it; others are resized to 224 x 224 unless the loader is told another size.
    """
    if not path.is_dir():
        raise DataError(f"{path} is not a folder: give a folder that holds a folder of images for each class")
    train_path = path / "train" if (path / "train").is_dir() else path
    test_path = next((path / split for split in ("test", "val") if (path / split).is_dir()), None)
    if test_path is not None and train_path == path:
        raise DataError(f"{path} has a folder {test_path.name} but no folder train")
    train = _class_files(train_path)
    test = {} if test_path is None else _class_files(test_path)
    if test_path is not None and train.keys() != test.keys():
        odd = ", ".join(sorted(train.keys() ^ test.keys()))
        raise DataError(f"{train_path} and {test_path} must hold the same classes; only one of them has: {odd}")
    size = common_size([image_size(file) for files in (*train.values(), *test.values()) for file in files])
    train_table = _table(path, train, size)
    if test_path is None:
        kept, held_out = stratified_split(train_table.labels, TEST_FRACTION, SPLIT_SEED)
        train_table, test_table = train_table.take(kept), train_table.take(held_out)
    else:
        test_table = _table(path, test, size)
    name = f"folder:{path}"
    return ImageDataset(name, train_table, test_table, tuple(train), *IMAGENET_MEAN_STD, given_labels=True)


def _class_files(path: Path) -> dict[str, list[str]]:
    classes = {
        folder.name: sorted(str(file) for file in folder.iterdir() if file.suffix.lower() in EXTENSIONS)
        for folder in sorted(path.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    if not classes:
        raise DataError(f"{path} holds no class folders: put each class's images into a folder of its own there")
    if empty := [name for name, files in classes.items() if not files]:
        raise DataError(f"{path / empty[0]} holds no images ({' '.join(EXTENSIONS)}): fill or remove it")
    return classes


def _table(path: Path, classes: dict[str, list[str]], size: tuple[int, int]) -> ImageTable:
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    files = tuple(file for files in classes.values() for file in files)
    return ImageTable(labels, files=files, size=size, names=tuple(str(Path(file).relative_to(path)) for file in files))
