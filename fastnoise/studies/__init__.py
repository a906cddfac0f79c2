"""Studies of heterogeneous label noise (Khanal and Kanan 2021): how wrong labels of some classes, tasks, labels or
values affect the others. Each study is one command.

A study is a module with `Options`, a dataclass of the command line's options, and `run(options, console)`. `run` does
the trainings that are not done yet and returns the study's folder, which has figure.png, figure.csv and study.json.
"""

from importlib import import_module
from types import ModuleType

from ..errors import ConfigError, nearest

STUDIES = {
    "multiclass": "noise in all classes but one; MNIST or CIFAR-10 (Figure 4)",
    "multitask": "noise in one of two tasks of a shared network; CIFAR-100 (Figure 5)",
    "multilabel": "noise in a group of labels; COCO, or several MNIST digits on a canvas (Figure 6)",
    "regression": "noise in a range of targets; the rotation angle of MNIST digits",
}
"""Name of the study and of its module -> what it studies."""


def load_study(name: str) -> ModuleType:
    """The module of a study; ConfigError for an unknown one."""
    if name not in STUDIES:
        raise ConfigError(f"unknown study {name!r}; {nearest(name, list(STUDIES))}")
    return import_module(f".{name}", __name__)
