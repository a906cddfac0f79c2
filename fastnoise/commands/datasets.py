"""Data sets that commands read for other ends than training."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..data import names as data_names
from ..errors import ConfigError
from ..texts import printable

if TYPE_CHECKING:
    from ..data import ImageDataset


class ReadsData(Protocol):
    """A command with these options."""

    @property
    def data_root(self) -> str: ...
    @property
    def download(self) -> bool: ...
    @property
    def skip_unreadable(self) -> bool: ...


def read_dataset(name: str, command: ReadsData) -> "ImageDataset":
    """The data set that a command names; what its user should know of it is printed. FastnoiseError in one line."""
    data_names.check_dataset(name)
    data_names.check_skipping(name, command.skip_unreadable)
    from ..data import load_dataset

    dataset = load_dataset(
        name, Path(command.data_root), download=command.download, skip_unreadable=command.skip_unreadable
    )
    for note in dataset.notes:
        print(printable(note))
    return dataset


def require_dataset(command: ReadsData, name: str | None) -> None:
    """ConfigError for --skip-unreadable without a data set."""
    if command.skip_unreadable and name is None:
        raise ConfigError("--skip-unreadable is for the images of a --dataset; drop it, or name one")
