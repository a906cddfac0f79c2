"""Multi-label image sets from COCO's annotation files (instances_train2017.json and their like)."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ..checks import cpu_cores, require_memory, shown
from ..errors import ConfigError, DataError
from ..files import write_atomically
from .facts import IMAGENET_MEAN_STD
from .images import read_image
from .names import family, read_options
from .table import ImageDataset, ImageTable

_EXPANSION = 7  # bytes of memory per byte of JSON: 5.4 of objects where polygons are written out, and the text


@dataclass(frozen=True, eq=False)
class CocoSet:
    """The images of an annotation file, and which categories each of them shows."""

    files: tuple[str, ...]
    """Paths, in the order of the file's `images`."""
    labels: NDArray[np.uint8]
    """[N, C], zeros and ones: column c is the category with the (c + 1)-th smallest id."""
    categories: Mapping[int, str]
    """Name by id, in rising order of the ids: COCO's 80 ids have gaps and end at 90."""


DECODED = "decoded"
"""Folder under the data root that keeps decoded images."""


def load_coco(name: str, root: Path | None, download: bool) -> ImageDataset:
    """The images of `images` that the annotations `train` name, and those of `test_images` and `test`.

    They are decoded once, at `side` x `side` pixels, and kept under ROOT/decoded. With a `limit` that many training
    images are drawn by `seed`.
    """
    options = read_options(name)
    paths = {key: Path(str(options[key])) for key in ("train", "images", "test", "test_images")}
    return _loaded(name, paths, root)


def load_mini_coco(name: str, root: Path, download: bool) -> ImageDataset:
    """COCO 2017 in ROOT/coco: annotations/instances_{train,val}2017.json and the folders train2017 and val2017.

    The 25,000 training images are those of annotations/instances_minitrain2017.json (coco-minitrain), if it is there;
    else `limit` of all are drawn by `seed`, and a note says so.
    """
    folder = root / "coco"
    notes: tuple[str, ...] = ()
    annotations = folder / "annotations" / "instances_minitrain2017.json"
    if not annotations.exists():
        annotations = annotations.with_name("instances_train2017.json")
        notes = (f"{read_options(name)['limit']} images are drawn from those of {annotations.name} by the seed",)
    paths = {"train": annotations, "images": folder / "train2017"}
    paths |= {"test": annotations.with_name("instances_val2017.json"), "test_images": folder / "val2017"}
    for path in paths.values():
        if not path.exists():
            raise DataError(
                f"mini_coco: no {path}; get the images and annotations of COCO 2017 (cocodataset.org) and unpack them "
                f"into {folder}"
            )
    return _loaded(name, paths, root, notes, whole="mini" in annotations.name)


def _loaded(
    name: str, paths: Mapping[str, Path], root: Path | None, notes: tuple[str, ...] = (), whole: bool = False
) -> ImageDataset:
    """The data set of two annotation files; with `whole` all training images whatever the `limit`."""
    options = read_options(name)
    if not options["side"]:
        raise ConfigError(f"--dataset {family(name)}: side=0: images need a side of at least 1 pixel")
    train, test = read_coco(paths["train"], paths["images"]), read_coco(paths["test"], paths["test_images"])
    same_categories(train, paths["train"], test, paths["test"])
    limit, side = 0 if whole else int(options["limit"]), int(options["side"])
    if limit > len(train.files):
        raise ConfigError(f"--dataset {family(name)}: limit={limit}: {paths['train']} has {len(train.files)} images")
    chosen = np.arange(len(train.files))
    if limit:
        chosen = np.sort(np.random.default_rng([int(options["seed"]), 0]).permutation(len(train.files))[:limit])
    cache = (Path("data") if root is None else root) / DECODED

    def table(images: CocoSet, positions: NDArray[np.int64]) -> ImageTable:
        files = tuple(images.files[position] for position in positions)
        names = tuple(Path(file).name for file in files)
        return ImageTable(images.labels[positions], images=decode(files, side, cache), names=names, form="labels")

    tables = table(train, chosen), table(test, np.arange(len(test.files)))
    names = tuple(train.categories.values())
    return ImageDataset(name, *tables, names, *IMAGENET_MEAN_STD, given_labels=True, task="multilabel", notes=notes)


