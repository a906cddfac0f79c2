"""Errors that the user can correct. The command line prints each in one line and exits with code 2."""

from collections.abc import Sequence


class FastnoiseError(Exception):
    """Something that the user gave is wrong. The message says in one line what is wrong, where, and what to do.

    Line breaks, which names from damaged files can hold, become spaces.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(str(message).splitlines()))


class ConfigError(FastnoiseError):
    """The configuration names something unknown, or combines options that exclude each other."""


def said(error: BaseException, most: int | None = None) -> str:
    """An exception's message without its line breaks, or its first `most` characters; its kind if it has none."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def require(holds: bool, message: str) -> None:
    """ConfigError with the message unless it holds."""
    if not holds:
        raise ConfigError(message)


class DataError(FastnoiseError):
    """A data set, label array or image is missing, damaged, or has the wrong dtype or shape."""


class CheckpointError(FastnoiseError):
    """A run folder or checkpoint cannot be read, written or continued."""


class TrainingError(FastnoiseError):
    """Training cannot continue, for example because the loss is NaN."""


def alternatives(names: Sequence[str]) -> str:
    """Names in a list as in a sentence: `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def nearest(name: str, valid: list[str]) -> str:
    """The end of an "unknown ..." message: the valid name closest to `name`, and all valid names.

    Initials count as their words: --lr is close to --learning-rate.
    """
    from difflib import get_close_matches

    bare = {_bare(word): word for word in valid}
    initials = [
        plain for plain in bare if "_" in plain and "".join(part[:1] for part in plain.split("_")) == _bare(name)
    ]
    match = initials or get_close_matches(_bare(name), list(bare), n=1, cutoff=0.5)
    hint = f"did you mean {bare[match[0]]!r}? " if match else ""
    return f"{hint}valid: {', '.join(sorted(valid))}"


def _bare(name: str) -> str:
    """A flag as the field that it sets, so that the dashes do not count as likeness."""
    return name.removeprefix("--").replace("-", "_")
