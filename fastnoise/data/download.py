"""Gets what is missing of a dataset, or says how to get it."""

import socket
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import md5
from http.client import HTTPException
from pathlib import Path

from ..errors import DataError
from .images import one_line

TIMEOUT_SECONDS = 30
"""Without an answer for this long, a download has failed."""


def complete(files: Iterable[Path], *, name: str, remedy: str, download: Callable[[], object] | None) -> None:
    """Make sure that all of `files` exist, calling `download` if they do not (None: downloads are not allowed).

    DataError says which file is missing and, in the words of `remedy`, where the data belongs.
    """
    files = list(files)
    if (missing := first_missing(files)) is None:
        return
    problem = f"{name}: {missing} is missing"
    if download is None:
        raise DataError(f"{problem}: {remedy}, or allow the download")
    try:
        with _timeout():
            download()
    except (OSError, RuntimeError, EOFError, HTTPException, tarfile.TarError) as error:
        raise DataError(f"{problem} and its download failed ({one_line(error)}): {remedy}") from error
    if (missing := first_missing(files)) is not None:
        raise DataError(f"{name}: {missing} is missing even after the download: {remedy}")


def first_missing(files: Iterable[Path]) -> Path | None:
    return next((file for file in files if not file.is_file()), None)


def read_verified(file: Path, checksum: str) -> bytes:
    """The file's content; DataError unless its MD5 sum is the official one."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file} ({one_line(error)})") from error
    if md5(content, usedforsecurity=False).hexdigest() != checksum:
        raise DataError(f"{file} is damaged or not the official file (its MD5 sum differs): delete it and get it again")
    return content


@contextmanager
def _timeout() -> Iterator[None]:
    """torchvision's downloads set none of their own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
