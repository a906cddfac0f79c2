"""Noisy labels that aren't one class a sample: several at once, and real numbers, in memory and on disk."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..files import require_file
from .other_targets import corrupt_multilabel, corrupt_regression
from .result import NoisyLabels
from .spec import parse


@dataclass(frozen=True, eq=False)
class NoisyTargets(NoisyLabels):
    """As NoisyLabels: labels and clean_labels are uint8 [N, C] of zeros and ones, or values, float64 [N, C].

    num_classes is C. A sample counts as flipped if any of its labels differs, and there are no transitions.
    """

    _format = 2
    _least = 1

    def _check_form(self, what: str, array: NDArray[Any]) -> None:
        if array.ndim != 2 or array.dtype not in (np.uint8, np.float64) or array.shape != self.labels.shape:
            raise DataError(f"{what}: must be uint8 or float64 [N, C], got {array.dtype} {list(array.shape)}")

    def _check_values(self, what: str, array: NDArray[Any]) -> None:
        right = bool((array <= 1).all()) if array.dtype == np.uint8 else bool(np.isfinite(array).all())
        if not array.size or not right or array.shape[1] != self.num_classes:
            raise DataError(f"{what}: empty, or not {self.num_classes} zeros and ones or finite values a sample")

    @property
    def flipped(self) -> NDArray[np.bool_]:
        return np.asarray((self.labels != self._clean()).any(1))

    @property
    def transition(self) -> NDArray[np.int64]:
        raise DataError("there are no transitions between classes, as a sample has not one class")

    @property
    def class_rates(self) -> NDArray[np.float64]:
        """float64 [C]: the share of changed labels of each column."""
        return np.asarray((self.labels != self._clean()).mean(0))

    def describe(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        if self.clean_labels is None:
            return f"{self.spec}{seed}: realised rate unknown ({len(self.labels)} samples)"
        changed = int(self.flipped.sum())
        share = 100 * changed / len(self.labels)
        return f"{self.spec}{seed}: changed in {share:.2f} % of the samples ({changed} of {len(self.labels)})"


def swap_labels(clean: NDArray[np.uint8], text: str, *, seed: int) -> NoisyTargets:
    """Noisy labels uint8 [N, C] as the spec `swap` says (`corrupt_multilabel`), or the right ones for `none`."""
    spec = parse(text)
    spec.require_task("multilabel")
    noisy = clean
    if spec.rate:
        group = spec.group or f"0-{clean.shape[1] - 1}"
        cardinality: Literal["kept", "free"] = "free" if spec.cardinality == "free" else "kept"
        noisy = corrupt_multilabel(clean, spec.rate, seed=seed, group=group, cardinality=cardinality)
    drawn = spec.kind != "none"
    return NoisyTargets(noisy, clean, str(spec), seed if drawn else None, clean.shape[1], spec.rate if drawn else 0.0)


def shift_values(clean: NDArray[np.float64], text: str, *, seed: int) -> NoisyTargets:
    """Noisy values float64 [N, K] as the spec `gaussian` says (`corrupt_regression`), or the right ones for `none`.

    Each column has draws of its own.
    """
    spec = parse(text)
    spec.require_task("regression")
    noisy = clean
    if spec.sigma is not None:
        columns = []
        for number, column in enumerate(clean.T):
            low, high = (
                float(bound) if given is None else given
                for given, bound in ((spec.low, column.min()), (spec.high, column.max()))
            )
            if not low < high:
                raise ConfigError(
                    f"noise {text}: the training values in column {number + 1} are {column.min():g}..{column.max():g}, "
                    f"which leaves no range from low={low:g} to high={high:g}"
                )
            columns.append(corrupt_regression(column, spec.sigma, seed=seed + number, low=low, high=high))
        noisy = np.stack(columns, 1)
    drawn = spec.kind != "none"
    return NoisyTargets(noisy, clean, str(spec), seed if drawn else None, clean.shape[1], None if drawn else 0.0)


def load_noisy(path: str | Path) -> NoisyLabels:
    """Read what `NoisyLabels.save` or `NoisyTargets.save` wrote; DataError as `NoisyLabels.load`."""
    two_dimensional = False
    try:
        require_file(Path(path))
        with zipfile.ZipFile(path) as archive, archive.open("labels.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            two_dimensional = len(read(stream)[0]) == 2
    except Exception:  # a missing, damaged or foreign file, of which `load` says what is wrong
        pass
    return (NoisyTargets if two_dimensional else NoisyLabels).load(path)
