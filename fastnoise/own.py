"""The user's own code: FILE.py:NAME in place of the name of a method, model, data set, noise or task.

A file is imported once, and again after it has changed. Nothing here imports torch; the file itself may.
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
    """Whether a name is FILE.py:NAME, perhaps followed by a noise's rate and settings."""
    return ".py:" in text


def split(text: str) -> tuple[Path, str, str]:
    """The file as an absolute path, the name in it, and the rest of the text: FILE.py, NAME and `:0.4,step=2`."""
    file, name, rest = _parts(text)
    return Path(os.path.abspath(os.path.expanduser(file))), name, rest


def located(text: str) -> str:
    """FILE.py:NAME with an absolute path, which is valid in any folder. Other names stay as they are."""
    if not is_own(text):
        return text
    file, name, rest = split(text)
    return f"{file}:{name}{rest}"


def short(text: str) -> str:
    """FILE.py:NAME without the file, for titles and names of folders. Other names stay as they are."""
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
    """The class or function that FILE.py:NAME names. With `base` it must be a class derived from `base`.

    ConfigError in one line if the file does not exist, if running it fails, or if it has no such name; the message then
    lists the names that it has. ConfigError too if anything follows the name, which is for noise alone.
    """
    file, name, rest = split(spec)
    flag = f"--{kind} {spec}"
    if rest and kind != "noise":
        raise ConfigError(f"{flag}: nothing may follow the name; drop {rest!r}")
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
    """Call a user's function with `values`, and with those of the `offered` arguments that it has parameters for.

    Args:
        function: from `load`.
        what: the beginning of messages, as in `--model FILE.py:NAME`.
        values: given by position.
        offered: given by name if the function has a parameter of that name, or takes any name (**kwargs).

    ConfigError in one line if the function needs an argument that is not offered, or if it raises an error. fastnoise's
    own errors pass unchanged, because they already say what to do.
    """
    taken = parameters(function, what)
    named = {key: value for key, value in offered.items() if taken is None or key in taken}
    try:
        inspect.signature(function).bind(*values, **named)
    except TypeError as error:
        valid = ", ".join([f"{len(values)} by position"] * bool(values) + sorted(offered))
        raise ConfigError(f"{what} cannot be called: {error}; fastnoise can give it: {valid}") from None
    try:
        return function(*values, **named)
    except FastnoiseError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise ConfigError(f"{what} fails with {_said(error)}") from error


def parameters(function: Callable[..., Any], what: str) -> frozenset[str] | None:
    """The names of the arguments that a function takes by name; None if it takes any (**kwargs)."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise ConfigError(f"{what} has no readable signature; wrap it in a Python function") from None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        return None
    return frozenset(
        parameter.name
        for parameter in found
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    )


def needed(function: Callable[..., Any]) -> frozenset[str]:
    """The names of a function's arguments that have no default."""
    found = inspect.signature(function).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return frozenset(item.name for item in found if item.default is item.empty and item.kind not in variable)


def fingerprints(fields: Mapping[str, Any]) -> dict[str, str]:
    """The SHA-256 sum of each file that a configuration names as FILE.py:NAME, by field.

    Args:
        fields: a configuration by flat names.

    ConfigError if a file can't be read.
    """
    return {kind: sha256(fields[kind]) for kind in KINDS if is_own(str(fields.get(kind) or ""))}


def sha256(spec: str) -> str:
    """The SHA-256 sum of the file in FILE.py:NAME; ConfigError if it can't be read."""
    file, _, _ = split(spec)
    return hashlib.sha256(_content(file, spec)).hexdigest()


def identities(fields: Mapping[str, Any]) -> dict[str, str]:
    """A text for each field FILE.py:NAME that does not depend on the file's folder: the file's sum, and the name."""
    return {kind: f"{digest}:{short(fields[kind])}" for kind, digest in fingerprints(fields).items()}


def require_named(stored: Mapping[str, Any], words: Mapping[str, Any], what: str) -> None:
    """Refuse to run code that only a folder names, not the user: the folder may come from someone else.

    Args:
        stored: the configuration in the folder, by flat names.
        words: what the user gave, by flat names.
        what: the folder is of, as the message begins: "--resume FOLDER: the run".

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
            f"{what} uses code in files, and fastnoise runs only code that you name; if you trust it, add{missing}"
        )


def words_for(fields: Mapping[str, Any]) -> str:
    """The words that `require_named` asks for, with a blank before each; an empty text for a run without own code."""
    own = {kind: str(fields.get(kind) or "") for kind in KINDS}
    return "".join(f" --{kind} {shlex.quote(text)}" for kind, text in own.items() if is_own(text))


def _content(file: Path, spec: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{spec}: can't read {file}: {error.strerror}") from None


def _imported(file: Path, flag: str) -> ModuleType:
    if not file.is_file():
        raise ConfigError(f"{flag}: there is no file {file}")
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
