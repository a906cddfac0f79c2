"""Data sets by name, without importing any: a data set is its file and a line here."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from .. import own
from ..errors import ConfigError, nearest
from ..files import expanded
from .facts import FACTS

DATASETS: dict[str, str] = {
    "digits": "fastnoise.data.digits:load_digits",
    "features": "fastnoise.data.features:load_features",
    "mnist": "fastnoise.data.mnist:load_mnist",
    "cifar10": "fastnoise.data.cifar:load_cifar",
    "cifar100": "fastnoise.data.cifar:load_cifar",
    "cifar10n": "fastnoise.data.cifar:load_cifar_n",
    "cifar100n": "fastnoise.data.cifar:load_cifar_n",
    "mnist-canvas": "fastnoise.data.canvas:load_canvas",
    "coco": "fastnoise.data.coco:load_coco",
    "mini_coco": "fastnoise.data.coco:load_mini_coco",
    "rotated": "fastnoise.data.rotated:load_rotated",
    "two-tasks": "fastnoise.data.two_tasks:load_two_tasks",
    "hf": "fastnoise.data.parquet:load_parquet",
    "tar": "fastnoise.data.shards:load_shards",
    "values": "fastnoise.data.values:load_values",
    **dict.fromkeys(FACTS, "fastnoise.data.real:load_real"),
}
"""Name -> MODULE:NAME of a function `(name, root: Path, download: bool) -> ImageDataset`, whose root may be None for
what lies under none."""

ROOTLESS = frozenset({"digits", "features", "coco", "hf", "tar", "values"})
"""Those that lie under no root, or need none; `rotated` and `two-tasks` do as the images that they are made of."""


class Written(NamedTuple):
    """How the name of a data set with options is written: NAME:KEY=VALUE,KEY=VALUE."""

    options: Mapping[str, str | int | float]
    """Key -> default; a value has the default's type. An empty text: it has to be given, as a path."""
    task: str
    """What is learnt (`fastnoise.tasks`)."""
    form: str
    """For help texts."""


WRITTEN: dict[str, Written] = {
    "mnist-canvas": Written(
        {"images": 25_000, "test": 5_000, "side": 128, "first_group": 0, "seed": 0}, "multilabel", "mnist-canvas"
    ),
    "coco": Written(
        {"train": "", "images": "", "test": "", "test_images": "", "side": 128, "limit": 0, "seed": 0},
        "multilabel",
        "coco:train=FILE.json,images=DIR,test=FILE.json,test_images=DIR",
    ),
    "mini_coco": Written({"limit": 25_000, "side": 128, "seed": 0}, "multilabel", "mini_coco"),
    "red_mini_imagenet": Written({"rate": 0.4}, "classification", "red_mini_imagenet:rate=0.4"),
    "blue_mini_imagenet": Written({"rate": 0.4}, "classification", "blue_mini_imagenet:rate=0.4"),
    "rotated": Written({"of": "digits", "limit": 60.0, "seed": 0}, "regression", "rotated:of=mnist"),
    "two-tasks": Written({"of": "cifar100", "seed": 0, "limit": 0, "only": 0}, "multitask", "two-tasks:of=cifar100"),
    "values": Written({"train": "", "test": "-"}, "regression", "values:train=FILE.csv"),
}
"""Data sets that are more than a name."""

AT_PATH: dict[str, str] = {"folder": "PATH", "list": "FILE.csv", "features": "FILE.npy", "hf": "NAME", "tar": "SHARDS"}
"""Families whose names are a path after the colon, and what it is a path of."""

_PLAIN = tuple(name for name in DATASETS if name not in WRITTEN and name not in FACTS and name not in AT_PATH)
"""Those that others can be made `of`: their images are in memory."""

_PATHS = {"coco": ("train", "images", "test", "test_images"), "values": ("train", "test")}

FOLDER, LIST, FEATURES, TAR = "folder:", "list:", "features:", "tar:"
"""How the names of data sets of class folders, of lists of files, of frozen features, and of tar shards begin."""

RESIZED = ("folder", "hf", "list", "tar", "values", *FACTS)
"""Families whose images are files that --image-size resizes."""
CHECKED = ("folder", "list")
"""Families whose files are all decoded once before they are used (`fastnoise.data.scan`)."""

FORMS: tuple[str, ...] = (
    *(WRITTEN[name].form if name in WRITTEN else name for name in DATASETS if name not in AT_PATH),
    *(f"{name}:{path}" for name, path in AT_PATH.items()),
    "FILE.py:NAME",
)
"""The forms in which a data set can be written."""


def family(name: str) -> str:
    """What stands before the colon, or the whole name."""
    return name.partition(":")[0]


def is_named(name: str) -> bool:
    """Whether a data set can be loaded by this name, at any time; else it was given as arrays."""
    return name in DATASETS or family(name) in WRITTEN or has_path(name) or own.is_own(name)


def has_path(name: str) -> bool:
    """Whether a name is that of a data set at a path, which stands after the colon."""
    return family(name) in AT_PATH and ":" in name


def is_brought(name: str) -> bool:
    """Whether the labels of a data set are what its user brings: given ones, right or wrong, of training and test."""
    return own.is_own(name) or not is_named(name) or family(name) in ("coco", "mini_coco", "values", *AT_PATH)


def is_given(name: str) -> bool:
    """Whether the training labels of a data set are given ones: what its user brings, or those of a published data set
    that are wrong by nature. Nothing makes them more wrong unasked."""
    return is_brought(name) or (family(name) in FACTS and FACTS[family(name)].given_labels)


