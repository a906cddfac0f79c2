"""Noise models by name: clean labels to noisy labels.

    noisy = corrupt(labels, "symmetric:0.4", seed=0, num_classes=10)
    print(noisy.describe())

Transition matrices are row-stochastic here: T[true, noisy] = P(noisy label | true label).
"""

from .._C import simd_level
from .corrupt import corrupt
from .maps import CLASS_MAPS
from .result import NoisyLabels
from .spec import NoiseSpec, parse

__all__ = ["CLASS_MAPS", "NoiseSpec", "NoisyLabels", "corrupt", "parse", "simd_level"]
