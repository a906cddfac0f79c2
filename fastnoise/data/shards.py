"""Tar shards as a data set: the members of each sample, its label, and an index of where the images lie.

A sample is a group of members with one key: the name up to the first dot of its last part, as 00012 of 00012.jpg and
00012.cls (webdataset's convention). Its image may have any ending that is read. Its label is the member .cls, a number
or a name, or the field `label`, `cls` or `class` of the member .json, whose field `clean_label` is the true class.
"""

import hashlib
import json
import mmap
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..checks import shown
from ..errors import ConfigError, DataError
from ..files import expanded, write_atomically
from .folder import SPLITS, assembled
from .images import HEAD, dali_reads, extensions, image_size
from .members import Members
from .names import split_parts
from .scan import elsewhere
from .sheets import read_classes
from .table import PARTS, ImageDataset, common_size
from .tar import TarMember, mapped, tar_members
from .texts import Texts, as_bytes

LABELS = ("label", "cls", "class")
"""Fields of a sample's .json that hold its class, of which the first that is there counts."""
CLEAN = "clean_label"

_FORMAT = 2
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_NAMED = 3  # samples that a message names


@dataclass(frozen=True, eq=False)
class Index:
    """The samples of some shards, S of them, in the order of the shards and of their keys' first members."""

    images: Members
    labels: tuple[str, ...]
    """S classes as they are written."""
    clean: tuple[str, ...]
    """S true classes, empty if unknown."""
    by_pillow: NDArray[np.bool_]
    """[S], the images that DALI gets from Pillow (`ImageTable.by_pillow`)."""
    read: int
    """How many shards were read for this; 0 if it comes from the cache."""


def shards_of(name: str) -> dict[str, list[Path]]:
    """Part -> the shards that tar:TRAIN[,val=SHARDS][,test=SHARDS] names.

    SHARDS is a path with ranges in braces, as {00000..00127}, or lists, as {a,b}; or a folder, whose files *.tar it is.
    DataError for a shard that is missing or named twice.
    """
    train, *rest = split_parts(name.partition(":")[2])
    given = {"train": train}
    for word, spec in zip(rest[::2], rest[1::2], strict=True):
        part = SPLITS[word[1:-1]]
        if part in given:
            raise ConfigError(f"--dataset {name}: {word[1:-1]} is given twice")
        given[part] = spec
    found: dict[str, list[Path]] = {}
    seen: set[Path] = set()
    for part, spec in given.items():
        if not spec:  # which would be this folder
            raise ConfigError(f"--dataset {name}: the shards of {part} are missing; write tar:TRAIN,test=SHARDS")
        path = expanded(spec)
        paths = sorted(path.glob("*.tar")) if path.is_dir() else [expanded(text) for text in braces(spec)]
        if not paths:
            raise DataError(f"{path} holds no .tar files; give the shards, as in tar:SHARDS/{{00000..00127}}.tar")
        if missing := [path for path in paths if not path.is_file()]:
            hint = (
                "; write several shards as {a,b}.tar, and further parts as ,test=SHARDS"
                if "," in str(missing[0])
                else ""
            )
            raise DataError(
                f"{name}: {len(missing)} of {len(paths)} shards are missing, the first is {missing[0]}{hint}"
            )
        if twice := [path for path in paths if path in seen] or [path for path in paths if paths.count(path) > 1]:
            raise DataError(f"{name}: the shard {twice[0]} is named twice")
        seen |= set(paths)
        found[part] = paths
    return found


