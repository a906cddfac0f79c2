"""Methods by name: what each changes in plain training.

A method of your own is a subclass of `Method` in a file of yours. The command line takes it as FILE.py:CLASS. This one
trains on the network's prediction if it is much likelier than the given label, and on the given label otherwise:

    from dataclasses import dataclass
    from typing import Annotated

    from torch import where

    from fastnoise.losses import CrossEntropyLoss
    from fastnoise.methods import Between, Method, MethodOptions

    @dataclass(frozen=True)
    class Options(MethodOptions):
        threshold: Annotated[float, Between(0, 1)] = 0.5
        "The prediction replaces the given label if its probability is larger by more than this."

    class SelfTraining(Method):
        "Cross-entropy on the given label, or on the prediction if it is much likelier."

        name = "self_training"
        Options = Options

        def __init__(self, options, num_samples, num_classes):
            super().__init__(options, num_samples, num_classes)
            self.criterion = CrossEntropyLoss()
            self.threshold = options.threshold

        def loss(self, outputs, labels, index):
            probs = outputs.logits.detach().softmax(1)
            given = probs.gather(1, labels[:, None]).squeeze(1)
            best, prediction = probs.max(1)
            return self.criterion(outputs.logits, where(best > given + self.threshold, prediction, labels))

Save it as self_training.py and run `fastnoise train --method self_training.py:SelfTraining --threshold 0.5`. The other
settings are those that all methods share for a data set. The options are flags like all others: `--help` shows them
with their docstrings, and TOML files and sweeps take them by name. `Method` says what else a method may change:
networks, views, phases, hooks between epochs, averaged weights, labels.

fastnoise's own methods are the subclasses of `Method` in this package that have a name. They are imported when they are
first used. Their names and options (`fastnoise.methods.options`) need no torch.
"""

import dataclasses
import pkgutil
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import lazy, own
from ..config import COMMON
from ..errors import ConfigError, nearest
from ..options import AUTO, Above, AtLeast, Between, MethodOptions, values_of
from .options import OPTIONS

if TYPE_CHECKING:
    from ..tasks import Task
    from .base import Estimates, Forward, Method, Phase, Run, Selection, Setting, random_numbers
    from .shards import Shards

    METHODS: dict[str, type[Method]]

_of_base = lazy.attributes(
    __name__,
    dict.fromkeys(("Estimates", "Forward", "Method", "Phase", "Run", "Selection", "Setting", "random_numbers"), "base"),
)


