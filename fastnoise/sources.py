"""The files of a user's whose content decides what a run computes, beside code: labels, lists, weights, noise."""

import contextlib
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from .data.names import LIST
from .errors import DataError

FILES = ("labels", "encoder", "dataset", "noise")
"""The fields that can name such a file."""


def digests(fields: Mapping[str, Any]) -> dict[str, str]:
    """Field -> the SHA-256 sum of the file that it names.

    Those that name none, or one that can't be read, are left out: who reads it says what is wrong.

    Args:
        fields: a configuration by flat names.
    """
    found = {name: _digest(path) for name in FILES if (path := _path(name, fields.get(name))) is not None}
    return {name: digest for name, digest in found.items() if digest is not None}


def _path(name: str, value: Any) -> Path | None:
    if not isinstance(value, str):
        return None
    if name == "dataset":
        return Path(value.removeprefix(LIST)) if value.startswith(LIST) else None
    if name == "noise":
        from .noise.spec import parse

        spec = parse(value)
        file = spec.name if spec.kind == "matrix" else spec.posteriors
        return None if file is None else Path(file)
    if name == "labels":
        from .noise.files import split_source

        with contextlib.suppress(DataError):
            return split_source(value)[0]
        return None
    return Path(value)


def _digest(path: Path) -> str | None:
    try:
        facts = path.stat()
        return _digest_of(path, facts.st_size, facts.st_mtime_ns) if path.is_file() else None
    except OSError:
        return None


@lru_cache(256)
def _digest_of(path: Path, size: int, time: int) -> str:
    """Of a file of this size and time of change: the many jobs of a sweep name few files."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
