"""Code of the user's own: FILE.py:NAME wherever fastnoise takes the name of a method, model, data set, noise or task.

The file is imported once for each content that it has. Nothing here imports torch; the file itself may.
"""

import hashlib
import importlib.util
import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from .errors import ConfigError, FastnoiseError

Kind = Literal["method", "model", "dataset", "noise", "task"]
KINDS: tuple[Kind, ...] = ("method", "model", "dataset", "noise", "task")
"""The fields of a configuration that take FILE.py:NAME."""

_FORM = re.compile(r"(?P<file>.*?\.py):(?P<name>[^:,]*)(?P<rest>.*)", re.DOTALL)


def is_own(text: str) -> bool:
    """Whether a name is FILE.py:NAME, with or without what a noise has behind it."""
    return ".py:" in text


def split(text: str) -> tuple[Path, str, str]:
    """The file as an absolute path, the name in it, and the rest of the text: FILE.py, NAME and `:0.4,step=2`."""
    file, name, rest = _parts(text)
    return Path(os.path.abspath(os.path.expanduser(file))), name, rest


def located(text: str) -> str:
    """FILE.py:NAME with the file named from the root, for use in any folder. Other names stay as they are."""
    if not is_own(text):
        return text
    file, name, rest = split(text)
    return f"{file}:{name}{rest}"


def short(text: str) -> str:
    """NAME of FILE.py:NAME, with what follows it: for titles and names of folders. Other names stay as they are."""
    if not is_own(text):
        return text
    _, name, rest = _parts(text)
    return name + rest


def _parts(text: str) -> tuple[str, str, str]:
    """The file as it is written, the name, and the rest."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} names nothing in a file; write FILE.py:NAME")
    return found["file"], found["name"].strip(), found["rest"]


def load(spec: str, kind: Kind, base: type | None = None) -> Any:
    """What FILE.py:NAME names: a class or function, with `base` a class derived from it.

    ConfigError in one line: no such file, a file that fails, or no such name in it, with the names that it has.
    """
    file, name, _ = split(spec)
    flag = f"--{kind} {spec}"
    module = _imported(file, flag)
    found = getattr(module, name, None)
    if base is not None:
        if not _is_derived(found, base):
            classes = [key for key, value in vars(module).items() if _is_derived(value, base) and value is not base]
            raise ConfigError(
                f"{flag}: {file} has no class {name!r} derived from fastnoise.{kind}s.{base.__name__}; "
                f"it has: {', '.join(classes) or 'none'}"
            )
    elif not callable(found):
        names = [key for key, value in vars(module).items() if _is_made_there(key, value, module)]
        raise ConfigError(f"{flag}: {file} has no function or class {name!r}; it has: {', '.join(names) or 'none'}")
    return found


def call(function: Callable[..., Any], what: str, *values: Any, **offered: Any) -> Any:
    """Call a function of the user's with `values`, and with those of the `offered` arguments that it takes by name.

    Args:
        function: from `load`.
        what: how messages begin, as in `--model FILE.py:NAME`.
        values: given by position.
        offered: given by name where the function has a parameter of that name, or takes all.

    ConfigError in one line where it needs an argument that it is not offered, and where it raises. fastnoise's own
    errors, which say what to do, go through as they are.
    """
    taken = parameters(function, what)
    named = {key: value for key, value in offered.items() if taken is None or key in taken}
    try:
        inspect.signature(function).bind(*values, **named)
    except TypeError as error:
        valid = ", ".join([f"{len(values)} by position"] * bool(values) + sorted(offered))
        raise ConfigError(f"{what} cannot be called: {error}; it is given: {valid}") from None
    try:
        return function(*values, **named)
    except FastnoiseError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise ConfigError(f"{what} fails with {_said(error)}") from error


def parameters(function: Callable[..., Any], what: str) -> frozenset[str] | None:
    """The names of the arguments that a function takes by name; None where it takes any."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise ConfigError(f"{what} has no signature that can be read; wrap it in a function of Python") from None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        return None
    return frozenset(
        parameter.name
        for parameter in found
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    )


def needed(function: Callable[..., Any]) -> frozenset[str]:
    """The names of the arguments that a function cannot do without."""
    found = inspect.signature(function).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return frozenset(item.name for item in found if item.default is item.empty and item.kind not in variable)


def fingerprints(fields: Mapping[str, Any]) -> dict[str, str]:
    """For each field of a configuration that names FILE.py:NAME the SHA-256 sum of the file.

    Args:
        fields: a configuration by flat names.

    ConfigError where a file can't be read.
    """
    return {kind: sha256(fields[kind]) for kind in KINDS if is_own(str(fields.get(kind) or ""))}


def sha256(spec: str) -> str:
    """The SHA-256 sum of the file in FILE.py:NAME; ConfigError where it can't be read."""
    file, _, _ = split(spec)
    return hashlib.sha256(_content(file, spec)).hexdigest()


def identities(fields: Mapping[str, Any]) -> dict[str, str]:
    """For each field that names FILE.py:NAME what it computes, wherever the file lies: the file's sum, and the name."""
    return {kind: f"{digest}:{short(fields[kind])}" for kind, digest in fingerprints(fields).items()}


def require_named(stored: Mapping[str, Any], words: Mapping[str, Any], folder: str) -> None:
    """Refuse to run code that a run folder names and the user does not: a folder may come from someone else.

    Args:
        stored: the configuration in the folder, by flat names.
        words: what the user gave, by flat names.
        folder: of the run, for the message.

    ConfigError with the words to add.
    """
    missing = words_for(
        {
            kind: stored.get(kind)
            for kind in KINDS
            if located(str(words.get(kind) or "")) != located(str(stored.get(kind) or ""))
        }
    )
    if missing:
        raise ConfigError(
            f"--resume {folder}: the run uses code in files, which is run only where you name it; if you trust it, "
            f"add{missing}"
        )


def words_for(fields: Mapping[str, Any]) -> str:
    """The words that `require_named` asks for, with a blank before each; nothing for a run without own code."""
    own = {kind: str(fields.get(kind) or "") for kind in KINDS}
    return "".join(f" --{kind} {shlex.quote(text)}" for kind, text in own.items() if is_own(text))


def _content(file: Path, spec: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{spec}: can't read {file}: {error.strerror}") from None


def _imported(file: Path, flag: str) -> ModuleType:
    if not file.is_file():
        raise ConfigError(f"{flag}: no such file as {file}")
    # Named by path and content, so that it is run once, that files of one name in two folders stay apart, and that an
    # edited file is run anew in a notebook.
    content = _content(file, flag)
    module_name = f"fastnoise_own_{hashlib.sha256(str(file).encode() + bytes(1) + content).hexdigest()[:16]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, file)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:  # not by the loader, which takes a cached file for the content that has been read
            exec(compile(content, str(file), "exec", dont_inherit=True), module.__dict__)
        except Exception as error:  # whatever the user's file raises
            del sys.modules[module_name]
            raise ConfigError(f"{flag}: {file} fails with {_said(error)}") from error
    return sys.modules[module_name]


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


def _is_derived(value: object, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base)


def _is_made_there(key: str, value: object, module: ModuleType) -> bool:
    return callable(value) and not key.startswith("_") and getattr(value, "__module__", None) == module.__name__
