"""Reads pickles that hold NumPy arrays without letting them run anything else."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .images import one_line


class _Dtype:
    """Stands in for numpy.dtype and takes plain types alone. What a pickle could else do to a dtype, such as giving it
    fields that hold objects, makes pointers of the array's bytes."""

    def __init__(self, name: str, *flags: Any) -> None:
        kind = np.dtype(name) if isinstance(name, str) and len(name) < 20 else None
        if kind is None or kind.kind not in "biufSU":
            raise pickle.UnpicklingError(f"a dtype other than numbers and texts: {name!r}")
        self.kind = kind

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order, *plain = state[1:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in plain):
            raise pickle.UnpicklingError("a dtype that is made of others")
        self.kind = self.kind.newbyteorder(order)


class _Array:
    """Stands in for an array until its bytes have come."""

    def __init__(self, *ignored: Any) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_column, content = state
        if isinstance(content, str):
            content = content.encode("latin1")
        if type(dtype) is not _Dtype or type(content) is not bytes:
            raise pickle.UnpicklingError("an array of other things than numbers and texts")
        flat = np.frombuffer(content, dtype.kind)
        self.array = flat.reshape(shape, order="F" if by_column else "C").copy(order="K")


_CLASS = object()
"""Stands in for numpy.ndarray, which pickles only pass on."""


def _finished(value: Any) -> Any:
    """What was loaded, with its arrays."""
    if isinstance(value, _Array):
        if value.array is None:
            raise pickle.UnpicklingError("an array without content")
        return value.array
    if type(value) is dict:
        return {key: _finished(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_finished, value))
    return value


def _latin1(text: str, encoding: str) -> bytes:
    """Stands in for _codecs.encode, by which protocol 2 writes bytes, and does only that."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"an encoding other than latin1: {encoding!r}")
    return text.encode("latin1")


Globals = Mapping[tuple[str, str], Any]
"""Module and name as a pickle gives them -> what is called, or passed on."""

CIFAR_GLOBALS: Globals = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _CLASS,
    ("numpy", "dtype"): _Dtype,
}
"""All that the official CIFAR pickles name."""

TORCH_GLOBALS: Globals = {
    **CIFAR_GLOBALS,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _latin1,
}
"""All that torch.save names for a dictionary of arrays, under either NumPy."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, allowed: Globals) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which such a file has no need of") from None


def unpickle(content: bytes, allowed: Globals, source: str) -> Any:
    """Load a pickle that may name only the globals `allowed`; DataError, naming `source`, for any other or damage."""
    try:
        return _finished(_Unpickler(content, allowed).load())
    except Exception as error:  # a damaged pickle raises errors of any kind
        raise DataError(f"{source} is damaged or tampered with ({one_line(error)}): get it again") from error


def unpickle_archive(content: bytes, source: str) -> Any:
    """The arrays in a file of torch.save: a zip archive with a pickle in it. DataError as above, also for tensors."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            pickled = archive.read(next(member for member in archive.namelist() if member.endswith("/data.pkl")))
    except (zipfile.BadZipFile, StopIteration) as error:
        raise DataError(f"{source} is not a file of torch.save: get it again") from error
    return unpickle(pickled, TORCH_GLOBALS, source)


def read_torch_arrays(path: Path) -> Any:
    """What a file of torch.save holds: tensors, as arrays, or NumPy arrays, in lists and dictionaries.

    Nothing in it is executed. DataError for a damaged file, or for one that names anything else.
    """
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # NumPy arrays among others, which torch does not load by default
        return unpickle_archive(path.read_bytes(), str(path))
    return _as_arrays(found, path)


def _as_arrays(value: Any, path: Path) -> Any:
    """Tensors as arrays, those of bfloat16, which NumPy does not know, in float32. DataError for other tensors."""
    if hasattr(value, "detach"):
        try:
            return (value.detach().float() if str(value.dtype) == "torch.bfloat16" else value.detach()).numpy()
        except (TypeError, RuntimeError):  # quantised, sparse, of 4 bits
            kind = str(value.dtype).removeprefix("torch.")
            raise DataError(f"{path}: a tensor of {kind}, {value.layout}, which NumPy has no form for") from None
    if isinstance(value, dict):
        return {key: _as_arrays(part, path) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_arrays(part, path) for part in value]
    return value
