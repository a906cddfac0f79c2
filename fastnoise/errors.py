"""The errors that a user can mend. The command line prints each as one line and exits with code 2."""

from collections.abc import Sequence


class FastnoiseError(Exception):
    """Something the user gave is wrong. The message says what, where, and what to do, in one line: line breaks, which
    names out of damaged files can hold, become spaces."""

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(str(message).splitlines()))


class ConfigError(FastnoiseError):
    """A configuration that names something unknown, or combines what cannot be combined."""


class DataError(FastnoiseError):
    """A data set, label array or image that is missing, damaged or of the wrong form."""


class CheckpointError(FastnoiseError):
    """A run folder or checkpoint that cannot be read, written or continued."""


class TrainingError(FastnoiseError):
    """Training that cannot go on, such as a loss that is not a number."""


def alternatives(names: Sequence[str]) -> str:
    """Names as a sentence lists them: `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def nearest(name: str, valid: list[str]) -> str:
    """Say which valid name is closest to `name` and list them all: the tail of an "unknown ..." message.

    Initials stand for their words: --lr is near --learning-rate.
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
