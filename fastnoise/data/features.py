"""Frozen features of a network as a data set: the files that `fastnoise features` writes, and what reads them.

F.npy has a row of D numbers for each image: first the training images, then those for validation, then the test images,
then those of further test sets, each in the order of the data set. Beside it F.json says whose features of what they
are and how many rows each part has, and F.npz holds labels and names.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import shown
from ..errors import DataError
from ..files import PARTIAL, expanded, write_atomically
from .table import PARTS, Form, ImageDataset, ImageTable
from .texts import as_bytes

Scale = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each number of a row."""

TRUE = ("clean_labels", "test_given", "test_clean", "validation_clean")
"""What a data set knows of the labels beside those of its tables, as F.npz holds it."""
FORMAT = 1
_BLOCK = 2**20
_MOST = 2**10
"""Blocks of a larger file that its hash is of. It takes a second to read so many."""
_MAKE = "make it by fastnoise features DATASET --model NETWORK --out"


@dataclass(frozen=True)
class FeatureFiles:
    """The three files of some features, by the path of the first, F.npy."""

    features: Path

    @property
    def about(self) -> Path:
        return self.features.with_suffix(".json")

    @property
    def labels(self) -> Path:
        return self.features.with_suffix(".npz")

    @property
    def partial(self) -> Path:
        """F.npy while it grows."""
        return self.features.with_name(self.features.name + PARTIAL)


@dataclass(frozen=True)
class About:
    """What F.json says."""

    dataset: str
    list_hash: str
    """Of the data set (`ImageDataset.list_hash`)."""
    network: str
    """The network whose features they are."""
    weights: str
    """The SHA-256 of its weights."""
    image_size: tuple[int, int]
    """Height and width of the images as the network got them."""
    image_mean: tuple[float, ...]
    """By which the images were normalised, per channel, of pixels scaled to 0..1."""
    image_std: tuple[float, ...]
    rows: dict[str, int]
    """Number of rows of each part, in the order of the file: train, validation, test, and further test sets by name."""
    size: int
    """D, numbers in a row."""
    batch_size: int
    """Images computed at a time, on which the last bits depend."""
    rest_hash: str = ""
    """Of the data set's other labels (`digests.rest_hash`); empty if an earlier version wrote it."""
    files: str = ""
    """Of the image files' sizes and times (`digests.files_hash`); empty too if there are none."""

    @property
    def extractor(self) -> str:
        """The network and its weights as one text."""
        return f"{self.network} {self.weights[:16]}"


