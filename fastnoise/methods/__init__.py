"""Methods by name: what each changes in plain training.

A method of your own is a subclass of `Method` in a file of yours, named on the command line as FILE.py:CLASS. This one
trains on the given labels where the network finds them likely, and on its own predictions elsewhere:

    from torch import where

    from fastnoise.losses import CrossEntropyLoss
    from fastnoise.methods import Method

    class SelfTraining(Method):
        "Cross-entropy on the given label, or on the prediction where it is far likelier."

        name = "self_training"
        options = ("threshold",)

        def __init__(self, options, num_samples, num_classes):
            super().__init__(options, num_samples, num_classes)
            self.criterion = CrossEntropyLoss()
            self.threshold = options.threshold

        def loss(self, outputs, labels, index):
            probs = outputs.logits.detach().softmax(1)
            given = probs.gather(1, labels[:, None]).squeeze(1)
            best, prediction = probs.max(1)
            return self.criterion(outputs.logits, where(best > given + self.threshold, prediction, labels))

Saved as self_training.py: `fastnoise train --method self_training.py:SelfTraining --threshold 0.5`. It starts from the
settings that all methods share for a data set; its options are fields of `MethodConfig`. `Method` says what else a
method may change: networks, views, phases, epoch hooks, averaged weights, relabelling.
"""

import dataclasses

from .. import own
from ..config import MethodConfig
from ..errors import ConfigError, nearest
from .base import Estimates, Forward, Method, Phase, Run, Selection, Setting, random_numbers
from .baselines import (
    ActivePassive,
    Bootstrap,
    CrossEntropy,
    Focal,
    GeneralisedCrossEntropy,
    LabelSmoothing,
    MeanAbsoluteError,
    MixupTraining,
    SoftmaxWeightedCrossEntropy,
    SymmetricCrossEntropy,
)
from .correction import (
    ForwardCorrection,
    ProgressiveLabelCorrection,
    SelfEnsembleLabelCorrection,
    SelfEnsembleLabelCorrectionPlus,
)
from .coteaching import CoTeaching
from .dividemix import DivideMix
from .elr_plus import EarlyLearningRegularizationPlus
from .simclr import SimCLR
from .single import EarlyLearningRegularization, NoiseAttention
from .swce import SWCEPipeline

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        CrossEntropy,
        LabelSmoothing,
        GeneralisedCrossEntropy,
        SymmetricCrossEntropy,
        MeanAbsoluteError,
        Focal,
        ActivePassive,
        Bootstrap,
        MixupTraining,
        ForwardCorrection,
        ProgressiveLabelCorrection,
        SelfEnsembleLabelCorrection,
        SelfEnsembleLabelCorrectionPlus,
        CoTeaching,
        DivideMix,
        EarlyLearningRegularization,
        EarlyLearningRegularizationPlus,
        NoiseAttention,
        SimCLR,
        SoftmaxWeightedCrossEntropy,
        SWCEPipeline,
    )
}


def find_method(name: str) -> type[Method]:
    """The method called `name`, or the class that FILE.py:CLASS names.

    ConfigError with the nearest and all valid names where there is none, or with what is wrong with the file.
    """
    if own.is_own(name):
        method: type[Method] = own.load(name, "method", Method)
        return method
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; {nearest(name, [*METHODS, 'FILE.py:CLASS'])}")
    return METHODS[name]


def check_options(options: MethodConfig) -> type[Method]:
    """The method that `options` names, once every option set is one that it reads (else ConfigError)."""
    method = find_method(options.method)
    for option in dataclasses.fields(options):
        if option.name in ("method", *method.options, *method.optional) or getattr(options, option.name) is None:
            continue
        users = [name for name, other in METHODS.items() if option.name in (*other.options, *other.optional)]
        raise ConfigError(
            f"--{option.name.replace('_', '-')} has no meaning for method {method.name}; used by {', '.join(users)}"
        )
    options.read(*method.options)
    return method


def create_method(options: MethodConfig, *, num_samples: int, num_classes: int) -> Method:
    """Build the method that `options` names for N samples of C classes; ConfigError as in `check_options`."""
    return check_options(options)(options, num_samples, num_classes)


__all__ = [
    "METHODS",
    "Estimates",
    "Forward",
    "Method",
    "Phase",
    "Run",
    "Selection",
    "Setting",
    "check_options",
    "create_method",
    "find_method",
    "random_numbers",
]
