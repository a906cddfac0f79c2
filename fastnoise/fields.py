"""The one reader of flat fields from TOML files, sweeps and stored runs. Imports no torch."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from . import own
from .config import FREE_ON_RESUME, RunConfig, parse_log
from .data.names import FEATURES, check_dataset, task_of
from .errors import ConfigError, nearest
from .methods import options_of
from .methods.options import OPTIONS
from .models.names import check_model, require_head
from .noise.spec import check_noise, parse
from .options import Values, values_of
from .tasks.names import TASKS, check_task


def types_of(config: RunConfig) -> dict[str, Values]:
    """The values that each field of a configuration takes, by flat name."""
    return {
        name: values_of(type(getattr(config, group)))[name] if group else Values.of(str | None)
        for name, group in config.groups().items()
    }


def checked(config: RunConfig, fields: Mapping[str, Any], where: Callable[[str], str] = str) -> dict[str, Any]:
    """Check the fields of a file against a configuration; returns their values as the configuration holds them.

    Args:
        config: the configuration of a run of the same method.
        fields: values from TOML or JSON, by flat names.
        where: turns a field's name into the beginning of a message.

    ConfigError for an unknown field, a value of another type, or one out of range.
    """
    known = types_of(config)
    for name in fields:
        if name not in known:
            other = meaningless(where(name), name, config.method.method)
            raise ConfigError(other or f"{where(name)}: unknown field; {nearest(name, list(known))}")
    return {name: known[name].read(where(name), value) for name, value in fields.items()}


def meaningless(what: str, name: str, method: str) -> str | None:
    """A message that only other methods have the option `name`, beginning with `what`; None if no method has it."""
    users = sorted(user for user, kind in OPTIONS.items() if name in kind.names())
    return f"{what} has no meaning for method {method}; it is an option of {', '.join(users)}" if users else None


def stored(fields: Mapping[str, Any]) -> RunConfig:
    """The configuration that a run folder holds. Fields that are missing there have their defaults.

    ConfigError as in `checked`; KeyError if there is no method.
    """
    method = fields["method"]
    if not isinstance(method, str):
        raise ConfigError(f"method must be a text, not {method!r}")
    config = RunConfig(options_of(method)(method))
    return config.replace(checked(config, fields))


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first field of `now` by which two flat configurations compute different things; None where there is none.

    Noise counts by what its spec says, and code of the user's by its name, wherever the file lies.
    """

    def meaning(name: str, value: Any) -> Any:
        if name == "noise":
            value = str(parse(value))
        return own.short(value) if name in own.KINDS and isinstance(value, str) else value

    for name, value in now.items():
        if name in FREE_ON_RESUME or before.get(name) == value:
            continue
        if name not in before or meaning(name, before[name]) != meaning(name, value):
            return name
    return None


def prolonged(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that let a resumed run go on for longer than its folder says, and may: more epochs, more patience."""
    epochs, patience = before.get("epochs"), before.get("patience")
    more = {}
    if type(epochs) is int and now["epochs"] > epochs:
        more["epochs"] = now["epochs"]
    if type(patience) is int and patience > 0 and (now["patience"] == 0 or now["patience"] > patience):
        more["patience"] = now["patience"]
    return more


def check_names(config: RunConfig, *, given_task: str | None = None) -> None:
    """Refuse an unknown data set or network and impossible noise before anything is loaded; ConfigError in one line.

    `given_task` is that of a data set that is given in memory, whose name is that of none.
    """
    if given_task is None:
        check_dataset(config.data.dataset)
    if config.data.task is not None:
        check_task(config.data.task)
    check_model(config.model.model)
    slower = {"backbone_rate": config.optim.backbone_rate, "layer_decay": config.optim.layer_decay}
    for name, value in slower.items():
        if config.model.freeze == "backbone" and value != 1:
            raise ConfigError(
                f"--freeze backbone leaves no learning rate for --{name.replace('_', '-')} {value}; drop one of them"
            )
    if config.data.dataset.startswith(FEATURES):
        check_on_features(config, config.data.dataset)
    if config.noise.noise_rate is not None and not config.method.by_rate:
        goers = ", ".join(sorted(name for name, kind in OPTIONS.items() if kind.by_rate))
        method = own.short(config.method.method)
        raise ConfigError(f"--noise-rate has no meaning for method {method}; it is for {goers}")
    for name in parse_log(config.engine.log):
        if find_spec(name) is None:
            raise ConfigError(
                f"--log {name}: the package {name} is not installed: pip install 'fastnoise[{name}]', or --log none"
            )
    spec, task = check_noise(config.noise.noise), known_task(config, given_task)
    if task is not None:
        spec.require_task(task)


def check_on_features(config: RunConfig, dataset: str) -> None:
    """ConfigError for a network or a method that needs pictures, and the data set has frozen features."""
    require_head(config.model.model, dataset)
    if config.method.pictures:
        method = own.short(config.method.method)
        raise ConfigError(f"--method {method} changes colours and places of images, and {dataset} has features")


def known_task(config: RunConfig, given_task: str | None = None) -> str | None:
    """The name of the task that a run learns. None if it is the user's own, if only the loaded data set says it, or if
    --task names another than the data set's, which may fit its labels or not."""
    task = given_task or task_of(config.data.dataset)
    return task if task in TASKS and config.data.task in (None, task) else None
