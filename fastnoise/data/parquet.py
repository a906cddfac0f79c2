"""Data sets of Hugging Face's form: Parquet files with a column of encoded images and one of classes.

Parquet gives single rows at the price of whole groups of them. So the images' bytes are written once, as they are, to
one file beside an index of where each lies, and are read from there in any order, as the members of tar shards are.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from math import isfinite, isnan
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..checks import shown
from ..errors import ConfigError, DataError, FastnoiseError, said
from ..files import expanded, write_atomically
from .folder import SPLITS
from .images import HEAD, dali_reads
from .members import Members
from .scan import elsewhere
from .shards import Index, dataset_of, in_order, known_classes, load_index, save_index, texts_of
from .sheets import LABELS, TRUE_LABELS
from .table import PARTS, ImageDataset
from .texts import Texts

IMAGES = ("image", "img", "jpg", "png", "picture")
"""What a column of images is called, if the file does not say which columns are images."""

_GIVEN = (*LABELS, "fine_label", "cls")
_AT_ONCE = 256  # rows
_FORMAT = 2  # of what is kept beside the files; the first had lists of labels as classes


class _NoPlaceError(FastnoiseError):
    """A folder that cannot be written."""


def load_parquet(name: str, _: Path | None, download: bool) -> ImageDataset:
    """The data set of hf:FOLDER, with Parquet files in it or in folders of it, or of hf:NAME on Hugging Face's hub.

    A file belongs to the part that a word of its name says, train, val, valid, validation or test, else to that of the
    innermost folder whose name has such a word, else to the training set. Words end at -, _ and dots. Classes have the
    names that the file gives them. Samples are named FILE/ROW. The column `clean_label`, if it is there, has the true
    classes. Classes are integers, texts or truth values; a float is an integer that stands in a column with gaps.

    ConfigError without the packages that this takes; DataError in one line for files or columns that don't fit.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError(f"--dataset {name}: Parquet needs the package pyarrow: pip install 'fastnoise[hf]'") from None
    spec = name.partition(":")[2]
    folder = expanded(spec)
    if not folder.is_dir():
        folder = _from_hub(name, spec, download)
    parts = _parts_of(name, folder)
    indices: dict[str, Index] = {}
    class_names: tuple[str, ...] | None = None
    for part, files in parts.items():
        schema = _schema(pq, files[0])
        image, label, clean, known = _columns(files[0], schema)
        class_names = class_names or known
        indices[part] = _unpacked(pq, folder, files, image, label, clean)
    members = Members.joined([index.images for index in indices.values()])
    texts, true = texts_of(indices, members)
    numbers = {text: place for place, text in enumerate(_classes(texts, true, class_names))}
    labels = np.array([numbers.get(text, -1) for text in texts], np.int64)
    if (labels < 0).any():
        place = int((labels < 0).argmax())
        raise DataError(f"{name}: the label of {members[place]} is {shown(texts[place])}, which is unknown or no class")
    right = known_classes(true, numbers, members) if any(true) else None
    names = Texts.of(members.inner())
    return dataset_of(name, indices, members, names, labels, right, class_names or tuple(numbers))


def _from_hub(name: str, spec: str, download: bool) -> Path:
    """The folder into which a data set of the hub is downloaded, or was."""
    if os.path.isabs(spec) or spec.startswith((".", "~")) or spec.count("/") > 1:
        raise DataError(f"--dataset {name}: {spec} is not a folder; give one with Parquet files, or a name of the hub")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConfigError(
            f"--dataset {name}: there is no folder {spec}, and the hub needs the package huggingface_hub: pip install "
            "'fastnoise[hf]'"
        ) from None
    try:
        patterns = ["*.parquet", "**/*.parquet"]
        found = snapshot_download(spec, repo_type="dataset", allow_patterns=patterns, local_files_only=not download)
    except Exception as error:  # whatever its many layers raise
        reason = said(error, 160)
        raise DataError(f"--dataset {name}: no folder {spec} here, and the hub does not give it: {reason}") from None
    return Path(found)


