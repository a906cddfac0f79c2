"""Runs one of the `_..._cases.py` scripts under Triton's interpreter."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

SERVER = """
import json, os, runpy, sys, traceback
from fastnoise.lazy import uncollected
with uncollected():
    import fastnoise.kernels.row, fastnoise.engine.single, sklearn.datasets, sklearn.metrics, torch._dynamo
for line in sys.stdin:
    script, *files = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    code = 1
    try:
        for number, (file, mode) in enumerate(zip(files, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY), strict=True)):
            os.dup2(os.open(file, mode | os.O_CREAT), number)
        sys.stdin = open(0, closefd=False)
        sys.path.insert(0, os.path.dirname(script))
        runpy.run_path(script, run_name="__main__")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
"""
"""Runs scripts, each in a fork: Triton reads its variable when it is imported, and its import takes seconds."""


@cache
def _server() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )  # fmt: skip


def interpret(script: str, request: Any) -> Any:
    """What a script of this folder makes of a request, which it reads as JSON and writes as JSON."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("request", "result", "errors")]
        files[0].write_text(json.dumps(request))
        server.stdin.write(json.dumps([str(Path(__file__).with_name(script)), *map(str, files)]) + "\n")
        server.stdin.flush()
        code = server.stdout.readline()
        assert code == "0\n", (code, files[2].read_text() if files[2].exists() else "")
        return json.loads(files[1].read_text())


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
