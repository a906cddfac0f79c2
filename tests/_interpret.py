"""Runs one of the `_..._cases.py` scripts under Triton's interpreter."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np


def interpret(script: str, request: Any) -> Any:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script))],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def prepare() -> None:
    """Have Triton's interpreter add up as a GPU does, and leave out what it does again and again to no effect."""
    reduce_by_halves()
    save_work()


def save_work() -> None:
    """Half of the interpreter's time goes into putting its functions in place of Triton's at every call of a device
    function; another quarter into a search for integers that overflow, which a GPU does not make, and into looking up
    NumPy's types."""
    import triton.language as tl
    from triton.runtime import interpreter

    interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    interpreter._patch_lang = lambda function: SimpleNamespace(restore=lambda: None)
    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=False)
    look_up, found = interpreter._get_np_dtype, {}

    def type_of(dtype: Any) -> np.dtype[Any]:
        if dtype.name not in found:
            found[dtype.name] = look_up(dtype)
        return found[dtype.name]

    interpreter._get_np_dtype = type_of


def reduce_by_halves() -> None:
    """Have Triton's interpreter combine the halves of an axis until one element is left, as threads do on a GPU.

    It adds up one element after another, in Python. That is slow, and rounds sums of a thousand equal terms some ten
    times as badly as a GPU does.
    """
    from triton.runtime.interpreter import ReduceOps

    def generic_reduce(self: Any, input: Any) -> list[Any]:
        tensors, axis = self.unravel(input, self.axis)
        dtypes = [tensor.dtype for tensor in tensors]
        parts = [tensor.handle.data for tensor in tensors]
        while parts[0].shape[axis] > 1:
            halves = zip(*(np.split(part, 2, axis) for part in parts), strict=True)
            first, second = ([self.to_tensor(*pair) for pair in zip(half, dtypes, strict=True)] for half in halves)
            found = self.combine_fn.fn(*first, *second)
            parts = [tensor.handle.data for tensor in (found if isinstance(found, tuple) else (found,))]
        if not self.keep_dims:
            parts = [part.squeeze(axis) for part in parts]
        elif self.axis is None:
            raise NotImplementedError("keep_dims without an axis")
        return [self.to_tensor(part, dtype) for part, dtype in zip(parts, dtypes, strict=True)]

    ReduceOps.generic_reduce = generic_reduce


def row_form(stretch: int | str | None) -> dict[str, Any]:
    """The launch's keywords for a form of the rows: so many columns per stretch, "held-" and so many columns for rows
    that are held in such stretches, "held" for the usual ones of held rows, None for the usual form."""
    if not isinstance(stretch, str):
        return {"geometry": stretches(stretch)}
    columns = stretch.removeprefix("held").removeprefix("-")
    return {"geometry": stretches(int(columns) if columns else None), "hold": True}


def stretches(columns: int | None) -> tuple[int, int, int] | None:
    """A geometry of stretches of so many columns, a power of two, by which longer rows are looped over; None: the
    usual one."""
    return None if columns is None else (max(1, 128 // columns), columns, 1)
