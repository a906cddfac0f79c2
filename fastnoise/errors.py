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
    """Say which valid name is closest to `name` and list them all: the tail of an "unknown ..." message."""
    from difflib import get_close_matches

    match = get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean {match[0]!r}? " if match else ""
    return f"{hint}valid: {', '.join(sorted(valid))}"
