"""Methods by name: what each changes in plain training."""

import dataclasses

from ..config import MethodConfig
from ..errors import ConfigError, nearest
from .base import Method
from .single import CrossEntropy, EarlyLearningRegularization, NoiseAttention, SoftmaxWeightedCrossEntropy

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (CrossEntropy, EarlyLearningRegularization, NoiseAttention, SoftmaxWeightedCrossEntropy)
}


def find_method(name: str) -> type[Method]:
    """The method called `name`; ConfigError with the nearest and all valid names where there is none."""
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; {nearest(name, list(METHODS))}")
    return METHODS[name]


def check_options(options: MethodConfig) -> type[Method]:
    """The method that `options` names, once every option set is one that it reads (else ConfigError)."""
    method = find_method(options.method)
    for option in dataclasses.fields(options):
        if option.name == "method" or option.name in method.options or getattr(options, option.name) is None:
            continue
        users = [name for name, other in METHODS.items() if option.name in other.options]
        raise ConfigError(
            f"--{option.name.replace('_', '-')} has no meaning for method {method.name}; {' and '.join(users)} use it"
        )
    options.read(*method.options)
    return method


def create_method(options: MethodConfig, *, num_samples: int, num_classes: int) -> Method:
    """Build the method that `options` names for N samples of C classes; ConfigError as in `check_options`."""
    return check_options(options)(options, num_samples, num_classes)


__all__ = ["METHODS", "Method", "check_options", "create_method", "find_method"]
