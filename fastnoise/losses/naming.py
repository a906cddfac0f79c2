"""Errors and signatures of losses that speak of the class that was called, not of what it is made of."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from ..errors import FastnoiseError, nearest


def renamed(error: FastnoiseError, kind: type, op_name: str = "") -> None:
    """Let an error's message begin with the name of a class, in place of the op's."""
    message = str(error).removeprefix(f"{op_name}: ")
    if not message.startswith(f"{kind.__name__}: "):
        error.args = (f"{kind.__name__}: {message}",)


def names_its_class(function: Callable[..., None]) -> Callable[..., None]:
    """An `__init__` whose errors begin with the name of the class that is made.

    Raises:
        TypeError: for an unknown keyword argument, with the nearest of those that there are.
    """

    @functools.wraps(function)
    def init(self: Any, *arguments: Any, **keywords: Any) -> None:
        valid = keyword_names(function)
        for name in keywords:
            if valid is not None and name not in valid:
                raise TypeError(f"{type(self).__name__} has no option {name!r}; {nearest(name, list(valid))}")
        try:
            function(self, *arguments, **keywords)
        except FastnoiseError as error:
            renamed(error, type(self))
            raise

    return init


@functools.cache
def keyword_names(function: Callable[..., Any]) -> frozenset[str] | None:
    """The keyword arguments that a function takes, with those of `**options: Unpack[...]`. None if it takes any."""
    names: set[str] = set()
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            hint = get_type_hints(function).get(name)
            (options,) = get_args(hint) or (None,)
            if not hasattr(options, "__required_keys__"):
                return None
            names |= get_type_hints(options).keys()
        elif parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.add(name)
    return frozenset(names - {"self"})
