"""What is known of image files after each was decoded once, kept in a cache so that the next start reads none."""

import contextlib
import hashlib
import io
import json
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from ..checks import cpu_cores
from ..errors import DataError
from ..files import cache_folder
from ..texts import counted, printable
from .images import (
    HEAD,
    content_of,
    dali_reads,
    decode,
    one_line,
    opened,
    orientation,
    require_regular,
    shown_name,
)

CACHE = ".fastnoise-files.npz"
"""The cache's file, beside the data."""

_FORMAT = 1
_PARTS: dict[str, tuple[type, tuple[int, ...]]] = {
    "sizes": (np.int64, ()),
    "times": (np.int64, ()),
    "height": (np.int32, ()),
    "width": (np.int32, ()),
    "turned": (np.bool_, ()),
    "by_pillow": (np.bool_, ()),
    "digest": (np.uint8, (16,)),
    "likeness": (np.uint8, (32,)),
}
"""Arrays of a cache: dtype and shape of a file's entry."""

_PILLOW = Path(PIL.__file__).parent

SIDE = 16
"""Squares that an image is cut into along each side for its likeness."""

_UNKNOWN = -(2**63)  # as the time of a file that is to be read again
_MANY = 2000  # files of which a line says that they are read, where there is no terminal to show the progress
_NAMED = 5  # unreadable files that a message names


@dataclass(frozen=True, eq=False)
class Found:
    """Image files under a folder, F of them, as the file system lists them."""

    root: Path
    names: tuple[str, ...]
    """Paths relative to `root`, or absolute ones, as lists may have them."""
    sizes: NDArray[np.int64]
    """[F], bytes."""
    times: NDArray[np.int64]
    """[F], of the last change, ns; of a member of a tar file that of the tar file."""
    within: Sequence[str] | None = None
    """[F], the files as tables hold them, if some are members of tar files (`Member`)."""

    def path(self, position: int) -> str:
        return os.path.join(self.root, self.names[position]) if self.within is None else self.within[position]

    def paths(self) -> Sequence[str]:
        if self.within is not None:
            return self.within
        prefix = os.path.join(self.root, "")
        return tuple([name if name.startswith(os.sep) else prefix + name for name in self.names])


@dataclass(frozen=True, eq=False)
class FileFacts:
    """What was learnt of the F files of a `Found`. Files that cannot be read have zeros, and an entry in `errors`."""

    height: NDArray[np.int32]
    """[F], as the pixels are stored."""
    width: NDArray[np.int32]
    turned: NDArray[np.bool_]
    """[F], whether EXIF's orientation exchanges height and width."""
    by_pillow: NDArray[np.bool_]
    """[F], whether DALI has the pixels from Pillow (`ImageTable.by_pillow`)."""
    digest: NDArray[np.uint8]
    """[F, 16], BLAKE2b of the file."""
    likeness: NDArray[np.uint8]
    """[F, 32], bits: whether each of 16 x 16 squares is darker than its right neighbour. Like images have few that
    differ, at any size and quality. ("dHash", N. Krawetz 2013, with 256 bits.)"""
    errors: dict[int, str]
    """Position -> why the file cannot be read, in one line."""
    read: int
    """How many files were read for this; the others come from the cache."""
    cache: Path | None
    """Where the cache lies; None if no place could be written."""
    warnings: dict[int, str]
    """Position -> what Pillow warned of when it decoded the file, in one line. The image is used as it is."""

    def notes(self, names: Sequence[str]) -> list[str]:
        """What the user should know beside what cannot be read, a line each; `names` are those of the files."""
        lines = []
        if self.warnings:
            first = min(self.warnings)
            lines.append(
                f"Pillow warns of {counted(len(self.warnings), 'image')}, used as decoded: "
                f"{printable(names[first])} ({printable(self.warnings[first])})"
                f"{', ...' if len(self.warnings) > 1 else ''}"
            )
        if self.cache is None:
            lines.append("each start decodes all files: neither the data's folder nor ~/.cache takes a cache of theirs")
        return lines

    def size(self, positions: NDArray[np.int64], exif: bool) -> tuple[int, int] | None:
        """The one size (height, width) that all of these files have once they are decoded, or None."""
        height, width = self.height[positions], self.width[positions]
        if exif:
            turned = self.turned[positions]
            height, width = np.where(turned, width, height), np.where(turned, height, width)
        if not len(height) or (height != height[0]).any() or (width != width[0]).any():
            return None
        return int(height[0]), int(width[0])


