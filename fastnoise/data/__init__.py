"""Datasets by name, and the loaders that turn them into batches `(images, index)` on a device.

Labels do not travel with images: `index` says which sample is which, and labels are looked up by it. torchvision,
scikit-learn and DALI are imported by the datasets and loaders that need them, when they do.
"""

from .datasets import DATASETS, load_dataset
from .index import IndexedDataset, with_index
from .loaders import LOADERS, Loader, make_loader
from .plan import Augmentation
from .table import ImageDataset, ImageTable, stratified_split

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
