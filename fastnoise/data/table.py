"""Images with their labels: what a dataset is made of, and how a part of it is held out."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..checks import as_array
from ..errors import ConfigError, DataError
from .images import image_size, read_bytes
from .names import is_named
from .texts import add_samples, kept, picked

DEFAULT_IMAGE_SIZE = (224, 224)
"""Height and width that image files are resized to when they have no size in common."""

PARTS = ("train", "validation", "test")

Form = Literal["classes", "labels", "values"]


@dataclass(frozen=True, eq=False)
class ImageTable:
    """Labelled images, either in memory or as files.

    Give `images` or `files`, not both. DataError if the labels do not match the images.
    """

    labels: np.ndarray
    """int64 [N]; in other forms than classes, see `form`."""
    images: np.ndarray | None = None
    """uint8 [N, H, W, C], C-contiguous; or frozen features in their place, float16 or float32 [N, 1, 1, D]."""
    files: Sequence[str] = ()
    """One path per sample, kept as a tuple or as `Texts`; decoded to RGB by the loader."""
    size: tuple[int, int] = (0, 0)
    """Height and width of the images, or of the resized files. If not given, it is found from the data: for files it is
    the size of the first 16 if they all have the same, else DEFAULT_IMAGE_SIZE."""
    names: Sequence[str] = ()
    """One name for each sample, as a file's path relative to the data set; empty if they have no names."""
    form: Form = "classes"
    """The form of `labels`. classes: one class each, int64 [N]. labels: for each of C labels whether an image has it,
    uint8 [N, C] of zeros and ones. values: real numbers, float64 [N, K]; an array [N] is taken as K = 1."""
    origin: np.ndarray | None = None
    """int64 [N], the places of the samples in the table that they were taken from; None for a table of its own."""
    exif: bool = True
    """Whether files are turned upright as EXIF notes the camera's orientation."""
    by_pillow: np.ndarray | None = None
    """bool [N]: the files that DALI gets from Pillow, because it reads them otherwise or not at all. If not given, the
    loader of DALI finds out from the files' first bytes."""
    extractor: str = ""
    """Of frozen features: the network that made them, with its weights; empty if it is unknown."""
    content: str = ""
    """Of frozen features: the hash of the file that has them; empty if there is none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", checked_form("labels", self.labels, self.form))
        if self.images is not None and self.files:
            raise DataError("give an image table either images or files, not both")
        if self.images is None:
            object.__setattr__(self, "files", kept(self.files))
            if self.size == (0, 0):
                object.__setattr__(self, "size", common_size([image_size(file, self.exif) for file in self.files[:16]]))
        else:
            pixels = self.images.ndim == 4 and self.images.dtype == np.uint8 and 0 not in self.images.shape[1:]
            if not pixels and not self.is_features:
                shape = list(self.images.shape)
                raise DataError(f"images must be uint8 of shape [N, H, W, C], not {self.images.dtype} of shape {shape}")
            object.__setattr__(self, "images", np.ascontiguousarray(self.images))
            object.__setattr__(self, "size", self.images.shape[1:3])
        count = len(self.files) if self.images is None else len(self.images)
        if count != len(self.labels):
            raise DataError(f"{count} images but {len(self.labels)} labels: there must be one label for each image")
        if self.names and len(self.names) != count:
            raise DataError(f"{len(self.names)} names for {count} images: give one for each, or none")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_features(self) -> bool:
        """Whether `images` are frozen features of a network."""
        array = self.images
        known = array is not None and array.dtype in (np.float16, np.float32) and array.ndim == 4
        return known and array.shape[1:3] == (1, 1)  # type: ignore[union-attr]

    def read_bytes(self, place: int) -> bytes:
        """The bytes of a sample's file, which may lie within another one; DataError if they cannot be read."""
        return read_bytes(self.files[place])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a sample as the model gets it."""
        return (3 if self.images is None else self.images.shape[3], *self.size)

    def take(self, positions: np.ndarray) -> "ImageTable":
        """The samples at these positions, in this order, as a table of their own."""
        names = picked(self.names, positions) if self.names else ()
        labels = self.labels[positions]
        origin = np.asarray(positions) if self.origin is None else self.origin[positions]
        if self.images is None:
            files = picked(self.files, positions)
            by_pillow = None if self.by_pillow is None else self.by_pillow[positions]
            return replace(self, labels=labels, files=files, names=names, by_pillow=by_pillow, origin=origin)
        return replace(self, labels=labels, images=_rows(self.images, positions), names=names, origin=origin)


def _rows(array: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rows of an array; no copy of features that lie one behind the other, which may be larger than the memory."""
    count = len(positions)
    if array.dtype.kind == "f" and count and np.array_equal(positions, np.arange(positions[0], positions[0] + count)):
        return array[positions[0] : positions[0] + count]
    return array[positions]


