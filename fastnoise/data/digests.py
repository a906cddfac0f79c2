"""Hashes by which a later start knows a data set again, beside that of its list (`ImageDataset.list_hash`)."""

import hashlib
import os

import numpy as np

from .features import TRUE, parts_of
from .members import Member, Members
from .table import ImageDataset
from .texts import add_samples


def rest_hash(dataset: ImageDataset) -> str:
    """SHA-256 of the labels that the hash of the list leaves out: those for validation, with the names of their images,
    and the true ones that are known."""
    digest = hashlib.sha256()
    if dataset.validation is not None:
        add_samples(digest, dataset.validation.names, dataset.validation.labels)
    for name in TRUE:
        if (labels := getattr(dataset, name)) is not None:
            add_samples(digest, (name,), labels)
    return digest.hexdigest()


def files_hash(dataset: ImageDataset) -> str:
    """SHA-256 of the sizes and times of change of all image files, or of those that hold them; empty if there are none.
    OSError if one is missing."""
    digest, none = hashlib.sha256(), True
    for table in parts_of(dataset).values():
        files = table.files.files if isinstance(table.files, Members) else table.files
        paths = (file.file if isinstance(file, Member) else file for file in files)
        found = [(stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, paths)]
        digest.update(np.array(found, "<i8").tobytes())
        none &= not found
    return "" if none else digest.hexdigest()
