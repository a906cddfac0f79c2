"""Images with their labels: what a dataset is made of, and how a part of it is held out."""

from dataclasses import dataclass, field

import numpy as np

from ..errors import ConfigError, DataError
from .images import image_size

DEFAULT_IMAGE_SIZE = (224, 224)
"""Height and width that image files are resized to when they have no size in common."""


@dataclass(frozen=True, eq=False)
class ImageTable:
    """Labelled images, either in memory or as files.

    Give `images` or `files`, not both. DataError where labels and images do not match in number or form.
    """

    labels: np.ndarray
    """int64 [N]."""
    images: np.ndarray | None = None
    """uint8 [N, H, W, C], C-contiguous."""
    files: tuple[str, ...] = ()
    """One path per sample; decoded to RGB by the loader."""
    size: tuple[int, int] = (0, 0)
    """Height and width of the images, or those that files are resized to. Found from the data when not given: files
    share the size of the first 16 where that is one size, else DEFAULT_IMAGE_SIZE."""

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"labels must be integers of shape [N], not {labels.dtype} of shape {list(labels.shape)}")
        object.__setattr__(self, "labels", np.ascontiguousarray(labels, dtype=np.int64))
        if self.images is not None and self.files:
            raise DataError("an image table holds an array of images or files, not both")
        if self.images is None:
            object.__setattr__(self, "files", tuple(map(str, self.files)))
            if self.size == (0, 0):
                object.__setattr__(self, "size", common_size([image_size(file) for file in self.files[:16]]))
        else:
            if self.images.ndim != 4 or self.images.dtype != np.uint8 or 0 in self.images.shape[1:]:
                shape = list(self.images.shape)
                raise DataError(f"images must be uint8 of shape [N, H, W, C], not {self.images.dtype} of shape {shape}")
            object.__setattr__(self, "images", np.ascontiguousarray(self.images))
            object.__setattr__(self, "size", self.images.shape[1:3])
        count = len(self.files) if self.images is None else len(self.images)
        if count != len(labels):
            raise DataError(f"{count} images but {len(labels)} labels: there must be one label for each image")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a sample as the model gets it."""
        return (3 if self.images is None else self.images.shape[3], *self.size)

    def take(self, positions: np.ndarray) -> "ImageTable":
        """The samples at these positions, in this order, as a table of their own."""
        if self.images is None:
            return ImageTable(self.labels[positions], files=tuple(self.files[i] for i in positions), size=self.size)
        return ImageTable(self.labels[positions], images=self.images[positions])


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A training and a test table over the same classes."""

    name: str
    train: ImageTable
    test: ImageTable
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Per channel, of pixels scaled to 0..1."""
    std: tuple[float, ...]
    human_labels: dict[str, np.ndarray] = field(default_factory=dict)
    """Other people's labels of the training images by annotation name, each int64 [N]."""

    def __post_init__(self) -> None:
        for split, table in (("training", self.train), ("test", self.test)):
            if len(table) == 0:
                raise DataError(f"{self.name}: the {split} set is empty")
            if table.labels.min() < 0 or table.labels.max() >= self.num_classes:
                low, high = table.labels.min(), table.labels.max()
                raise DataError(f"{self.name}: {split} labels span {low}..{high}, outside 0..{self.num_classes - 1}")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def common_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """The one size (height, width) that all of these have, else DEFAULT_IMAGE_SIZE."""
    return sizes[0] if len(set(sizes)) == 1 else DEFAULT_IMAGE_SIZE


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split positions 0..N-1 so that each class gives `fraction` of its samples, rounded, to the second part.

    Returns (kept, held_out), sorted int64 positions. A pure function of its arguments. ConfigError unless
    0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"the held-out fraction must be at least 0 and below 1, not {fraction}")
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    held_out = [
        members[: int(fraction * len(members) + 0.5)]
        for members in (shuffled[labels[shuffled] == label] for label in np.unique(labels))
    ]
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[np.concatenate([np.empty(0, dtype=np.int64), *held_out])] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