def scan(found: Found, cache: Path, threads: int | None = None) -> FileFacts:
    """Decode the files that the cache does not know or that have changed, several at once, and keep what is learnt.

    A file counts as unchanged while its size and time of change stay the same. The cache is written to `cache` if that
    can be written, and else to the user's folder of caches. Nothing in a cache is executed, and a damaged one is made
    anew.
    """
    places = [place for place in (cache, elsewhere(cache)) if place is not None]
    parts: dict[str, NDArray[Any]] = {
        name: np.zeros((len(found.names), *shape), kind) for name, (kind, shape) in _PARTS.items()
    }
    parts["sizes"], parts["times"] = found.sizes.copy(), found.times.copy()
    errors: dict[int, str] = {}
    warned: dict[int, str] = {}
    todo = np.arange(len(found.names))
    loaded = ((place, known) for place in places if (known := _load(place)) is not None)
    where, known = next(loaded, (None, None))
    if known is not None:
        todo = _take(found, known, parts, errors, warned)
    if len(todo):
        try:
            with _warnings_into(warned):
                _read(found, todo, parts, errors, threads)
        except BaseException:  # Ctrl-C: what was read until now is kept
            _save_any(places, found, parts, errors, warned)
            raise
    if len(todo) or known is None or len(known.names) != len(found.names):
        where = _save_any(places, found, parts, errors, warned)
    learnt = {name: parts[name] for name in _PARTS if name not in ("sizes", "times")}
    return FileFacts(**learnt, errors=errors, read=len(todo), cache=where, warnings=warned)


def require_readable(found: Found, known: FileFacts, what: str) -> None:
    """DataError that counts the files which cannot be read and names the first of them."""
    if known.errors:
        errors = {found.path(place): known.errors[place] for place in sorted(known.errors)}
        raise DataError(f"{what}: {cannot_read(errors, len(found.names), 'fastnoise check')}")


def cannot_read(errors: Mapping[str, str], count: int, lists_all: str) -> str:
    """The message that refuses images which cannot be read.

    Args:
        errors: path -> why it cannot be read.
        count: of all images.
        lists_all: the command or option that names all of them.
    """
    named = [f"{shown_name(path)} ({why})" for path, why in list(errors.items())[:_NAMED]]
    more = f" and {len(errors) - _NAMED} more, which {lists_all} lists" if len(errors) > _NAMED else ""
    return (
        f"cannot read {len(errors)} of {counted(count, 'image')}: {', '.join(named)}{more}: "
        "replace or remove them, or leave them out by --skip-unreadable"
    )


# -- reading -------------------------------------------------------------------------------------------------------


def _read(
    found: Found, todo: NDArray[np.int64], parts: dict[str, NDArray[Any]], errors: dict[int, str], threads: int | None
) -> None:
    times = parts["times"][todo]
    parts["times"][todo] = _UNKNOWN

    def learn(place: int, time: int) -> None:
        _UNDER_WAY.place = place
        try:
            _learn(found.path(place), place, parts)
            parts["times"][place] = time
        except Exception as error:  # Pillow's decoders raise errors of any kind on damaged files
            for name in ("height", "width", "turned", "by_pillow", "digest", "likeness"):
                parts[name][place] = 0
            errors[place] = _why(error)
            if not isinstance(error, MemoryError) and not getattr(
                error, "errno", None
            ):  # what the system says is tried again
                parts["times"][place] = time

    with ThreadPoolExecutor(threads or cpu_cores()) as pool:
        results = pool.map(learn, todo.tolist(), times.tolist())
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import track

            results = track(results, "reading images once", len(todo), console=Console(stderr=True), transient=True)  # type: ignore[assignment]
        elif len(todo) >= _MANY:
            print(
                f"reading {counted(len(todo), 'image')} once; later starts read only what is new or changed",
                file=sys.stderr,
            )
        for _ in results:
            pass


_UNDER_WAY = threading.local()
"""`place`: the position of the file that a thread decodes."""


