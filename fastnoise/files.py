"""Files that are never half-written: a temporary name beside the target, synced, then renamed."""

import contextlib
import csv
import errno
import io
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from .errors import CheckpointError, FastnoiseError

PARTIAL = ".partial"
"""Suffix of a file that is being written. One found in a run folder was cut off and means nothing."""

FINDING = "finding.json"
"""The file in the folder of a `fastnoise clean` that says what was found, the rate of wrong labels among it."""


def write_atomically(
    path: Path,
    write: Callable[[BinaryIO], object],
    error_type: type[FastnoiseError] = CheckpointError,
    *,
    shared: bool = False,
) -> None:
    """Let `write` fill a file and put it at `path` in one step.

    A process killed at any moment leaves at `path` either the old content or the new. Raises `error_type`
    when the disk is full or cannot be written; the old content stays and the temporary file is removed. `shared` says
    that processes may write the same content at once: each then has a temporary file of its own.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}" if shared else path.name + PARTIAL)
    try:
        with open(partial, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself must reach the disk
        finally:
            os.close(folder)
    except BaseException as error:
        with contextlib.suppress(OSError):  # not there, where not even its folder was
            partial.unlink()
        if not isinstance(error, OSError | RuntimeError):  # torch.save turns a failed write into a RuntimeError
            raise
        kept = "the earlier file is untouched" if path.exists() else "nothing was left behind"
        raise error_type(f"cannot write {path}: {_reason(error)}; {kept}; free space or check permissions") from error


def _reason(error: BaseException) -> str:
    """What the system said: torch.save hides it in the context of an error of its own."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        link = link.__cause__ or link.__context__
    return str(error).splitlines()[0]


def expanded(path: str | Path) -> Path:
    """The path with the folder that ~ or ~user stands for; as it is if the system knows no such user."""
    return Path(os.path.expanduser(path))


def cache_folder() -> Path | None:
    """$XDG_CACHE_HOME/fastnoise or ~/.cache/fastnoise; None for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "fastnoise"
    except RuntimeError:  # neither HOME nor an entry in the list of users, as in some containers
        return None


def require_file(path: Path) -> None:
    """OSError for a pipe, socket, device or folder: a pipe would be waited for. What is missing passes."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def stored_text(path: Path) -> str:
    """A stored text in UTF-8, whatever the system's encoding is; OSError as `require_file`, UnicodeDecodeError."""
    require_file(path)
    return path.read_text(encoding="utf-8")


def stored_json(path: Path) -> Any:
    """A stored JSON document; OSError as `stored_text`, ValueError for what is none or is nested too deeply."""
    try:
        return json.loads(stored_text(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text in UTF-8."""
    write_atomically(path, lambda stream: stream.write(text.encode()))


def csv_text(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A table as CSV: the names of its columns, then a line for each row."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue()


def write_json(path: Path, value: Any) -> None:
    """`write_atomically` for a JSON document."""
    write_text(path, json.dumps(value, indent=2) + "\n")