def _parts_of(name: str, folder: Path) -> dict[str, list[Path]]:
    """Part -> its files, in the order of their names."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        inside = reversed(path.relative_to(folder).parts)
        parts = (SPLITS.get(word) for name in inside for word in re.split(r"[-_.]", name.casefold()))
        found.setdefault(next(filter(None, parts), "train"), []).append(path)
    if "train" not in found:
        raise DataError(f"--dataset {name}: {folder} holds no Parquet files of a training set")
    return {part: found[part] for part in PARTS if part in found}


def _schema(pq: Any, path: Path) -> Any:
    try:
        return pq.read_schema(path)
    except Exception as error:  # pyarrow's errors have no class of their own for damaged files
        reason = said(error, 160)
        raise DataError(f"{path} is cut off or no Parquet file ({reason}); get it again") from None


def _columns(path: Path, schema: Any) -> tuple[str, str, str | None, tuple[str, ...] | None]:
    """The columns of images, given and true classes, and the names of the classes if the file says them."""
    said = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features: dict[str, Any] = json.loads(said).get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        features = {}

    def kind(name: str) -> str:
        feature = features.get(name)
        return str(feature.get("_type", "")) if isinstance(feature, dict) else ""

    names = list(schema.names)
    images = [name for name in names if kind(name) == "Image"] or [name for name in IMAGES if name in names]
    classes = [name for name in _GIVEN if name in names] or [name for name in names if kind(name) == "ClassLabel"]
    if not images or not classes:
        what = "image" if not images else "label"
        raise DataError(f"{path} has no column {what}; it has {', '.join(names)}")
    clean = next((name for name in TRUE_LABELS if name in names), None)
    known = features.get(classes[0], {}).get("names") if kind(classes[0]) == "ClassLabel" else None
    return images[0], classes[0], clean, tuple(map(str, known)) if isinstance(known, list) and known else None


def _classes(texts: Sequence[str], true: Sequence[str], known: tuple[str, ...] | None) -> list[str]:
    """How each class is written, in the order of the classes."""
    if known is not None:
        return [str(number) for number in range(len(known))]
    return in_order({*texts, *true} - {""})


def _unpacked(pq: Any, folder: Path, files: Sequence[Path], image: str, label: str, clean: str | None) -> Index:
    """The rows of one part: their images in a file of bytes, which is written if it is not there."""
    facts = [path.stat() for path in files]
    inside = [str(path.relative_to(folder)) for path in files]
    what = [image, label, clean, inside, [[fact.st_size, fact.st_mtime_ns] for fact in facts]]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]
    stamp = json.dumps([_FORMAT, *what])  # a file of another format is replaced
    beside = folder / f".fastnoise-rows-{digest}.npz"
    places = [place for place in (beside, elsewhere(beside)) if place is not None]
    for place in places:
        content = place.with_suffix(".bin")
        known = load_index(place, stamp, [str(content.absolute())])
        if known is not None and content.is_file():
            images = known.images
            if content.stat().st_size == int((images.offsets + images.lengths).max(initial=0)):
                return known
    for place in places:
        content = place.with_suffix(".bin")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            index: list[Index] = []
            rows = _rows(pq, files, inside, image, label, clean)
            write_atomically(content, partial(_write, rows, content, index), _NoPlaceError, shared=True)
        except (OSError, _NoPlaceError):
            continue
        save_index(place, stamp, index[0])
        return index[0]
    raise DataError(f"neither {folder} nor the folder of caches can hold the images' bytes; free space")


def _rows(
    pq: Any, files: Sequence[Path], inside: Sequence[str], image: str, label: str, clean: str | None
) -> Iterator[tuple[str, bytes, str, str]]:
    """Name, encoded image, class and true class of each row."""
    for path, name in zip(files, inside, strict=True):
        columns = [image, label, *([] if clean is None else [clean])]
        if missing := [column for column in columns if column not in _schema(pq, path).names]:
            raise DataError(
                f"{path} has no column {missing[0]!r}, and {files[0].name} has one; get files of one data set"
            )
        number = 0
        for batch in _batches(pq, path, columns):
            for row in batch:
                content = row[image]["bytes"] if isinstance(row[image], dict) else row[image]
                if not isinstance(content, bytes):
                    raise DataError(f"{path}: row {number} has no encoded image in column {image!r}")
                given, *true = (_written(row[column], f"{path}: row {number}", column) for column in columns[1:])
                yield f"{name}/{number}", content, given, true[0] if true else ""
                number += 1


def _batches(pq: Any, path: Path, columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Rows of a file, some at a time; DataError for one that cannot be read."""
    try:
        for batch in pq.ParquetFile(path).iter_batches(_AT_ONCE, columns=columns):
            yield batch.to_pylist()
    except Exception as error:  # as in `_schema`
        raise DataError(f"{path} is damaged ({said(error, 160)}); get it again") from None


def _written(label: Any, where: str, column: str) -> str:
    """A class as a text, empty if it is unknown; DataError, which says `where` it is, for what is no class."""
    if isinstance(label, float | Decimal) and isfinite(label) and label == int(label):
        label = int(label)
    if isinstance(label, bytes):  # a text of a writer that does not say so
        label = label.decode("utf-8", "backslashreplace")
    if label is None or label in (-1, "-1") or (isinstance(label, float) and isnan(label)):
        return ""
    if not isinstance(label, int | str | date):
        raise DataError(f"{where} has the class {shown(label)} in column {column!r}; give an integer or a name")
    return str(label)


def _write(rows: Iterator[tuple[str, bytes, str, str]], path: Path, index: list[Index], stream: BinaryIO) -> None:
    """Write the images one behind the other, for a file at `path`; appends where they are to `index`."""
    names, labels, clean, offsets, lengths, by_pillow = [], [], [], [], [], []
    at = 0
    for name, content, given, true in rows:
        stream.write(content)
        names.append(name)
        labels.append(given)
        clean.append(true)
        offsets.append(at)
        lengths.append(len(content))
        by_pillow.append(not dali_reads(content[:HEAD]))
        at += len(content)
    images = Members(
        Texts.of(names),
        [str(path.absolute())],
        np.zeros(len(names), np.int32),
        np.array(offsets, np.int64),
        np.array(lengths, np.int64),
    )
    index.append(Index(images, tuple(labels), tuple(clean), np.array(by_pillow, np.bool_), 1))