def images_of(name: str) -> tuple[Members, int]:
    """The images of all shards that tar:SHARDS names, in their order, and how many members are left out that end like
    images but are not those of their keys, as 00012.seg.png.

    No label is needed, and a key may have several images. DataError for shards that cannot be read or hold no images.
    """
    shards = [path for paths in shards_of(name).values() for path in paths]
    found: list[tuple[int, TarMember]] = []
    kinds, left_out = _kinds(), 0
    for number, path in enumerate(shards):
        with mapped(path) as archive:
            for member in tar_members(path, archive):
                if _is_hidden(member.name):
                    continue
                if _key(member.name)[1] in kinds:
                    found.append((number, member))
                else:
                    left_out += os.path.splitext(member.name)[1].lower() in extensions()
    if not found:
        raise DataError(f"{name} holds no images of a format that is read; their names are as KEY.jpg")
    members = Members(
        Texts.of(member.name for _, member in found),
        list(map(str, shards)),
        np.array([number for number, _ in found], np.int32),
        np.array([member.offset for _, member in found], np.int64),
        np.array([member.length for _, member in found], np.int64),
    )
    return members, left_out


def braces(spec: str) -> list[str]:
    """The texts that ranges and lists in braces stand for: a{08..10}.tar is a08.tar, a09.tar and a10.tar."""
    parts: list[Sequence[str]] = []
    at = 0
    for match in _RANGE.finditer(spec):
        parts.append([spec[at : match.start()]])
        first, last, listed = match.groups()
        if listed is not None:
            parts.append(listed.split(","))
        else:
            if int(last) < int(first):
                raise ConfigError(f"{spec}: the range {match[0]} is empty; write the smaller number first")
            width = len(first) if first.startswith("0") or len(first) == len(last) else 0
            parts.append([str(number).zfill(width) for number in range(int(first), int(last) + 1)])
        at = match.end()
    parts.append([spec[at:]])
    return ["".join(texts) for texts in product(*parts)]


def load_shards(name: str, _: Path | None, download: bool) -> ImageDataset:
    """The data set of tar:SHARDS (`shards_of`). Its samples are named SHARD/KEY.

    The classes are those of the training shards (`texts_of`): numbers in their order, names in that of the alphabet.
    Without test shards a fifth of each class is the test set, as `fastnoise.data.folder` draws it.
    """
    shards = shards_of(name)
    indices = {part: read_index(shards[part]) for part in PARTS if part in shards}
    root = Path(os.path.commonpath([path.absolute().parent for part in indices for path in shards[part]]))
    members = Members.joined([index.images for index in indices.values()])
    texts, true = texts_of(indices, members)
    trained = len(indices["train"].labels)
    class_names = in_order({*texts[:trained], *true[:trained]} - {""})
    numbers = {text: number for number, text in enumerate(class_names)}
    strange = next((place for place, text in enumerate(texts) if text not in numbers), None)
    if strange is not None:
        raise DataError(f"{members[strange]}: no training sample has its class {shown(texts[strange])}")
    clean = known_classes(true, numbers, members) if any(true) else None
    shown_shards = [os.path.relpath(file, root) for file in members.files]
    keys = (_key(member)[0] for member in members.inner())
    names = Texts.of(f"{shown_shards[of]}/{key}" for of, key in zip(members.of_file.tolist(), keys, strict=True))
    labels = np.array([numbers[text] for text in texts], np.int64)
    return dataset_of(name, indices, members, names, labels, clean, tuple(class_names))


def texts_of(indices: Mapping[str, Index], members: Members) -> tuple[list[str], list[str]]:
    """Given and true classes of all samples as `read_classes` has them; DataError names the first that is below 0, or
    of the true ones below -1."""

    def error(place: int, message: str) -> DataError:
        return DataError(f"{members[place]}: {message}")

    given = [text for index in indices.values() for text in index.labels]
    return read_classes(given, [text for index in indices.values() for text in index.clean], error)


def known_classes(texts: Sequence[str], numbers: Mapping[str, int], members: Members) -> NDArray[np.int64]:
    """The true classes of samples, -1 of those without one (an empty text); DataError names the first that is no class.

    Args:
        texts: as they are written; empty, or one for each of `members`.
        numbers: of the classes.
        members: the images.
    """
    for place, text in enumerate(texts):
        if text and text not in numbers:
            raise DataError(f"{members[place]}: no training sample has its true class {shown(text)}")
    return np.array([numbers.get(text, -1) for text in texts], np.int64)