def joined(tables: Sequence[ImageTable]) -> ImageTable:
    """The samples of several tables of one kind, one table after the other. What a table has once is the first's."""
    if len(tables) == 1:
        return tables[0]
    columns: dict[str, Any] = {}
    for item in fields(ImageTable):
        parts = [getattr(table, item.name) for table in tables]
        if all(isinstance(part, np.ndarray) for part in parts):
            columns[item.name] = np.concatenate(parts)
        elif item.name in ("files", "names"):
            columns[item.name] = tuple(chain.from_iterable(parts)) if all(parts) else ()
        else:
            columns[item.name] = parts[0]
    return ImageTable(**columns)


def checked_form(what: str, labels: ArrayLike, form: Form) -> np.ndarray:
    """Labels as `ImageTable` holds them in a form, else DataError."""
    array = np.asarray(labels)
    given = f"{array.dtype} of shape {list(array.shape)}"
    if form == "values":
        if array.ndim not in (1, 2) or array.dtype.kind not in "iuf" or not array.size:
            raise DataError(f"{what} must be real numbers of shape [N] or [N, K], not {given}")
        values = np.ascontiguousarray(array.reshape(len(array), -1), dtype=np.float64)
        if not np.isfinite(values).all():
            raise DataError(f"{what}: the value of sample {int((~np.isfinite(values)).any(1).argmax())} is not finite")
        return values
    if form == "labels":
        if array.ndim != 2 or array.dtype.kind not in "biu":
            raise DataError(f"{what} must be zeros and ones of shape [N, C], not {given}")
        if ((array != 0) & (array != 1)).any():
            row, column = np.argwhere((array != 0) & (array != 1))[0]
            raise DataError(f"{what}: entry [{row}, {column}] is {array[row, column]}, neither 0 nor 1")
        return np.ascontiguousarray(array, dtype=np.uint8)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{what} must be integers of shape [N], not {given}")
    return np.ascontiguousarray(array, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A training and a test table over the same classes, labels or values, and perhaps one for validation."""

    name: str
    train: ImageTable
    test: ImageTable
    class_names: tuple[str, ...]
    """Of the classes, or of the columns of the labels."""
    mean: tuple[float, ...]
    """Per channel, of pixels scaled to 0..1."""
    std: tuple[float, ...]
    human_labels: dict[str, np.ndarray] = field(default_factory=dict)
    """Labels of the training images by human annotators, by annotation name; each int64 [N]."""
    given_labels: bool = False
    """Whether `train.labels` are given labels, some of which may be wrong, and not the true ones."""
    clean_labels: np.ndarray | None = None
    """int64 [N], the true classes of the training images, if `train.labels` are given ones and these are known; -1
    where they are not. Of other forms they have the shape and dtype of `train.labels`, and all are known."""
    task: str = "classification"
    """The name of the task that is learnt from it (`fastnoise.tasks`)."""
    groups: tuple[int, ...] = ()
    """multitask: how many classes each task has, in the order of the classes."""
    scale: tuple[float, ...] = ()
    """regression: the unit in which a network learns each value; by default their standard deviations."""
    validation: ImageTable | None = None
    """Images for validation, if the data set brings them. Its labels stay as they are given, whatever noise is added to
    those of the training set."""
    notes: tuple[str, ...] = ()
    """What its user should know of it, a line each: as what was left out."""
    test_given: np.ndarray | None = None
    """int64 [M], the classes of the test images as they were given, if `test.labels` are the true ones where these are
    known."""
    test_clean: np.ndarray | None = None
    """int64 [M], the true classes of the test images, -1 where they are unknown; None if all are."""
    validation_clean: np.ndarray | None = None
    """The same of the images for validation."""
    second_tests: Mapping[str, ImageTable] = field(default_factory=dict)
    """Further test sets by short names, as "ilsvrc" of WebVision. A run's figures of one are called by its name, as
    ilsvrc_accuracy, and those of `test` as test_accuracy."""

    def __post_init__(self) -> None:
        sets = {"training": self.train.labels, "test": self.test.labels}
        if self.validation is not None:
            sets["validation"] = self.validation.labels
        sets |= {name: table.labels for name, table in self.second_tests.items()}
        for split, found in sets.items():
            if len(found) == 0:
                raise DataError(f"{self.name}: the {split} set is empty")
        if self.train.labels.ndim == 2:
            self._check_columns()
            return
        if self.clean_labels is not None:
            clean = _class_labels(f"{self.name}: clean_labels", self.clean_labels, len(self.train), least=-1)
            object.__setattr__(self, "clean_labels", clean if (clean >= 0).any() else None)
            sets = {"clean": np.maximum(clean, 0)} | sets
        for split, found in sets.items():
            if found.min() < 0 or found.max() >= self.num_classes:
                span = f"{found.min()}..{found.max()}"
                raise DataError(f"{self.name}: {split} labels span {span}, outside 0..{self.num_classes - 1}")

    def _check_columns(self) -> None:
        """DataError unless the labels of all tables have the same columns, each with its name."""
        tables = {"training": self.train.labels, "test": self.test.labels}
        if self.validation is not None:
            tables["validation"] = self.validation.labels
        tables |= {name: table.labels for name, table in self.second_tests.items()}
        if self.clean_labels is not None:
            clean = checked_form(f"{self.name}: clean_labels", self.clean_labels, self.train.form)
            object.__setattr__(self, "clean_labels", clean)
            tables["clean"] = self.clean_labels
        for what, labels in tables.items():
            if len(labels) == 0:
                raise DataError(f"{self.name}: the {what} set is empty")
            if labels.dtype != self.train.labels.dtype or labels.shape[1:] != (len(self.class_names),):
                raise DataError(
                    f"{self.name}: {what} labels are {labels.dtype} {list(labels.shape)}, and the training labels "
                    f"{self.train.labels.dtype} with {len(self.class_names)} columns that have a name"
                )
        if self.clean_labels is not None and len(self.clean_labels) != len(self.train):
            raise DataError(f"{self.name}: {len(self.clean_labels)} clean labels for {len(self.train)} images")

    @property
    def drawn_test(self) -> bool:
        """Whether the user brought no test images, and some of the others were drawn to be them."""
        return self.given_labels and self.train.origin is not None and self.test.origin is not None

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
        task: str = "classification",
    ) -> "ImageDataset":
        """A data set of arrays in memory. Its labels are taken as they are; some may be wrong.

        Args:
            images: of the training set, uint8 [N, H, W, C], or [N, H, W] for grey ones; or a network's frozen features,
                float16 or float32 [N, D].
            labels: the given labels: classes, integers [N] from 0; for the task multilabel zeros and ones [N, C]; for
                regression real numbers [N] or [N, K].
            clean_labels: the true labels in the same form, if they are known; of classes -1 where one is unknown. A
                run then reports how many given labels are wrong and how they were treated. It never trains on the true
                labels.
            names: N different texts that name the samples in corrected.csv. The default is each sample's position in
                `images` if there are no test images, and no names otherwise.
            class_names: C or K different texts. The default is the numbers of the classes, up to the largest label, or
                the numbers of the columns.
            test_images: [M, ...] in the same form. Without them a fifth of each class is held out as the test
                set, drawn with a fixed seed.
            test_labels: the labels of `test_images`, in the form of `labels`.
            name: the name of the data set, which a configuration gives as its `dataset`.
            task: what is learnt: classification, multilabel or regression.

        Raises:
            DataError: an array has the wrong dtype or shape, or the arrays do not fit each other.
            ConfigError: fastnoise has a data set of this name.
        """
        if is_named(name) or not name:
            raise ConfigError(f"the name {name!r} is not free for a data set; choose another name")
        pixels = _pixels("images", images)
        if task not in FORMS_OF:
            raise ConfigError(f"task {task!r} must be one of {', '.join(FORMS_OF)}")
        form = FORMS_OF[task]
        given = _given_labels("labels", labels, len(pixels), form)
        clean = None
        if clean_labels is not None:
            clean = _given_labels("clean_labels", clean_labels, len(pixels), form, least=-1)
        train = ImageTable(given, images=pixels, names=_texts("names", names), form=form)
        test_given = test_clean = None
        if (test_images is None) != (test_labels is None):
            raise DataError("give both test_images and test_labels, or neither")
        if test_images is None:
            truth = given if clean is None else clean
            if form == "classes":
                truth = np.where(truth < 0, given, truth)  # the best that is known
            train = train if train.names else replace(train, names=tuple(map(str, range(len(pixels)))))
            kept, held_out = stratified_split(truth, TEST_FRACTION, SPLIT_SEED)
            if not len(held_out):
                raise DataError(f"{len(pixels)} images are too few to hold out a test set; give test_images")
            test = ImageTable(truth, images=pixels, names=train.names, form=form).take(held_out)
            if clean is not None and form == "classes":
                test_given, test_clean = given[held_out], clean[held_out]
            train, clean = train.take(kept), None if clean is None else clean[kept]
        else:
            others = _pixels("test_images", test_images)
            if others.shape[1:] != pixels.shape[1:]:
                raise DataError(
                    f"test_images are {list(others.shape[1:])} and images {list(pixels.shape[1:])} (height, width, "
                    "channels): both must have one shape"
                )
            test = ImageTable(_given_labels("test_labels", test_labels, len(others), form), images=others, form=form)
        if class_names is None and given.ndim == 2:
            class_names = list(map(str, range(given.shape[1])))
        if class_names is None:
            found = [array for array in (train.labels, test.labels, clean) if array is not None]
            class_names = [str(label) for label in range(max(2, *(int(array.max()) + 1 for array in found)))]
        assert train.images is not None
        mean, std = (feature_statistics if train.is_features else _statistics)(train.images)
        classes = _texts("class_names", class_names)
        return cls(
            name,
            train,
            test,
            classes,
            mean,
            std,
            given_labels=True,
            clean_labels=clean,
            task=task,
            test_given=test_given,
            test_clean=test_clean,
        )

    @property
    def list_hash(self) -> str:
        """SHA-256 of the names of all samples and classes with the labels: of what a list of the data set says. Of
        features it is also that of their file and of the network that made them, since others have the same list."""
        digest = hashlib.sha256("\0".join(self.class_names).encode("utf-8", "surrogateescape"))
        for table in (self.train, self.test):
            add_samples(digest, table.names, table.labels)
        for text in (self.train.extractor, self.train.content):
            digest.update(text.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @property
    def test_labels(self) -> Literal["true", "partly given", "given"]:
        """What the labels of the test images are. Nobody vouches for given ones, which people bring."""
        if not self.given_labels:
            return "true"
        if self.test_clean is None or (self.test_clean < 0).all():
            return "given"
        return "partly given" if (self.test_clean < 0).any() else "true"

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


TEST_FRACTION = 0.2
"""Of arrays that come without a test set."""
SPLIT_SEED = 0
_AT_ONCE = 4096


def _pixels(what: str, images: Any) -> np.ndarray:
    """uint8 [N, H, W, C], else DataError."""
    array = as_array(what, images)
    form = f"{array.dtype} {list(array.shape)}"
    if array.ndim == 2 and array.dtype in (np.float16, np.float32) and array.size:  # features
        if not np.isfinite(array).all():
            raise DataError(f"{what}: some features are not finite")
        return np.ascontiguousarray(array[:, None, None])
    if array.dtype != np.uint8:
        scale = "; scale them, as in (255 * images).round().astype(np.uint8)" if array.dtype.kind == "f" else ""
        raise DataError(f"{what} must be uint8, 0..255, not {form}{scale}")
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape:
        raise DataError(f"{what} must be of shape [N, H, W, C], or [N, H, W] for grey ones, not {form}")
    if array.shape[1] in (1, 3) and array.shape[3] > 4:
        raise DataError(f"{what} must have their channels last, [N, H, W, C], not {form}; use transpose(0, 2, 3, 1)")
    return np.ascontiguousarray(array)


FORMS_OF: dict[str, Form] = {"classification": "classes", "multilabel": "labels", "regression": "values"}
"""Task -> the form of its labels."""


def _given_labels(what: str, labels: Any, count: int, form: Form, least: int = 0) -> np.ndarray:
    """Labels of `count` images in their form, else DataError; `least` is the smallest class."""
    if form == "classes":
        return _class_labels(what, labels, count, least)
    array = checked_form(what, labels, form)
    if len(array) != count:
        raise DataError(f"{what}: {len(array)} for {count} images: there must be one for each")
    return array


def _class_labels(what: str, labels: Any, count: int, least: int = 0) -> np.ndarray:
    """int64 [count], none below `least`, else DataError."""
    array = as_array(what, labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{what} must be integers of shape [N], not {array.dtype} {list(array.shape)}")
    if len(array) != count:
        raise DataError(f"{what}: {len(array)} labels for {count} images; give one for each image")
    if int(array.min(initial=0)) < least or int(array.max(initial=0)) >= 2**31:
        unknown = "" if least == 0 else ", or -1 where they are unknown"
        raise DataError(f"{what} must be classes from 0{unknown}, not {array.min()}..{array.max()}")
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
        raise DataError(f"{what}: {twice!r} is given twice; each must be different")
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


def feature_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each of the D numbers of features [N, ..., D]; a constant's deviation is 1."""
    features = images.reshape(len(images), -1)
    total, squares = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    shift = features[0].astype(np.float64)  # near the mean, so that squares don't cancel
    for first in range(0, len(features), _AT_ONCE):
        part = features[first : first + _AT_ONCE].astype(np.float64) - shift
        total += part.sum(0)
        squares += (part * part).sum(0)
    mean = total / len(features)
    std = np.sqrt(np.maximum(squares / len(features) - mean * mean, 0))
    return tuple((mean + shift).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def common_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """The one size (height, width) that all of these have, else DEFAULT_IMAGE_SIZE."""
    return sizes[0] if len(set(sizes)) == 1 else DEFAULT_IMAGE_SIZE


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split positions 0..N-1 so that each class gives `fraction` of its samples, rounded, to the second part.

    Labels are classes [N]; where they have another form, [N, K], all samples count as of one class.
    Returns (kept, held_out), sorted int64 positions. A pure function of its arguments. ConfigError unless
    0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"the held-out fraction must be at least 0 and below 1, not {fraction}")
    labels = labels if labels.ndim == 1 else np.zeros(len(labels), np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    # Sorted by class, stably, so that each class keeps its shuffled order; the first ones of each are held out.
    classes = _narrow(labels)[shuffled]
    order = np.argsort(classes, kind="stable")
    classes = classes[order]
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(classes)), bool), classes[1:] != classes[:-1]]))
    counts = np.diff(starts, append=len(classes))
    wanted = (fraction * counts + 0.5).astype(np.int64)
    taken = np.arange(len(classes)) - np.repeat(starts, counts) < np.repeat(wanted, counts)
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[shuffled[order[taken]]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _narrow(labels: np.ndarray) -> np.ndarray:
    """Labels in 16 bits if their span allows it, which NumPy sorts in time that is linear in their number."""
    if not len(labels) or int(labels.max()) - int(labels.min()) >= 2**16:
        return labels
    return (labels - labels.min()).astype(np.uint16)
