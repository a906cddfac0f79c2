"""From flat fields to a configuration: the one reader of TOML files, sweeps and stored runs. Imports no torch."""

from collections.abc import Callable, Mapping
from typing import Any

from .config import RunConfig
from .data.names import check_dataset
from .errors import ConfigError, nearest
from .methods import options_of
from .methods.options import OPTIONS
from .models.names import check_model
from .noise.spec import parse
from .options import Values, values_of


def types_of(config: RunConfig) -> dict[str, Values]:
    """What each field of a configuration takes, by flat name; `run_dir` is not among them."""
    return {
        name: values_of(type(getattr(config, group)))[name] for name, group in config.groups().items() if group
    }


def read(config: RunConfig, fields: Mapping[str, Any], where: Callable[[str], str] = str) -> RunConfig:
    """A copy of `config` with the fields that a file gives.

    Args:
        config: a run of the method that the fields are for.
        fields: values as TOML or JSON has them, by flat names.
        where: from a field's name to what messages begin with.

    ConfigError for an unknown field, a value of another type, or one out of range.
    """
    known = types_of(config)
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "run_dir":
            values[name] = Values.of(str | None).read(where(name), value)
        elif name in known:
            values[name] = known[name].read(where(name), value)
        else:
            raise ConfigError(unknown(where(name), name, config))
    return config.replace(values)


def unknown(what: str, name: str, config: RunConfig, valid: list[str] | None = None) -> str:
    """Why a configuration has no field `name`: its method does not read it, or there is none of that name.

    Args:
        what: how the message begins, such as the field or its flag.
        name: the field.
        config: of the method in question.
        valid: the names to choose from, by default those of the configuration.
    """
    users = sorted(user for user, kind in OPTIONS.items() if name in kind.names())
    if users:
        return f"{what} has no meaning for method {config.method.method}; used by {', '.join(users)}"
    return f"{what}: unknown field; {nearest(name, list(config.groups()) if valid is None else valid)}"


def stored(fields: Mapping[str, Any]) -> RunConfig:
    """The configuration that a run folder holds: what was not set is not written, and fields may have come later.

    ConfigError as in `read`; KeyError without a method.
    """
    method = fields["method"]
    if not isinstance(method, str):
        raise ConfigError(f"method must be a text, not {method!r}")
    return read(RunConfig(options_of(method)(method)), fields)


def check_names(config: RunConfig) -> None:
    """Refuse an unknown data set or network and impossible noise before anything is loaded; ConfigError in one line."""
    check_dataset(config.data.dataset)
    check_model(config.model.model)
    parse(config.noise.noise)