def in_order(classes: Collection[str]) -> list[str]:
    """Classes as they are written: numbers in their order, names in that of the alphabet."""
    digits = all(text.isascii() and text.isdigit() for text in classes)
    # As numbers, without int(), which refuses those of thousands of digits.
    return sorted(classes, key=(lambda text: (len(text.lstrip("0")), text.lstrip("0"), text)) if digits else None)


def dataset_of(
    name: str,
    indices: Mapping[str, Index],
    members: Members,
    names: Texts,
    labels: NDArray[np.int64],
    clean: NDArray[np.int64] | None,
    class_names: tuple[str, ...],
) -> ImageDataset:
    """The data set of the samples in `indices`, part after part.

    Args:
        name: of the data set.
        indices: part -> its samples.
        members: [N], where the images of all parts lie.
        names: [N], as every table and file shows them.
        labels: [N], given classes.
        clean: [N], true ones, -1 where they are unknown; None if they all are.
        class_names: of the classes.
    """
    return assembled(
        name,
        members,
        names,
        np.array([part for part, index in indices.items() for _ in range(len(index.labels))]),
        labels,
        clean,
        class_names,
        size=common_size([image_size(members[place]) for place in range(min(16, len(members)))]),
        by_pillow=np.concatenate([index.by_pillow for index in indices.values()]),
    )


# -- the index -----------------------------------------------------------------------------------------------------


def read_index(shards: Sequence[Path]) -> Index:
    """The samples of shards, from their headers or from a cache.

    The cache lies beside the first shard if that folder can be written, else in the user's folder of caches. It counts
    while the shards' sizes and times of change stay the same; a damaged one is made anew.

    DataError in one line: a shard that cannot be read, a sample with two images or none, without a label, or twice in
    one shard.
    """
    names = [str(path.absolute()) for path in shards]
    facts = [path.stat() for path in shards]
    stamp = json.dumps([_FORMAT, names, [[fact.st_size, fact.st_mtime_ns] for fact in facts]])
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    beside = shards[0].with_name(f".fastnoise-shards-{digest}.npz")
    places = [place for place in (beside, elsewhere(beside)) if place is not None]
    for place in places:
        if (known := load_index(place, stamp, names)) is not None:
            return known
    rows: list[_Sample] = []
    of: list[int] = []
    for number, path in enumerate(shards):
        found = _samples(path)
        rows += found
        of += [number] * len(found)
    images = Members(
        Texts.of([row.image for row in rows]),
        names,
        np.array(of, np.int32),
        np.array([row.offset for row in rows], np.int64),
        np.array([row.length for row in rows], np.int64),
    )
    index = Index(
        images,
        tuple([row.label for row in rows]),
        tuple([row.clean for row in rows]),
        np.array([row.by_pillow for row in rows], np.bool_),
        len(shards),
    )
    any(save_index(place, stamp, index) for place in places)
    return index


class _Sample(NamedTuple):
    image: str
    offset: int
    length: int
    by_pillow: bool
    label: str
    clean: str


def _key(name: str) -> tuple[str, str]:
    """The key of a member and its ending, without the dot between them."""
    folder, slash, last = name.rpartition("/")
    key, _, ending = last.partition(".")
    return folder + slash + key, ending.lower()


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def _kinds() -> frozenset[str]:
    """The endings of images, without the dot."""
    return frozenset(ending[1:] for ending in extensions())


