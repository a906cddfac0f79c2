"""Names that are looked up in modules when they are first used, so that a table of names imports none of them."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def named(spec: str) -> Any:
    """What MODULE:NAME names, after its module is imported."""
    module, _, name = spec.partition(":")
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
