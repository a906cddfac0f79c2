"""Images with their labels: what a dataset is made of, and how a part of it is held out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ConfigError, DataError
from .images import image_size
from .names import is_named

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
    names: tuple[str, ...] = ()
    """What the samples are called, one text each; empty where they have no names."""

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
        if self.names and len(self.names) != count:
            raise DataError(f"{len(self.names)} names for {count} images: give one for each, or none")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a sample as the model gets it."""
        return (3 if self.images is None else self.images.shape[3], *self.size)

    def take(self, positions: np.ndarray) -> "ImageTable":
        """The samples at these positions, in this order, as a table of their own."""
        names = tuple(self.names[i] for i in positions) if self.names else ()
        labels = self.labels[positions]
        if self.images is None:
            return ImageTable(labels, files=tuple(self.files[i] for i in positions), size=self.size, names=names)
        return ImageTable(labels, images=self.images[positions], names=names)


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
    given_labels: bool = False
    """Whether `train.labels` are labels as someone gave them, right or wrong, and not the true ones."""
    clean_labels: np.ndarray | None = None
    """int64 [N], the true classes of the training images, where `train.labels` are given ones and they are known."""
    task: str = "classification"
    """What is learnt from it, by name (`fastnoise.tasks`)."""

    def __post_init__(self) -> None:
        if self.clean_labels is not None:
            clean = _class_labels(f"{self.name}: clean_labels", self.clean_labels, len(self.train))
            if clean.min() < 0 or clean.max() >= self.num_classes:
                span = f"{clean.min()}..{clean.max()}"
                raise DataError(f"{self.name}: clean labels span {span}, outside 0..{self.num_classes - 1}")
            object.__setattr__(self, "clean_labels", clean)
        for split, table in (("training", self.train), ("test", self.test)):
            if len(table) == 0:
                raise DataError(f"{self.name}: the {split} set is empty")
            if table.labels.min() < 0 or table.labels.max() >= self.num_classes:
                low, high = table.labels.min(), table.labels.max()
                raise DataError(f"{self.name}: {split} labels span {low}..{high}, outside 0..{self.num_classes - 1}")

    @classmethod
    def from_arrays(
        cls,
        images: ArrayLike,
        labels: ArrayLike,
        *,
        clean_labels: ArrayLike | None = None,
        names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        test_images: ArrayLike | None = None,
        test_labels: ArrayLike | None = None,
        name: str = "arrays",
    ) -> "ImageDataset":
        """A data set of arrays in memory, whose labels are as they are given: some may be wrong.

        Args:
            images: of the training set, uint8 [N, H, W, C], or [N, H, W] for grey ones.
            labels: the given classes, integers [N] from 0.
            clean_labels: the true classes, integers [N], where they are known. A run then says how many of the given
                labels are wrong, and what became of them; it never trains on the true ones.
            names: N different texts, what the samples are called in tables; where some are held out for the test, by
                default their places in `images`.
            class_names: C different texts; by default the classes' numbers, up to the largest label.
            test_images: uint8 [M, H, W, C] or [M, H, W]. Without them a fifth of each class, drawn with a fixed seed,
                is taken out of the training set for the test.
            test_labels: integers [M].
            name: of the data set.

        Raises:
            DataError: arrays of another form, or that do not fit each other.
            ConfigError: the name of a data set that fastnoise has.
        """
        if is_named(name) or not name:
            raise ConfigError(f"name {name!r} is that of another data set; choose one of your own")
        pixels = _pixels("images", images)
        given = _class_labels("labels", labels, len(pixels))
        clean = None if clean_labels is None else _class_labels("clean_labels", clean_labels, len(pixels))
        train = ImageTable(given, images=pixels, names=_texts("names", names))
        if (test_images is None) != (test_labels is None):
            raise DataError("test_images and test_labels go together: give both, or neither")
        if test_images is None:
            truth = given if clean is None else clean
            train = train if train.names else replace(train, names=tuple(map(str, range(len(pixels)))))
            kept, held_out = stratified_split(truth, TEST_FRACTION, SPLIT_SEED)
            if not len(held_out):
                raise DataError(f"{len(pixels)} images are too few to hold some out for the test; give test_images")
            test = ImageTable(truth, images=pixels, names=train.names).take(held_out)
            train, clean = train.take(kept), None if clean is None else clean[kept]
        else:
            others = _pixels("test_images", test_images)
            if others.shape[1:] != pixels.shape[1:]:
                raise DataError(
                    f"test_images are {list(others.shape[1:])} and images {list(pixels.shape[1:])} (height, width, "
                    "channels): they must be of one form"
                )
            test = ImageTable(_class_labels("test_labels", test_labels, len(others)), images=others)
        if class_names is None:
            found = [array for array in (train.labels, test.labels, clean) if array is not None]
            class_names = [str(label) for label in range(max(2, *(int(array.max()) + 1 for array in found)))]
        assert train.images is not None
        mean, std = _statistics(train.images)
        classes = _texts("class_names", class_names)
        return cls(name, train, test, classes, mean, std, given_labels=True, clean_labels=clean)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


TEST_FRACTION = 0.2
"""Of arrays that come without a test set."""
SPLIT_SEED = 0
_AT_ONCE = 4096


def _pixels(what: str, images: Any) -> np.ndarray:
    """uint8 [N, H, W, C], else DataError."""
    array = np.asarray(images)
    form = f"{array.dtype} {list(array.shape)}"
    if array.dtype != np.uint8:
        scale = "; scale them, as in (255 * images).round().astype(np.uint8)" if array.dtype.kind == "f" else ""
        raise DataError(f"{what} must be uint8, 0..255, not {form}{scale}")
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape:
        raise DataError(f"{what} must be of shape [N, H, W, C], or [N, H, W] for grey ones, not {form}")
    if array.shape[1] in (1, 3) and array.shape[3] > 4:
        raise DataError(f"{what} must have their channels last, [N, H, W, C], not {form}: transpose(0, 2, 3, 1) them")
    return np.ascontiguousarray(array)


def _class_labels(what: str, labels: Any, count: int) -> np.ndarray:
    """int64 [count], else DataError."""
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{what} must be integers of shape [N], not {array.dtype} {list(array.shape)}")
    if len(array) != count:
        raise DataError(f"{what}: {len(array)} for {count} images: there must be one for each")
    if int(array.min(initial=0)) < 0 or int(array.max(initial=0)) >= 2**31:
        raise DataError(f"{what} must be classes from 0, not {array.min()}..{array.max()}")
    return np.ascontiguousarray(array, dtype=np.int64)


def _texts(what: str, texts: Sequence[str] | None) -> tuple[str, ...]:
    """Different texts, else DataError."""
    if texts is None:
        return ()
    if isinstance(texts, str):
        raise DataError(f"{what} must be a list of texts, not one text")
    found = tuple(map(str, texts))
    if len(set(found)) < len(found):
        twice = Counter(found).most_common(1)[0][0]
        raise DataError(f"{what}: {twice!r} stands there twice; each must be of one alone")
    return found


def _statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel's pixels, scaled to 0..1; 1 for the deviation of a constant channel.

    Counted by value, some images at a time, which needs little memory.
    """
    channels = images.shape[3]
    counts = np.zeros((channels, 256), np.int64)
    for first in range(0, len(images), _AT_ONCE):
        part = images[first : first + _AT_ONCE]
        for channel in range(channels):
            counts[channel] += np.bincount(part[..., channel].ravel(), minlength=256)
    shares, values = counts / counts[0].sum(), np.arange(256) / 255
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


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