def _samples(path: Path) -> list[_Sample]:
    """The samples of one shard."""
    kinds = _kinds()
    groups: dict[str, dict[str, TarMember]] = {}
    last = None
    rows: list[_Sample] = []
    with mapped(path) as archive:
        for member in tar_members(path, archive):
            key, ending = _key(member.name)
            if not ending or _is_hidden(member.name):
                continue
            if key != last and key in groups:
                raise DataError(f"{path}: the key {shown(key)} is there twice; give each sample a key of its own")
            last, group = key, groups.setdefault(key, {})
            if ending in group:
                raise DataError(f"{path}: the key {shown(key)} has two members .{ending}; drop one")
            group[ending] = member
        without: list[str] = []
        for key, group in groups.items():
            images = [ending for ending in group if ending in kinds]
            if len(images) != 1:
                what = f"images {', '.join(images)}" if images else f"no image, only {', '.join(group)}"
                raise DataError(f"{path}: the key {shown(key)} has {what}; each needs one image")
            label, clean = _label(path, key, group, archive)
            if not label:
                without.append(key)
            name, offset, length = group[images[0]]
            by_pillow = not dali_reads(archive[offset : offset + min(HEAD, length)])
            rows.append(_Sample(name, offset, length, by_pillow, label, clean))
    if without:
        named = ", ".join(map(shown, without[:_NAMED])) + (", ..." if len(without) > _NAMED else "")
        raise DataError(
            f"{path}: {len(without)} of {len(rows)} samples have no label ({named}): each needs a member .cls, or a "
            f"member .json with a field {LABELS[0]}, that says another class than -1"
        )
    return rows


def _label(path: Path, key: str, group: Mapping[str, TarMember], archive: mmap.mmap) -> tuple[str, str]:
    """A sample's class and true class as they are written, empty if they are not there or -1."""
    label = clean = ""
    if "json" in group:
        _, offset, length = group["json"]
        try:
            fields = json.loads(archive[offset : offset + length])
            if not isinstance(fields, dict):
                raise ValueError("no object")
        except ValueError as error:
            raise DataError(f"{path}: {shown(key)}.json cannot be read ({error}); repair it") from None
        label = _text(path, key, next((fields[name] for name in LABELS if name in fields), ""))
        clean = _text(path, key, fields.get(CLEAN, ""))
    if "cls" in group:
        _, offset, length = group["cls"]
        # Not "replace", which would make one class of several that differ in such bytes.
        label = archive[offset : offset + length].decode("utf-8", "surrogateescape").strip()
    for text in (label, clean):
        if "\0" in text or (not text.isascii() and re.search("[\ud800-\udfff]", text)):
            raise DataError(
                f"{path}: the key {shown(key)} has the class {text!a}, which is no UTF-8 text; write it anew"
            )
    label, clean = ("" if text == "-1" else text for text in (label, clean))  # which says that it is unknown
    return label, clean


def _text(path: Path, key: str, value: Any) -> str:
    """A class in a .json as a text."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{path}: {shown(key)}.json has the class {shown(value)}; give a number or a name")
    return str(value).strip()


def save_index(place: Path, stamp: str, index: Index) -> bool:
    """Write a cache in one step; False if its place cannot be written."""
    images = index.images
    columns: dict[str, NDArray[Any]] = {
        "stamp": as_bytes(stamp),
        "names": as_bytes("\0".join(images.inner())),
        "of": images.of_file,
        "offsets": images.offsets,
        "lengths": images.lengths,
        "labels": as_bytes("\0".join(index.labels)),
        "clean": as_bytes("\0".join(index.clean)),
        "by_pillow": index.by_pillow,
    }
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, lambda stream: np.savez(stream, **columns), DataError, shared=True)  # type: ignore[arg-type]
    except (OSError, DataError):
        return False
    return True


def load_index(place: Path, stamp: str, shards: Sequence[str]) -> Index | None:
    """What a cache says; None for one that is missing, damaged or of other shards."""
    try:
        with np.load(place, allow_pickle=False) as file:
            if bytes(file["stamp"]).decode() != stamp:
                return None
            labels, clean = (tuple(bytes(file[name]).decode().split("\0")) for name in ("labels", "clean"))
            names = Texts.of(bytes(file["names"]).decode("utf-8", "surrogateescape").split("\0"))
            images = Members(names, shards, file["of"], file["offsets"], file["lengths"])
            index = Index(images, labels, clean, file["by_pillow"], 0)
    except Exception:  # whatever a damaged file makes the readers of zip and npy raise
        return None
    lengths = {len(images), len(labels), len(clean), *map(len, (index.by_pillow, images.of_file, images.offsets))}
    return index if len(lengths) == 1 else None
