"""Many texts in little memory, such as the paths of a list of a million images."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 4096  # texts that are made at once where all are gone through
_PRIME = np.uint64(0x100000001B3)  # of the hash FNV-1a
_BASIS = np.uint64(0xCBF29CE484222325)
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Texts(Sequence[str]):
    """N texts that are parts of one block of bytes, such as a list's file as it was read, all behind one prefix.

    As a tuple a text of 60 characters takes 117 bytes; here it takes 16 bytes beside its own. Bytes that are not UTF-8
    become surrogates, as `os.fsdecode` makes them.

    Args:
        block: uint8 [M]; it is shared and never written to.
        starts: int64 [N], where each text begins in `block`.
        ends: int64 [N], where each text ends.
        prefix: what stands before each text.
    """

    def __init__(self, block: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], prefix: str = ""):
        self.block, self.starts, self.ends, self.prefix = block, starts, ends, prefix

    @classmethod
    def of(cls, texts: Iterable[str], prefix: str = "") -> "Texts":
        """From texts one by one."""
        encoded = [os.fsencode(text) for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        starts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1]])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts, ends, prefix)

    def behind(self, prefix: str) -> "Texts":
        """The same texts behind this prefix in place of their own."""
        return Texts(self.block, self.starts, self.ends, prefix)

    def take(self, positions: NDArray[np.int64] | slice) -> "Texts":
        """The texts at these positions."""
        return Texts(self.block, self.starts[positions], self.ends[positions], self.prefix)

    def without(self, start: str) -> "Texts":
        """The texts without a beginning that all of them have; those of which one has it not stay as they are."""
        begins = np.frombuffer(start.encode(), np.uint8)
        long = (self.ends - self.starts) >= len(begins)
        if not long.all() or any((self.block[self.starts + place] != byte).any() for place, byte in enumerate(begins)):
            return self
        return Texts(self.block, self.starts + len(begins), self.ends, self.prefix)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> "Texts": ...
    def __getitem__(self, position: int | slice) -> "str | Texts":
        if isinstance(position, slice):
            return self.take(position)
        return self.prefix + os.fsdecode(self.block[self.starts[position] : self.ends[position]].tobytes())

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _AT_ONCE):
            for start, end in zip(
                self.starts[first : first + _AT_ONCE].tolist(), self.ends[first : first + _AT_ONCE].tolist(), strict=True
            ):
                yield self.prefix + os.fsdecode(self.block[start:end].tobytes())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Texts({len(self)}: {', '.join(map(repr, self[:3]))}{', ...' if len(self) > 3 else ''})"

    def column(self, place: int) -> NDArray[np.uint8]:
        """uint8 [N], the bytes at a place of each text without the prefix; 0 for texts that are shorter."""
        at = self.starts + place
        there = at < self.ends
        return np.where(there, self.block[np.where(there, at, 0)], 0) if len(self.block) else np.zeros(len(self), np.uint8)


def kept(texts: Iterable[str | os.PathLike[str]]) -> Sequence[str]:
    """Texts or paths as tables hold them: a `Texts` as it is, else a tuple."""
    return texts if isinstance(texts, Texts) else tuple([t if isinstance(t, str) else str(t) for t in texts])


def picked(texts: Sequence[str], positions: NDArray[np.int64]) -> Sequence[str]:
    """The texts at these positions, held as they were."""
    if isinstance(texts, Texts):
        return texts.take(np.asarray(positions))
    return tuple([texts[place] for place in np.asarray(positions).tolist()])


def packed(texts: Sequence[str], errors: str = "surrogateescape") -> Iterator[bytes]:
    """The bytes of all texts with a NUL between two, in parts."""
    for first in range(0, len(texts), _AT_ONCE):
        part = texts[first : first + _AT_ONCE]
        yield b"\0" * bool(first) + "\0".join(part).encode("utf-8", errors)


# -- which are the same --------------------------------------------------------------------------------------------


def hashes(texts: Texts) -> NDArray[np.uint64]:
    """uint64 [N], of the texts without their prefix: equal for equal texts, and for others by accident alone."""
    found = np.full(len(texts), _BASIS)
    lengths = texts.ends - texts.starts
    for place in range(int(lengths.max(initial=0))):
        rows: NDArray[np.int64] | slice = slice(None)
        if not (longer := lengths > place).all():
            rows = np.flatnonzero(longer)
        part = (found[rows] ^ texts.block[texts.starts[rows] + place]) * _PRIME
        found[rows] = part ^ (part >> np.uint64(29))
    return (found ^ lengths.astype(np.uint64)) * _MIX


def equal(one: Texts, other: Texts) -> NDArray[np.bool_]:
    """bool [N], which of two rows of texts are the same without their prefixes."""
    lengths = one.ends - one.starts
    same = lengths == other.ends - other.starts
    for place in range(int(lengths[same].max(initial=0))):
        same &= one.column(place) == other.column(place)
    return same


def places(keys: Texts, among: Texts) -> NDArray[np.int64]:
    """int64 [K], where each key stands among N different texts; -1 for a key that is not there."""
    if not len(among):
        return np.full(len(keys), -1)
    known = hashes(among)
    order = np.argsort(known, kind="stable")
    wanted = hashes(keys)
    at = np.minimum(np.searchsorted(known, wanted, sorter=order), len(among) - 1)
    found = order[at]
    there = known[found] == wanted
    there[there] = equal(keys.take(there), among.take(found[there]))
    return np.where(there, found, -1)


def repeated(texts: Texts) -> NDArray[np.int64]:
    """The positions, in order, of the texts that stand at an earlier position too."""
    known = hashes(texts)
    order = np.argsort(known, kind="stable")
    twin = np.flatnonzero(known[order][1:] == known[order][:-1])
    first, second = order[twin], order[twin + 1]
    return np.sort(second[equal(texts.take(first), texts.take(second))])