def read_coco(annotations: Path, images: Path) -> CocoSet:
    """Read who is in which image; boxes, masks and crowds are not looked at, and an image may show nothing.

    Args:
        annotations: JSON with the lists `images` (id, file_name), `annotations` (image_id, category_id) and
            `categories` (id, name).
        images: the folder that `file_name` is relative to.

    Raises:
        DataError: a file that can't be read or lacks a list, ids that are doubled or unknown, an image or a category
            that is there twice, no annotations, a file name that leads out of the folder, or images that are not there.
    """
    content = _read_json(annotations)
    categories = dict(sorted(_named(content, "categories", "name", annotations).items()))
    if len(categories) < 2:
        raise DataError(f"{annotations}: the list categories has {len(categories)}; at least 2 are needed")
    names = _named(content, "images", "file_name", annotations)
    if not names:
        raise DataError(f"{annotations}: the list images is empty, so there is nothing to learn from")
    listed = content["annotations"]
    if not listed:
        raise DataError(f"{annotations}: the list annotations is empty, so that no image has a label")
    rows = {image: row for row, image in enumerate(names)}
    columns = {category: column for column, category in enumerate(categories)}
    labels = np.zeros((len(rows), len(columns)), np.uint8)
    for place, annotation in enumerate(listed):
        image, category = (_field(annotation, key, "annotations", place, annotations) for key in ANNOTATION_KEYS)
        if image not in rows:
            raise DataError(f"{annotations}: annotations[{place}] has the image_id {image}, which no image has")
        if category not in columns:
            raise DataError(f"{annotations}: annotations[{place}] has the unknown category_id {category}")
        labels[rows[image], columns[category]] = 1
    return CocoSet(_found(names.values(), images, annotations), labels, categories)


ANNOTATION_KEYS = ("image_id", "category_id")


def same_categories(first: CocoSet, first_path: Path, second: CocoSet, second_path: Path) -> None:
    """DataError if two annotation files don't number and name the same categories."""
    for number in sorted(first.categories.keys() | second.categories.keys()):
        one, other = first.categories.get(number), second.categories.get(number)
        if one != other:
            raise DataError(
                f"{second_path}: category {number} is {shown(other)}, and {shown(one)} in {first_path}; both files "
                "must have the same categories"
            )


def decode(files: tuple[str, ...], side: int, cache: Path, console: Console | None = None) -> NDArray[np.uint8]:
    """The images as uint8 [N, side, side, 3], decoded once and kept in the folder `cache`, which processes share.

    The array is mapped from the file, so that its pages are read when they are needed. A change of the files' names,
    sizes or times makes a new one. DataError if an image can't be decoded, which it names, or if memory or disk is
    short.
    """
    found = [os.stat(file) for file in files]
    facts = [(file, stat.st_size, stat.st_mtime_ns) for file, stat in zip(files, found, strict=True)]
    digest = hashlib.sha256(repr((side, "upright", facts)).encode()).hexdigest()  # as EXIF says
    path = cache / f"images-{digest[:16]}.npy"
    if not path.exists():
        shape = (len(files), side, side, 3)
        require_memory(f"{len(files)} images of {side} x {side}", int(np.prod(shape)))
        pixels = np.empty(shape, np.uint8)

        def fill(row: int) -> None:
            pixels[row] = read_image(files[row], (side, side))

        with ThreadPoolExecutor(cpu_cores()) as pool:
            filled = pool.map(fill, range(len(files)))
            for _ in track(filled, "decoding images", len(files), console=console, disable=console is None):
                pass
        cache.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda stream: np.save(stream, pixels, allow_pickle=False), DataError, shared=True)
    # "c": writes, of which there are none, would stay in memory; torch warns of arrays that are read-only
    mapped: NDArray[np.uint8] = np.load(path, mmap_mode="c", allow_pickle=False)
    return mapped


def _read_json(path: Path) -> dict[str, list[Any]]:
    try:
        require_memory(f"{path}", _EXPANSION * path.stat().st_size)
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give the JSON file of the annotations") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, nested too deeply
        raise DataError(f"{path}: not a JSON file ({' '.join(str(error).split())})") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: has no list {key!r}, so it isn't in COCO's format")
    return content


def _field(entry: Any, key: str, where: str, place: int, path: Path, kind: type[int] | type[str] = int) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if type(value) is not kind:  # True is an int to isinstance
        words = {int: "an integer", str: "a text"}[kind]
        raise DataError(f"{path}: {where}[{place}] needs {key}, {words}, found {shown(value)}")
    return value


def _named(content: dict[str, list[Any]], where: str, key: str, path: Path) -> dict[int, str]:
    """id -> `key` of a list's entries."""
    found: dict[int, str] = {}
    known: set[str] = set()
    for place, entry in enumerate(content[where]):
        number = _field(entry, "id", where, place, path)
        if number in found:
            raise DataError(f"{path}: {where}[{place}] has the id {number}, as one before it")
        found[number] = _field(entry, key, where, place, path, str)
        if found[number] in known:
            raise DataError(f"{path}: {where}[{place}] has the {key} {shown(found[number])}, as one before it")
        known.add(found[number])
    return found


def _found(names: Any, folder: Path, annotations: Path) -> tuple[str, ...]:
    """The paths of images, all of which are files within the folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the one that holds the images of {annotations}")
    missing: list[str] = []
    paths: list[str] = []
    for name in names:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\0" in name:
            raise DataError(f"{annotations}: the file_name {shown(name)} leads out of the folder {folder}")
        path = folder / name
        paths.append(str(path))
        if not _is_file(path):
            missing.append(name)
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of the {len(paths)} images in {annotations} are missing, first "
            f"{shown(missing[0])}"
        )
    return tuple(paths)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
