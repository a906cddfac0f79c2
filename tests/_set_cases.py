"""Small data sets in the forms of real ones, written to a folder."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

IDS = (1, 2, 3, 18, 47, 62)
NAMES = ("person", "bicycle", "car", "dog", "cup", "chair")


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(root: Path, train: int, test: int) -> Path:
    """A set in MNIST's form under `root`, which is returned: each class a bright block in a place of its own."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 60, (count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 4)
            image[2 + 8 * row : 9 + 8 * row, 1 + 7 * column : 7 + 7 * column] += 180
        write_idx(raw / f"{split}-images-idx3-ubyte", images)
        write_idx(raw / f"{split}-labels-idx1-ubyte", labels)
    return root


def write_coco(root: Path, name: str, count: int, seed: int = 0) -> tuple[Path, Path, np.ndarray]:
    """An annotation file and a folder of images: category c is a block of a colour of its own."""
    folder = root / name
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    labels = random.random((count, len(IDS))) < 0.3
    labels[0] = False  # an image may show nothing
    images, annotations = [], []
    for row in range(count):
        pixels = random.integers(0, 60, (90 + row % 7, 100, 3)).astype(np.uint8)
        for column in np.flatnonzero(labels[row]):
            top, left = 30 * (column // 3), 32 * (column % 3)
            pixels[top : top + 28, left : left + 28, column % 3] = 220
            annotation = {
                "id": len(annotations),
                "image_id": 1000 + row,
                "category_id": IDS[column],
                "bbox": [0, 0, 1, 1],
            }
            annotations += [annotation, annotation | {"iscrowd": 1}]
        images.append({"id": 1000 + row, "file_name": f"{row:06}.png", "width": 100})
        Image.fromarray(pixels).save(folder / f"{row:06}.png")
    categories = [{"id": number, "name": name} for number, name in zip(IDS, NAMES, strict=True)][::-1]
    file = root / f"{name}.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file, folder, labels
