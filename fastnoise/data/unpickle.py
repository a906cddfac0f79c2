"""Reads pickles that hold NumPy arrays without letting them run anything else."""

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import DataError
from .images import one_line

_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]  # NumPy's own; where it lives differs between NumPy 1 and 2


def _latin1(text: str, encoding: str) -> bytes:
    """Stands in for _codecs.encode, by which protocol 2 writes bytes, and does only that."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"an encoding other than latin1: {encoding!r}")
    return text.encode("latin1")


Globals = Mapping[tuple[str, str], Callable[..., Any]]
"""Module and name as a pickle gives them -> what is called."""

CIFAR_GLOBALS: Globals = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""All that the official CIFAR pickles name."""

TORCH_GLOBALS: Globals = {
    **CIFAR_GLOBALS,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
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
        return _Unpickler(content, allowed).load()
    except Exception as error:  # a damaged pickle raises errors of any kind
        raise DataError(f"{source} is damaged or tampered with ({one_line(error)}): get it again") from error