@contextlib.contextmanager
def _warnings_into(found: dict[int, str]) -> Iterator[None]:
    """Keep the first warning of Pillow for each file under way, in place of showing it; others are shown as ever."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def keep(message: Warning | str, category: type[Warning], filename: str, *more: Any) -> None:
            place = getattr(_UNDER_WAY, "place", None)
            if place is None or _PILLOW not in Path(filename).parents:
                show(message, category, filename, *more)
            else:
                found.setdefault(place, " ".join(str(message).split()))

        warnings.filterwarnings("always", module=r"PIL\.")
        warnings.showwarning = keep  # type: ignore[assignment]
        yield


def _learn(path: str, place: int, parts: dict[str, NDArray[Any]]) -> None:
    content = content_of(path)
    with Image.open(io.BytesIO(content)) as image:
        turned = orientation(image) >= 5
        rgb = decode(image, exif=False)
    parts["height"][place], parts["width"][place], parts["turned"][place] = rgb.height, rgb.width, turned
    parts["by_pillow"][place] = not dali_reads(content[:HEAD])
    parts["digest"][place] = np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), np.uint8)
    parts["likeness"][place] = likeness(rgb)


def unreadable(paths: Sequence[str], threads: int) -> dict[int, str]:
    """Position -> why it cannot be read, of the image files that cannot be decoded. No cache is read or written."""

    def why(path: str) -> str | None:
        try:
            with opened(path) as image:
                decode(image, exif=False)
        except Exception as error:  # Pillow's decoders raise errors of any kind on damaged files
            return _why(error)
        return None

    with ThreadPoolExecutor(threads) as pool:
        return {place: reason for place, reason in enumerate(pool.map(why, paths)) if reason is not None}


def likeness(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 [32], 256 bits that say where an image grows brighter to the right (`FileFacts.likeness`)."""
    small = image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    grey = np.asarray(small)
    return np.packbits(grey[:, :-1] < grey[:, 1:])


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, DataError):
        before, reason, _ = str(error).rpartition("): replace or remove it")  # of `images.unreadable`
        return before.rpartition(" (")[2] if reason else str(error)
    if isinstance(error, PIL.UnidentifiedImageError):
        return "no image of a known format"
    return one_line(error)


# -- the cache -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Known:
    names: list[bytes]
    blob: bytes
    parts: dict[str, NDArray[Any]]
    errors: dict[int, str]
    warnings: dict[int, str]


def elsewhere(cache: Path) -> Path | None:
    """Where the cache lies if its own place cannot be written; None if the user has no folder for caches."""
    digest = hashlib.sha256(os.fsencode(cache.absolute())).hexdigest()[:32]
    folder = cache_folder()
    return None if folder is None else folder / "files" / f"{digest}.npz"


def _blob(names: Sequence[str]) -> bytes:
    return os.fsencode("\0".join(names))


def _load(path: Path) -> _Known | None:
    """What a cache says; None for one that is missing, damaged, or of another format."""
    try:
        require_regular(str(path))
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(bytes(file["about"]))
            if about["format"] != _FORMAT:
                return None
            blob = bytes(file["names"])
            names = blob.split(b"\0") if blob else []
            parts = {name: file[name] for name in _PARTS}
        errors, warned = (
            {int(place): str(why) for place, why in about.get(key, {}).items()} for key in ("errors", "warnings")
        )
        for name, (kind, shape) in _PARTS.items():
            if parts[name].dtype != kind or parts[name].shape != (len(names), *shape):
                return None
        if about["pillow"] != PIL.__version__:  # which may read what another one could not
            for place in about["errors"]:
                parts["times"][int(place)] = _UNKNOWN
        return _Known(names, blob, parts, errors, warned)
    except Exception:  # whatever a damaged file makes the readers of zip, npy and JSON raise
        return None


def _take(
    found: Found, known: _Known, parts: dict[str, NDArray[Any]], errors: dict[int, str], warned: dict[int, str]
) -> NDArray[np.int64]:
    """Fill in what the cache knows; returns the positions of the files that are new or have changed."""
    if _blob(found.names) == known.blob:
        rows = np.arange(len(found.names))
    else:
        places = {name: place for place, name in enumerate(known.names)}
        rows = np.array([places.get(os.fsencode(name), -1) for name in found.names], np.int64)
    same = rows >= 0
    for name in ("sizes", "times"):
        same[same] = known.parts[name][rows[same]] == parts[name][same]
    for name in _PARTS:
        if name not in ("sizes", "times"):
            parts[name][same] = known.parts[name][rows[same]]
    for kept, said in ((known.errors, errors), (known.warnings, warned)):
        if kept:
            for place in np.flatnonzero(same).tolist():
                if (why := kept.get(int(rows[place]))) is not None:
                    said[place] = why
    return np.flatnonzero(~same)


def _save_any(
    places: Sequence[Path],
    found: Found,
    parts: dict[str, NDArray[Any]],
    errors: dict[int, str],
    warned: dict[int, str],
) -> Path | None:
    """The first of the places that a cache could be written to."""
    about = {
        "format": _FORMAT,
        "pillow": PIL.__version__,
        "errors": {str(key): why for key, why in errors.items()},
        "warnings": {str(key): why for key, why in warned.items()},
    }
    return next((place for place in places if _save(place, found, parts, about)), None)


def _save(path: Path, found: Found, parts: dict[str, NDArray[Any]], about: dict[str, Any]) -> bool:
    """Write a cache in one step; False if its place cannot be written. Processes that write at once do no harm."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as stream:
            np.savez(
                stream,
                about=np.frombuffer(json.dumps(about).encode(), np.uint8),
                names=np.frombuffer(_blob(found.names), np.uint8),
                **parts,  # type: ignore[arg-type]  # numpy's stub takes these for allow_pickle
            )
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        return False
    return True
