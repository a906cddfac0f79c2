"""Noise models by name: clean labels to noisy labels.

    noisy = corrupt(labels, "symmetric:0.4", seed=0, num_classes=10)
    print(noisy.describe())

Transition matrices are row-stochastic here: T[true, noisy] = P(noisy label | true label).
"""

from .._C import simd_level
from .audit import Audit, audit
from .corrupt import corrupt
from .instance import pmd_factor
from .maps import CLASS_MAPS, MAP_NAMES, class_map
from .other_targets import corrupt_multilabel, corrupt_regression
from .rates import corrupt_sweep
from .result import NoisyLabels
from .spec import NoiseSpec, parse

__all__ = [
    "CLASS_MAPS",
    "MAP_NAMES",
    "Audit",
    "NoiseSpec",
    "NoisyLabels",
    "audit",
    "class_map",
    "corrupt",
    "corrupt_multilabel",
    "corrupt_regression",
    "corrupt_sweep",
    "parse",
    "pmd_factor",
    "simd_level",
]