@cache
def _methods() -> "dict[str, type[Method]]":
    from .base import Method

    found: dict[str, type[Method]] = {}
    for module in pkgutil.iter_modules(__path__):
        content = vars(import_module(f"{__name__}.{module.name}"))
        for value in content.values():
            if isinstance(value, type) and issubclass(value, Method) and "name" in vars(value):
                found[value.name] = value
    order = {name: place for place, name in enumerate(OPTIONS)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def __getattr__(name: str) -> Any:
    if name == "METHODS":
        return _methods()
    return _of_base(name)


def find_method(name: str) -> "type[Method]":
    """The method called `name`, or the class that FILE.py:CLASS names.

    ConfigError for an unknown name, with the nearest and all valid names, or for a file that cannot be used.
    """
    if own.is_own(name):
        from .base import Method

        method: type[Method] = own.load(name, "method", Method)
        _check_own(name, method.Options)
        _check_options_named(name, method)
        return method
    methods = _methods()
    if name == AUTO:
        raise ConfigError(
            "method auto chooses another one before a run: fastnoise train --method auto, or "
            "fastnoise.auto.choose(config) in Python"
        )
    if name not in methods:
        raise ConfigError(f"unknown method {name!r}; {nearest(name, [*methods, 'FILE.py:CLASS'])}")
    return methods[name]


def _check_options_named(name: str, method: "type[Method]") -> None:
    """ConfigError if a user's method takes no options of its file, and the file has some that no method there takes."""
    from .base import Method

    if method.Options.__module__ == method.__module__:
        return
    made = [kind for kind in vars(sys.modules[method.__module__]).values() if isinstance(kind, type)]
    made = [kind for kind in made if kind.__module__ == method.__module__]
    taken = {base for kind in made if issubclass(kind, Method) for base in getattr(kind.Options, "__mro__", ())}
    for kind in made:
        if issubclass(kind, MethodOptions) and kind not in taken:
            raise ConfigError(
                f"--method {name}: no method takes the options in class {kind.__name__}; write "
                f"`Options = {kind.__name__}` in class {method.__name__}, below class {kind.__name__}"
            )


def _check_own(name: str, options: type[MethodOptions]) -> None:
    """ConfigError if the command line cannot read the options of a user's method."""
    if not (isinstance(options, type) and issubclass(options, MethodOptions)):
        raise ConfigError(f"--method {name}: its Options must be a subclass of fastnoise.methods.MethodOptions")
    if "__dataclass_fields__" not in vars(options):
        raise ConfigError(f"--method {name}: write @dataclass(frozen=True) above class {options.__name__}")
    what = f"--method {name}: the option"
    try:
        values = values_of(options)
    except (TypeError, NameError) as error:
        raise ConfigError(f"--method {name}: the type of an option cannot be read: {error}") from None
    for field in dataclasses.fields(options):
        if field.name == "method":
            continue
        if field.name in COMMON or field.name in ("config", "deviations", "dry_run", "gpus", "max_restarts", "resume"):
            raise ConfigError(f"{what} {field.name} has the name of an option of every run; choose another name")
        if field.name in ("help", "help_all") or field.name.startswith("_") or hasattr(MethodOptions, field.name):
            raise ConfigError(f"{what} {field.name} has a name that cannot be a flag; choose another")
        if field.default is dataclasses.MISSING:
            raise ConfigError(f"{what} {field.name} needs a default value, as in {field.name}: float = 1.0")
        if type(None) in values[field.name].kinds:
            raise ConfigError(f'{what} {field.name} may not be None; use Literal["auto"] for "not set"')
        values[field.name].read(f"--method {name}: the default of the option {field.name}", field.default)
    own.call(options, f"--method {name}: {options.__name__}", name)


def check_options(options: MethodOptions) -> "type[Method]":
    """The method that `options` name; ConfigError if there is none, or if the options belong to another method."""
    method = find_method(options.method)
    if type(options) is not method.Options:
        raise ConfigError(
            f"method {options.method} takes {method.Options.__name__}, not {type(options).__name__}; make the "
            f"configuration by recipe({options.method!r})"
        )
    return method


def require_task(method: "type[Method]", name: str, task: str) -> None:
    """ConfigError that names the methods for a task if a method doesn't serve it.

    Args:
        method: the method.
        name: as the user names it.
        task: the task's name.
    """
    if method.tasks is None or task in method.tasks:
        return
    able = sorted(each for each, kind in _methods().items() if kind.tasks is None or task in kind.tasks)
    raise ConfigError(
        f"method {own.short(name)} serves {' and '.join(method.tasks)}, and the data set is one of {task}; methods "
        f"that serve it: {', '.join(able)}"
    )


def require_parallel(method: "type[Method]", name: str) -> None:
    """ConfigError that names the methods that several processes can train if this one is not among them."""
    if method.parallel:
        return
    able = ", ".join(sorted(each for each, kind in _methods().items() if kind.parallel))
    raise ConfigError(
        f"method {own.short(name)} trains in one process: drop --gpus and torchrun; methods that several processes can "
        f"train together: {able}"
    )


def create_method(
    options: MethodOptions,
    *,
    num_samples: int,
    num_classes: int,
    task: "Task | None" = None,
    shards: "Shards | None" = None,
) -> "Method":
    """Build the method that `options` name for N samples and networks of C outputs.

    Args:
        options: the method's options.
        num_samples: N.
        num_classes: C.
        task: what is learnt; the default is classification.
        shards: the samples that this process trains; the default is all.

    ConfigError as in `check_options`, if the method does not serve the task or cannot be trained by several processes,
    and if a user's method can't be built.
    """
    from ..losses.tables import storing

    kind = check_options(options)
    if task is not None:
        require_task(kind, options.method, task.name)
    if shards is not None and shards.size > 1:
        require_parallel(kind, options.method)
    with storing(shard=(0, 1) if shards is None else (shards.rank, shards.size)):
        if own.is_own(options.method):
            method = own.call(kind, f"--method {options.method}", options, num_samples, num_classes)
        else:
            method = kind(options, num_samples, num_classes)
    if task is not None:
        method.task = task
    if shards is not None:
        from .base import Method

        for part in method.modules():  # a method may have others in it
            if isinstance(part, Method):
                part.shards = shards
    return method


def options_of(name: str) -> type[MethodOptions]:
    """The dataclass of a method's options. It imports a file only if `name` is FILE.py:CLASS. auto has none: the method
    that it chooses has.

    ConfigError as in `find_method`.
    """
    if name == AUTO:
        return MethodOptions
    return OPTIONS[name] if name in OPTIONS else find_method(name).Options


__all__ = [
    "METHODS",
    "Above",
    "AtLeast",
    "Between",
    "Estimates",
    "Forward",
    "Method",
    "MethodOptions",
    "Phase",
    "Run",
    "Selection",
    "Setting",
    "check_options",
    "create_method",
    "find_method",
    "options_of",
    "random_numbers",
    "require_task",
]
