"""Data sets by name, and the loaders that turn them into batches `(images, index)` on a device.

Labels do not travel with images: `index` says which sample is which, and labels are looked up by it. Importing this
package imports no torch: `DATASETS` is a table of names, and the rest is loaded where it is used. torchvision,
scikit-learn and DALI are imported by the data sets and loaders that need them, when they do.
"""

from typing import TYPE_CHECKING

from .. import lazy
from .names import DATASETS

if TYPE_CHECKING:
    from .augment import Augmentation
    from .datasets import load_dataset
    from .index import IndexedDataset, with_index
    from .loaders import LOADERS, Loader, make_loader
    from .table import ImageDataset, ImageTable, stratified_split

__getattr__ = lazy.attributes(
    __name__,
    {
        "load_dataset": "datasets",
        **dict.fromkeys(("IndexedDataset", "with_index"), "index"),
        **dict.fromkeys(("LOADERS", "Loader", "make_loader"), "loaders"),
        "Augmentation": "augment",
        **dict.fromkeys(("ImageDataset", "ImageTable", "stratified_split"), "table"),
    },
)


__all__ = [
    "DATASETS",
    "LOADERS",
    "Augmentation",
    "ImageDataset",
    "ImageTable",
    "IndexedDataset",
    "Loader",
    "load_dataset",
    "make_loader",
    "stratified_split",
    "with_index",
]
