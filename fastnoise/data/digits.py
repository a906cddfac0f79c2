"""scikit-learn's handwritten digits: a data set that needs no file."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .table import ImageDataset, ImageTable, stratified_split

TEST_FRACTION = 0.2
SPLIT_SEED = 0


def load_digits(name: str, root: Path | None, download: bool) -> ImageDataset:
    """1,797 images, 8 x 8 and grey, split 80/20 per class with a fixed seed; scikit-learn brings them."""
    spec = find_spec("sklearn")  # its function `load_digits` reads this file too, but takes a second to import
    assert spec is not None
    assert spec.origin is not None
    digits = np.loadtxt(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    images = np.rint(digits[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    table = ImageTable(digits[:, -1].astype(np.int64), images=images)
    kept, held_out = stratified_split(table.labels, TEST_FRACTION, SPLIT_SEED)
    scaled = images[kept] / 255
    return ImageDataset(
        name=name,
        train=table.take(kept),
        test=table.take(held_out),
        class_names=tuple("0123456789"),
        mean=(float(scaled.mean()),),
        std=(float(scaled.std()),),
    )
