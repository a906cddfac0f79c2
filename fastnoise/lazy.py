"""Names that are looked up in modules when they are first used, so that a table of names imports none of them."""

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Import without garbage collection. What modules make stays, and to search it for garbage again and again takes a
    quarter of the time in which torch and the engine are imported."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def named(spec: str) -> Any:
    """What MODULE:NAME names, after its module is imported."""
    module, _, name = spec.partition(":")
    with uncollected():
        return getattr(import_module(module), name)


def attributes(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`, which takes attributes from its modules.

    Args:
        package: the package's `__name__`.
        modules: public name -> the module of the package that defines it.
    """

    def find(name: str) -> Any:
        if name in modules:
            return named(f"{package}.{modules[name]}:{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