def check_dataset(name: str) -> None:
    """ConfigError for an unknown data set, with the nearest and all valid names, for what is wrong with FILE.py, or for
    options that it has not."""
    if own.is_own(name):
        own.load(name, "dataset")
    elif family(name) in AT_PATH and not name.partition(":")[2]:
        head = family(name)
        what = {"folder": "the path of a folder", "tar": "the paths of shards", "hf": "a name or a folder"}.get(
            head, "the path of a file"
        )
        raise ConfigError(f"the dataset {head}:{AT_PATH[head]} needs {what} after the colon")
    elif not is_named(name):
        raise ConfigError(f"unknown dataset {name!r}; {nearest(name, list(FORMS))}")
    elif family(name) in WRITTEN:
        read_options(name)


def check_skipping(name: str, skip_unreadable: bool) -> None:
    """ConfigError for --skip-unreadable with a data set of which nothing can be left out."""
    if skip_unreadable and family(name) not in CHECKED:
        raise ConfigError(f"--skip-unreadable is for folder:PATH and list:FILE; {name} leaves out nothing")


def task_of(name: str) -> str | None:
    """What is learnt from a data set, None if only the data set itself says."""
    if own.is_own(name) or not is_named(name) or name.startswith(FEATURES):
        return None
    return WRITTEN[family(name)].task if family(name) in WRITTEN else "classification"


def needs_root(name: str) -> bool:
    """Whether a data set lies under the data root."""
    base = read_options(name)["of"] if family(name) in ("rotated", "two-tasks") else family(name)
    return base in DATASETS and base not in ROOTLESS


def read_options(name: str) -> dict[str, str | int | float]:
    """The options that stand behind a data set's name, with the defaults of the others; ConfigError in one line."""
    head, _, rest = name.partition(":")
    written, given = WRITTEN[head], dict[str, str | int | float]()
    for part in _parts(head, rest):
        key, equals, text = (piece.strip() for piece in part.partition("="))
        if key not in written.options:
            raise ConfigError(f"--dataset {head}: no option {key!r}; {nearest(key, list(written.options))}")
        example = written.options[key] if key not in _PATHS.get(head, ()) else "PATH"
        if not equals or not text:
            raise ConfigError(f"--dataset {head}: {key} needs a value, as in {key}={example}")
        if key in given:
            raise ConfigError(f"--dataset {head}: {key} is given twice")
        kind = type(written.options[key])
        try:
            given[key] = kind(text)
        except ValueError:
            wanted = "an integer" if kind is int else "a number"
            raise ConfigError(f"--dataset {head}: {key}={text} must be {wanted}") from None
        if key == "of" and text not in _PLAIN:
            raise ConfigError(f"--dataset {head}: of={text} must be one of {', '.join(_PLAIN)}")
    for key, default in written.options.items():
        value = given.setdefault(key, default)
        if value == "":
            raise ConfigError(f"--dataset {head} needs {key}=PATH; write {written.form}")
        if isinstance(value, int) and value < 0:
            raise ConfigError(f"--dataset {head}: {key}={value} must be 0 or more")
    return given


def _parts(head: str, rest: str) -> list[str]:
    """The options KEY=VALUE behind a name. A comma in a path is one that no KEY= follows, or is written as \\,."""
    found: list[str] = []
    for piece in re.split(r"(?<!\\),", rest):
        if found and "=" not in piece and found[-1].partition("=")[0].strip() in _PATHS.get(head, ()):
            found[-1] += "," + piece
        else:
            found.append(piece)
    return [part for piece in found if (part := piece.replace("\\,", ",").strip().rstrip(","))]


def moved(before: str, now: str) -> bool:
    """Whether two names of data sets differ in their paths at most, as those of a folder that was moved do."""
    if family(before) != family(now) or family(now) not in (*AT_PATH, *_PATHS):
        return False
    if family(now) not in _PATHS:
        return True
    paths = set(_PATHS[family(now)])
    return all(read_options(before)[key] == value for key, value in read_options(now).items() if key not in paths)


def split_parts(shards: str) -> list[str]:
    """TRAIN,val=SHARDS,test=SHARDS as [TRAIN, ",val=", SHARDS, ",test=", SHARDS]."""
    return re.split(r"(,(?:val|validation|test)=)", shards)


def located(name: str) -> str:
    """The name with its paths written from the root, for use in any folder."""
    if own.is_own(name):
        return own.located(name)
    head, _, path = name.partition(":")
    if head == "hf" and not expanded(path).is_dir():  # of the hub
        return name
    if head in AT_PATH and path:  # what has none is refused
        parts = split_parts(path) if head == "tar" else [path]
        return f"{head}:" + "".join(
            [str(expanded(p).absolute()) if i % 2 == 0 and p else p for i, p in enumerate(parts)]
        )
    if head not in _PATHS:
        return name
    return _with_paths(name, lambda path: str(expanded(path).absolute()).replace(",", "\\,"))


def short(name: str) -> str:
    """The name for titles and names of folders: FILE.py:NAME without the file, and paths by their last part."""
    return _with_paths(name, lambda path: path.name) if family(name) in _PATHS else own.short(name)


def _with_paths(name: str, change: Callable[[Path], str]) -> str:
    """The name of a data set that has paths among its options, with these changed."""
    head, _, rest = name.partition(":")
    given, options = {part.partition("=")[0].strip() for part in _parts(head, rest)}, read_options(name)
    for key in _PATHS[head]:
        if options[key] != WRITTEN[head].options[key]:
            options[key] = change(Path(str(options[key])))
    return f"{head}:" + ",".join(f"{key}={value}" for key, value in options.items() if key in given)