@dataclass(frozen=True)
class Content:
    """What F.npy was when F.json was written, by which F.json knows its rows again."""

    size: int
    """Bytes."""
    time: int
    """Of the last change, ns."""
    sha256: str
    """Of its bytes, or of 1,024 blocks of a MiB in equal distances if it is larger than 1 GiB."""

    @classmethod
    def of(cls, path: Path) -> "Content":
        """Read a file; OSError if that fails."""
        found = path.stat()
        blocks = -(-found.st_size // _BLOCK)
        digest = hashlib.sha256()
        with open(path, "rb", buffering=0) as stream:
            for block in dict.fromkeys(np.linspace(0, blocks - 1, min(blocks, _MOST)).astype(int).tolist()):
                stream.seek(block * _BLOCK)
                digest.update(stream.read(_BLOCK))
        return cls(found.st_size, found.st_mtime_ns, digest.hexdigest())

    def is_of(self, path: Path) -> bool:
        """Whether a file has the same bytes. It is read unless its size and time of change are the same."""
        found = path.stat()
        if (found.st_size, found.st_mtime_ns) == (self.size, self.time):
            return True
        return found.st_size == self.size and Content.of(path).sha256 == self.sha256


def write_labels(files: FeatureFiles, dataset: ImageDataset) -> None:
    """Write labels and names of a data set to F.npz."""
    arrays: dict[str, NDArray[Any]] = {}
    for part, table in parts_of(dataset).items():
        arrays[f"{part}_labels"] = table.labels
        arrays[f"{part}_names"] = as_bytes("\0".join(table.names))
        if table.origin is not None:
            arrays[f"{part}_origin"] = table.origin
    for name in TRUE:
        if (labels := getattr(dataset, name)) is not None:
            arrays[name] = labels
    arrays |= {f"human_{name}": labels for name, labels in dataset.human_labels.items()}
    about = {
        "class_names": dataset.class_names,
        "given_labels": dataset.given_labels,
        "task": dataset.task,
        "groups": dataset.groups,
        "scale": dataset.scale,
    }
    arrays["about"] = as_bytes(json.dumps(about))
    write_atomically(files.labels, lambda stream: np.savez(stream, **arrays), DataError)  # type: ignore[arg-type]


def write_about(files: FeatureFiles, about: About, scale: Scale | None = None, content: Content | None = None) -> None:
    """Write F.json. `scale` is mean and deviation of the training rows, D each, and `content` what F.npy is; None while
    rows are missing."""
    mean, std = (None, None) if scale is None else scale
    found = {"content": None if content is None else asdict(content), "mean": mean, "std": std}
    text = (json.dumps({"format": FORMAT, **vars(about), **found}, indent=1) + "\n").encode()
    write_atomically(files.about, lambda stream: stream.write(text), DataError)


def parts_of(dataset: ImageDataset) -> dict[str, ImageTable]:
    """The tables of a data set by part, in the order of features."""
    tables = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test, **dataset.second_tests}
    return {part: table for part, table in tables.items() if table is not None}


def read_about(files: FeatureFiles) -> dict[str, Any]:
    """F.json as it stands there; DataError if it is missing or damaged."""
    path = files.about
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise DataError(
                f"{path} has format {shown(content['format'])}, and this version of fastnoise reads {FORMAT}"
            )
        about_of(content)
        _content_of(content)
        for key in ("mean", "std"):
            if content[key] is not None and len(content[key]) != content["size"]:
                raise ValueError(f"{key} has {len(content[key])} numbers")
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file, and without it nobody knows what the features are of; {_MAKE}"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); {_MAKE} {files.features.name}") from None
    found: dict[str, Any] = content
    return found


def about_of(content: Mapping[str, Any]) -> About:
    """What a document of F.json's form says; LookupError, TypeError or ValueError if it is none."""
    return About(
        dataset=str(content["dataset"]),
        list_hash=str(content["list_hash"]),
        network=str(content["network"]),
        weights=str(content["weights"]),
        image_size=(int(content["image_size"][0]), int(content["image_size"][1])),
        image_mean=tuple(map(float, content["image_mean"])),
        image_std=tuple(map(float, content["image_std"])),
        rows={str(part): int(count) for part, count in content["rows"].items()},
        size=int(content["size"]),
        batch_size=int(content["batch_size"]),
        rest_hash=str(content.get("rest_hash", "")),
        files=str(content.get("files", "")),
    )


def _content_of(document: Mapping[str, Any]) -> Content | None:
    """What F.json says of F.npy; None while rows are missing, or if an earlier version wrote it, which said nothing.
    LookupError, TypeError or ValueError if it is of another form."""
    found = document.get("content")
    return None if found is None else Content(int(found["size"]), int(found["time"]), str(found["sha256"]))


def read_features(path: Path) -> NDArray[Any]:
    """The rows of a .npy file, float16 or float32 [N, D], mapped into memory; DataError in one line."""
    files = FeatureFiles(path)
    if not path.is_file():
        if files.partial.is_file():
            raise DataError(f"{path} is not finished; the same fastnoise features goes on with it")
        raise DataError(f"{path}: no such file; {_MAKE} {path.name}")
    try:
        # A private map: torch takes no array that cannot be written to.
        features = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is cut off or no .npy file ({error}); {_MAKE} {path.name}") from None
    if not isinstance(features, np.ndarray):
        raise DataError(f"{path} is no .npy file; {_MAKE} {path.name}")
    if features.dtype not in (np.float16, np.float32) or features.ndim != 2 or 0 in features.shape:
        raise DataError(f"{path} must hold float16 or float32 [N, D], not {features.dtype} {list(features.shape)}")
    return features


