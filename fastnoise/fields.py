"""From flat fields to a configuration: the one reader of TOML files, sweeps and stored runs. Imports no torch."""

from collections.abc import Callable, Mapping
from typing import Any

from .config import RunConfig
from .data.names import check_dataset
from .errors import ConfigError, nearest
from .methods import options_of
from .methods.options import OPTIONS
from .models.names import check_model
from .noise.spec import check_noise
from .options import Values, values_of
from .tasks.names import check_task


def types_of(config: RunConfig) -> dict[str, Values]:
    """What each field of a configuration takes, by flat name."""
    return {
        name: values_of(type(getattr(config, group)))[name] if group else Values.of(str | None)
        for name, group in config.groups().items()
    }


def checked(config: RunConfig, fields: Mapping[str, Any], where: Callable[[str], str] = str) -> dict[str, Any]:
    """The fields that a file gives for a run like `config`, as the configuration holds them.

    Args:
        config: a run of the method that the fields are for.
        fields: values as TOML or JSON has them, by flat names.
        where: from a field's name to what messages begin with.

    ConfigError for an unknown field, a value of another type, or one out of range.
    """
    known = types_of(config)
    for name in fields:
        if name not in known:
            other = meaningless(where(name), name, config.method.method)
            raise ConfigError(other or f"{where(name)}: unknown field; {nearest(name, list(known))}")
    return {name: known[name].read(where(name), value) for name, value in fields.items()}


def meaningless(what: str, name: str, method: str) -> str | None:
    """Why `method` has no option `name`, if others have one; the message begins with `what`."""
    users = sorted(user for user, kind in OPTIONS.items() if name in kind.names())
    return f"{what} has no meaning for method {method}; used by {', '.join(users)}" if users else None


def stored(fields: Mapping[str, Any]) -> RunConfig:
    """The configuration that a run folder holds: what was not set is not written, and fields may have come later.

    ConfigError as in `checked`; KeyError without a method.
    """
    method = fields["method"]
    if not isinstance(method, str):
        raise ConfigError(f"method must be a text, not {method!r}")
    config = RunConfig(options_of(method)(method))
    return config.replace(checked(config, fields))


def check_names(config: RunConfig) -> None:
    """Refuse an unknown data set or network and impossible noise before anything is loaded; ConfigError in one line."""
    check_dataset(config.data.dataset)
    if config.data.task is not None:
        check_task(config.data.task)
    check_model(config.model.model)
    check_noise(config.noise.noise)
