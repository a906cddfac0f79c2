"""Many texts in little memory, such as the paths of a list of a million images."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

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
        self._hashes: NDArray[np.uint64] | None = None
        self._order: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, texts: Iterable[str], prefix: str = "") -> "Texts":
        """From texts one by one."""
        encoded = [os.fsencode(text) for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        starts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1]])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts, ends, prefix)

    def behind(self, prefix: str) -> "Texts":
        """The same texts behind this prefix in place of their own."""
        found = Texts(self.block, self.starts, self.ends, prefix)
        found._hashes, found._order = self._hashes, self._order
        return found

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
                self.starts[first : first + _AT_ONCE].tolist(),
                self.ends[first : first + _AT_ONCE].tolist(),
                strict=True,
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
        return (
            np.where(there, self.block[np.where(there, at, 0)], 0) if len(self.block) else np.zeros(len(self), np.uint8)
        )


def kept(texts: Iterable[str | os.PathLike[str]]) -> Sequence[str]:
    """Texts or paths as tables hold them: a `Texts` as it is, else a tuple."""
    return texts if isinstance(texts, Texts) else tuple([t if isinstance(t, str) else str(t) for t in texts])


def picked(texts: Sequence[str], positions: NDArray[np.int64]) -> Sequence[str]:
    """The texts at these positions, held as they were."""
    if isinstance(texts, Texts):
        return texts.take(np.asarray(positions))
    return tuple([texts[place] for place in np.asarray(positions).tolist()])


def as_bytes(text: str) -> NDArray[np.uint8]:
    """A text as an array for an .npz file, in UTF-8; surrogates as the bytes that they stand for."""
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)


def packed(texts: Sequence[str]) -> Iterator[bytes]:
    """The bytes of all texts with a NUL between two, in parts; surrogates as the bytes that they stand for."""
    for first in range(0, len(texts), _AT_ONCE):
        part, between = texts[first : first + _AT_ONCE], b"\0" * bool(first)
        if isinstance(part, Texts):
            yield between + _joined(part)
        else:
            yield between + "\0".join(part).encode("utf-8", "surrogateescape")


def add_samples(digest: Any, names: Sequence[str], labels: NDArray[Any]) -> None:
    """Add names and labels to a hash."""
    for part in packed(names):
        digest.update(part)
    digest.update(bytes(2) + labels.astype(labels.dtype.newbyteorder("<"), copy=False).tobytes())


def _joined(texts: Texts) -> bytes:
    """One or more texts with a NUL between two, without making a text of any."""
    prefix = np.frombuffer(os.fsencode(texts.prefix), np.uint8)
    lengths = texts.ends - texts.starts
    begins = np.concatenate([[0], np.cumsum(lengths + len(prefix) + 1)])  # of each text in what comes out
    found = np.zeros(begins[-1], np.uint8)
    found[np.arange(lengths.sum()) + np.repeat(begins[:-1] + len(prefix) - np.cumsum(lengths) + lengths, lengths)] = (
        texts.block[np.arange(lengths.sum()) + np.repeat(texts.starts - np.cumsum(lengths) + lengths, lengths)]
    )
    for place, byte in enumerate(prefix.tolist()):
        found[begins[:-1] + place] = byte
    return found[:-1].tobytes()


# -- which are the same --------------------------------------------------------------------------------------------


def hashes(texts: Texts) -> NDArray[np.uint64]:
    """uint64 [N], of the texts without their prefix: equal for equal texts, and for others by accident alone."""
    if texts._hashes is not None:
        return texts._hashes
    found = np.full(len(texts), _BASIS)
    lengths = texts.ends - texts.starts
    for place in range(int(lengths.max(initial=0))):
        rows: NDArray[np.int64] | slice = slice(None)
        if not (longer := lengths > place).all():
            rows = np.flatnonzero(longer)
        part = (found[rows] ^ texts.block[texts.starts[rows] + place]) * _PRIME
        found[rows] = part ^ (part >> np.uint64(29))
    texts._hashes = (found ^ lengths.astype(np.uint64)) * _MIX
    return texts._hashes


def _by_hash(texts: Texts) -> NDArray[np.int64]:
    """int64 [N], the order of the texts' hashes; of equal ones that of the texts."""
    if texts._order is None:
        texts._order = np.argsort(hashes(texts), kind="stable")
    return texts._order


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
    order, rows = _by_hash(among), _by_hash(keys)
    known, wanted = hashes(among)[order], hashes(keys)[rows]  # both sorted, which keeps the search in the cache
    at = np.minimum(np.searchsorted(known, wanted), len(among) - 1)
    found = np.empty(len(keys), np.int64)
    found[rows] = np.where(known[at] == wanted, order[at], -1)
    there = np.flatnonzero(found >= 0)
    found[there[~equal(keys.take(there), among.take(found[there]))]] = -1
    return found


def repeated(texts: Texts) -> NDArray[np.int64]:
    """The positions, in order, of the texts that stand at an earlier position too."""
    order = _by_hash(texts)
    known = hashes(texts)[order]
    twin = np.flatnonzero(known[1:] == known[:-1])
    first, second = order[twin], order[twin + 1]
    return np.sort(second[equal(texts.take(first), texts.take(second))])
