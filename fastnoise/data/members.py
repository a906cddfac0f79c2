"""Files that lie within larger ones, such as the members of a tar shard: where they are, and their bytes."""

import os
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .texts import Texts


class Member(str):
    """The name of a file within another one, as shards/00000.tar/0001.jpg, that knows where its bytes are."""

    file: str
    """The path of the file that holds it."""
    offset: int
    length: int

    def read(self, count: int | None = None) -> bytes:
        """Its bytes, or the first `count` of them; DataError if the file that holds them has become shorter."""
        wanted = self.length if count is None else min(count, self.length)
        descriptor = os.open(self.file, os.O_RDONLY)
        try:
            found = os.pread(descriptor, wanted, self.offset)
        finally:
            os.close(descriptor)
        if len(found) < wanted:
            raise DataError(f"{self.file} has become shorter since it was read; start again")
        return found


def any_within(files: Sequence[str]) -> bool:
    """Whether some of a table's files lie within larger ones."""
    if isinstance(files, Texts):
        return isinstance(files, Members) and len(files) > 0
    return any(isinstance(file, Member) for file in files)


class Members(Texts):
    """N members of some files, as the names of a table's files.

    Args:
        names: N names, relative to the file that holds each.
        files: paths of the files.
        of: int32 [N], which of `files` holds each member.
        offsets: int64 [N], where its bytes begin there.
        lengths: int64 [N], bytes.
    """

    def __init__(
        self,
        names: Texts,
        files: Sequence[str],
        of: NDArray[np.int32],
        offsets: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ):
        super().__init__(names.block, names.starts, names.ends, names.prefix)
        self.files, self.of_file, self.offsets, self.lengths = tuple(files), of, offsets, lengths

    def take(self, positions: NDArray[np.int64] | slice) -> "Members":
        names = Texts(self.block, self.starts, self.ends, self.prefix).take(positions)
        return Members(names, self.files, self.of_file[positions], self.offsets[positions], self.lengths[positions])

    @classmethod
    def joined(cls, parts: Sequence["Members"]) -> "Members":
        """The members of several, one behind the other."""
        counts = np.cumsum([0, *(len(part.files) for part in parts[:-1])])
        return cls(
            Texts.of([name for part in parts for name in part.inner()]),
            [file for part in parts for file in part.files],
            np.concatenate([part.of_file + np.int32(count) for part, count in zip(parts, counts, strict=True)]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.lengths for part in parts]),
        )

    def inner(self) -> Iterator[str]:
        """The names without the files that hold them."""
        return super().__iter__()

    @overload
    def __getitem__(self, position: int) -> Member: ...
    @overload
    def __getitem__(self, position: slice) -> "Members": ...
    def __getitem__(self, position: int | slice) -> "Member | Members":
        if isinstance(position, slice):
            return self.take(position)
        file = self.files[self.of_file[position]]
        member = Member(f"{file}/{super().__getitem__(position)}")
        member.file, member.offset, member.length = file, int(self.offsets[position]), int(self.lengths[position])
        return member

    def __iter__(self) -> Iterator[Member]:
        return (self[place] for place in range(len(self)))
