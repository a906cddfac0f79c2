"""scikit-learn's handwritten digits: a data set that needs no file."""

from pathlib import Path

import numpy as np

from .table import ImageDataset, ImageTable, stratified_split

TEST_FRACTION = 0.2
SPLIT_SEED = 0


def load_digits(name: str, root: Path | None, download: bool) -> ImageDataset:
    """1,797 images, 8 x 8 and grey, split 80/20 per class with a fixed seed; scikit-learn brings them."""
    from sklearn.datasets import load_digits as bundled

    digits = bundled()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    table = ImageTable(digits.target, images=images)
    kept, held_out = stratified_split(table.labels, TEST_FRACTION, SPLIT_SEED)
    scaled = images[kept] / 255
    return ImageDataset(
        name=name,
        train=table.take(kept),
        test=table.take(held_out),
        class_names=tuple(map(str, digits.target_names)),
        mean=(float(scaled.mean()),),
        std=(float(scaled.std()),),
    )