def load_features(name: str, root: Path | None, download: bool) -> ImageDataset:
    """The data set of features:F.npy. Its mean and deviation are those of each number over the training rows."""
    files = FeatureFiles(expanded(name.partition(":")[2]))
    features = read_features(files.features)
    content = read_about(files)
    about = about_of(content)
    if content["mean"] is None or content["std"] is None:
        raise DataError(f"{files.about} is not finished; the same fastnoise features goes on with it")
    if features.shape != (sum(about.rows.values()), about.size):
        raise DataError(
            f"{files.features} holds {list(features.shape)}, and {files.about.name} speaks of "
            f"[{sum(about.rows.values())}, {about.size}]; {_MAKE} {files.features.name}"
        )
    known = _content_of(content)
    if known is not None and not known.is_of(files.features):
        raise DataError(
            f"{files.features} has changed since {files.about.name} was written, which has its means and says whose "
            f"features they are; {_MAKE} {files.features.name}"
        )
    tables: dict[str, ImageTable] = {}
    first = 0
    try:
        with np.load(files.labels, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        said = json.loads(bytes(arrays["about"]))
        forms: dict[str, Form] = {"multilabel": "labels", "regression": "values"}
        for part, count in about.rows.items():
            names = bytes(arrays[f"{part}_names"]).decode("utf-8", "surrogateescape")
            tables[part] = ImageTable(
                arrays[f"{part}_labels"],
                images=features[first : first + count, None, None],
                names=tuple(names.split("\0")) if names else (),
                form=forms.get(said["task"], "classes"),
                origin=arrays.get(f"{part}_origin"),
                extractor=about.extractor,
                content="" if known is None else known.sha256,
            )
            first += count
        return ImageDataset(
            name,
            tables["train"],
            tables["test"],
            tuple(said["class_names"]),
            tuple(content["mean"]),
            tuple(content["std"]),
            human_labels={key[6:]: labels for key, labels in arrays.items() if key.startswith("human_")},
            given_labels=said["given_labels"],
            task=said["task"],
            groups=tuple(said["groups"]),
            scale=tuple(said["scale"]),
            validation=tables.get("validation"),
            second_tests={part: table for part, table in tables.items() if part not in PARTS},
            notes=(f"features of {about.dataset}, by {about.extractor}",),
            **{name: arrays.get(name) for name in TRUE},
        )
    except FileNotFoundError:
        raise DataError(f"{files.labels}: no such file, and it has the labels; {_MAKE} {files.features.name}") from None
    except DataError as error:
        raise DataError(f"{files.labels}: {error}") from None
    except Exception as error:  # whatever a damaged file makes the readers of zip, npy and JSON raise
        raise DataError(f"{files.labels} is damaged ({error}); {_MAKE} {files.features.name}") from None


def given_features(name: str) -> tuple[ImageTable, list[str]]:
    """The rows of features:F.npy as a table without labels, and the names of the images, or the rows' numbers. A .npy
    file alone is enough."""
    files = FeatureFiles(expanded(name.partition(":")[2]))
    features = read_features(files.features)
    numbers = list(map(str, range(len(features))))
    if not files.about.exists():
        return ImageTable(np.zeros(len(features), np.int64), images=features[:, None, None]), numbers
    dataset = load_features(name, None, download=False)
    names = [name for table in parts_of(dataset).values() for name in table.names]
    table = ImageTable(
        np.zeros(len(features), np.int64), images=features[:, None, None], extractor=dataset.train.extractor
    )
    return table, names if len(names) == len(features) else numbers
