"""Noisy labels with what is known about them, in memory and on disk."""

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ..checks import require_memory
from ..data.texts import packed
from ..errors import ConfigError, DataError
from ..files import require_file, write_atomically
from .maps import class_map
from .spec import NoiseSpec, class_ranges, parse

_METADATA = ("spec", "seed", "num_classes", "requested_rate")
_OPTIONAL = ("pmd_factor", "clean_are", "class_names")  # written if they are known, or not as usual
_SAMPLES = {"clean_labels", "index", "names"}  # arrays of a file that need not be there


@dataclass(frozen=True, eq=False)
class NoisyLabels:
    """The labels a run trains on, where they come from, and how many of them are wrong.

    labels          int64 [N], in [0, num_classes)
    clean_labels    int64 [N], -1 where they are unknown; None if all are
    spec            the noise spec in full (an asymmetric one names its map), or another source of the labels
    seed            of the noise; None for labels that weren't drawn here
    requested_rate  the spec's rate; None if no rate was requested, as for human labels
    pmd_factor      pmd: the factor that gives the requested rate (`fastnoise.noise.pmd_factor`); None otherwise
    clean_are       what clean_labels hold: None, the true classes; "given", what people brought, before noise was added
    class_names     what the classes are called, or None
    names           of the N samples; empty if they have none
    index           int64 [N], the positions of the samples in the data set's training set; None: 0 to N - 1
    """

    labels: NDArray[Any]
    clean_labels: NDArray[Any] | None
    spec: str
    seed: int | None
    num_classes: int
    requested_rate: float | None
    pmd_factor: float | None = None
    clean_are: str | None = None
    class_names: tuple[str, ...] | None = None
    names: Sequence[str] = ()
    index: NDArray[np.int64] | None = None

    _format: ClassVar[int] = 1
    """Of the file that `save` writes."""
    _least: ClassVar[int] = 2
    """Classes that there are at least."""

    def __post_init__(self) -> None:
        for what, array in (("labels", self.labels), ("clean labels", self.clean_labels)):
            if array is not None:
                self._check_form(what, array)
        if self.names and len(self.names) != len(self.labels):
            raise DataError(f"{len(self.names)} names for {len(self.labels)} labels")
        index = self.index
        if index is not None and (index.dtype != np.int64 or index.shape != (len(self.labels),)):
            raise DataError(f"index: must be int64 [{len(self.labels)}], got {index.dtype} {list(index.shape)}")

    def _check_form(self, what: str, array: NDArray[Any]) -> None:
        """DataError unless labels have the dtype and shape that they are to have."""
        if array.dtype != np.int64 or array.shape != (self.labels.size,):
            raise DataError(f"{what}: must be int64 [{self.labels.size}], got {array.dtype} {list(array.shape)}")

    def _check_values(self, what: str, array: NDArray[Any]) -> None:
        """DataError unless there are labels, all in their range."""
        least = -1 if what == "clean labels" else 0
        if not (array.size and array.min() >= least and array.max() < self.num_classes):
            raise DataError(f"{what}: empty, or outside [{least}, {self.num_classes})")

    def _clean(self) -> NDArray[Any]:
        if self.clean_labels is None:
            raise DataError(f"the clean labels behind {self.spec!r} are unknown, and so are the wrong labels")
        return self.clean_labels

    @property
    def known(self) -> NDArray[np.bool_]:
        """bool [N]: of which samples the clean label is known."""
        if self.clean_labels is None:
            return np.zeros(len(self.labels), bool)
        return known_labels(self.clean_labels)

    @property
    def flipped(self) -> NDArray[np.bool_]:
        """bool [N]: which labels differ from known clean ones. Raises DataError if all of those are unknown."""
        return (self.labels != self._clean()) & self.known

    @property
    def realised_rate(self) -> float | None:
        """The share of wrong labels among those whose clean label is known; None if there are none."""
        count = int(self.known.sum())
        return int(self.flipped.sum()) / count if count else None

    @property
    def words(self) -> tuple[str, str]:
        """What tables call clean_labels and labels: `true class` and `given label`, or `given class` and `noisy label`
        where noise was added to what people brought."""
        return ("true class", "given label") if self.clean_are is None else ("given class", "noisy label")

    @property
    def transition(self) -> NDArray[np.int64]:
        """int64 [C, C]: how many samples of true class (row) carry which label (column).

        DataError as for `flipped`, and if the counts don't fit into memory.
        """
        require_memory(f"counts of {self.num_classes} x {self.num_classes} classes", 8 * self.num_classes**2)
        clean, labels = self._clean()[self.known], self.labels[self.known]
        pairs = np.bincount(clean * self.num_classes + labels, minlength=self.num_classes**2)
        return pairs.reshape(self.num_classes, self.num_classes)

    @property
    def class_rates(self) -> NDArray[np.float64]:
        """float64 [C]: the share of wrong labels of each true class; NaN for a class without samples.

        DataError as for `transition`.
        """
        require_memory(f"rates of {self.num_classes} classes", 40 * self.num_classes)
        counts = np.bincount(self._clean()[self.known], minlength=self.num_classes)
        wrong = np.bincount(self._clean()[self.flipped], minlength=self.num_classes)
        return np.where(counts > 0, wrong / np.maximum(counts, 1), np.nan)

    @property
    def sha256(self) -> str:
        """Hash of the labels only (little-endian int64). Equal labels have equal hashes, whatever their source."""
        return hashlib.sha256(_little_endian(self.labels)).hexdigest()

    @property
    def positions(self) -> NDArray[np.int64]:
        """int64 [N], where the samples are in the data set's training set."""
        return np.arange(len(self.labels)) if self.index is None else self.index

    def named(self, labels: NDArray[Any]) -> list[Any]:
        """Labels [N] as texts show them: by the classes' names if they are known."""
        known = self.class_names
        return [label if known is None or label < 0 else known[label] for label in labels.tolist()]

    def describe(self) -> str:
        """The requested and the realised noise, in one line."""
        spec = self.parsed_spec()
        note = requested = ""
        if self.requested_rate is not None:
            requested = f"requested {_percent(self.requested_rate)}, "
        if spec is not None and spec.kind == "symmetric":
            note = f" (true class {spec.true_class})"
            if spec.rate is not None and spec.true_class == "included":
                # A draw returns the label that it replaces once in C times.
                changed = _percent(spec.rate * (1 - 1 / self.num_classes))
                requested = f"requested {_percent(spec.rate)} drawn anew, so {changed} changed, "
        elif spec is not None and spec.kind == "asymmetric" and spec.map is not None:
            changing = sum(label != target for label, target in enumerate(class_map(spec.map, self.seed or 0)))
            note = f" ({changing} of {self.num_classes} classes change)"
        elif spec is not None and spec.clean is not None:
            clean = sum(last - first + 1 for first, last in class_ranges(spec.clean))
            note = f" ({self.num_classes - clean} of {self.num_classes} classes corrupted)"
        elif self.pmd_factor is not None:
            before = ", requested before the hybrid" if spec is not None and spec.hybrid is not None else ""
            note = f" (factor {self.pmd_factor:.6g}{before})"
        seed = "" if self.seed is None else f", seed {self.seed}"
        if self.realised_rate is None:
            realised = f"realised rate unknown ({self.labels.size} labels)"
        else:
            count = int(self.known.sum())
            of = f"{count}" if count == self.labels.size else f"{count} known, {self.labels.size} labels in all"
            realised = f"realised {_percent(self.realised_rate)} ({self.flipped.sum()} of {of})"
        return f"{self.spec}{note}{seed}: {requested}{realised}"

    def parsed_spec(self) -> NoiseSpec | None:
        """The spec; None if the labels do not come from a noise model."""
        try:
            return parse(self.spec)
        except ConfigError:
            return None

    def _metadata(self) -> str:
        """All but the arrays, as JSON."""
        known = (key for key in _OPTIONAL if getattr(self, key) is not None)
        fields = {key: getattr(self, key) for key in (*_METADATA, *known)}
        return json.dumps({"format": self._format, **fields}, sort_keys=True)

    def _digest(self) -> str:
        """Hash of everything that a file holds."""
        digest = hashlib.sha256(self._metadata().encode())
        digest.update(_little_endian(self.labels))
        if self.clean_labels is not None:
            digest.update(_little_endian(self.clean_labels))
        for array in self._samples().values():
            digest.update(_little_endian(array))
        return digest.hexdigest()

    def _samples(self) -> dict[str, NDArray[Any]]:
        """What says which samples the labels are of, as far as it is known: names as bytes with a NUL between two."""
        arrays = {} if self.index is None else {"index": self.index}
        if self.names:
            arrays["names"] = np.frombuffer(b"".join(packed(self.names)), np.uint8)
        return arrays

    def save(self, path: str | Path) -> None:
        """Write an npz file: arrays `labels` and, where known, `clean_labels`, `index` and `names`; texts `metadata`
        and `sha256`.

        The file appears whole or not at all. Raises DataError when it can't be written; a file that was there before
        then stays.
        """
        arrays: dict[str, Any] = {
            "labels": self.labels,
            "metadata": np.array(self._metadata()),
            "sha256": np.array(self._digest()),
            **self._samples(),
        }
        if self.clean_labels is not None:
            arrays["clean_labels"] = self.clean_labels
        write_atomically(Path(path), lambda file: _save_compressed(file, arrays), DataError)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, without executing anything in it.

        Raises DataError for a file that is missing, truncated, foreign, altered or inconsistent.
        """
        try:
            return cls._read(Path(path))
        except DataError as error:
            raise DataError(f"{str(path)!r}: not a file of noisy labels that can be used: {error}") from None
        except OSError as error:
            raise DataError(f"{str(path)!r}: can't read noisy labels: {error.strerror or error}") from None
        except Exception as error:  # whatever else a damaged or foreign file makes the zip and npy readers raise
            reason = " ".join(str(error).split())
            raise DataError(f"{str(path)!r}: not a file of noisy labels: {type(error).__name__}: {reason}") from None

    @classmethod
    def _read(cls, path: Path) -> Self:
        require_file(path)
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise DataError("it holds a single array")
        with file:
            if set(file.files) - _SAMPLES != {"labels", "metadata", "sha256"}:
                raise DataError(f"it holds {sorted(file.files)} instead of labels, metadata and sha256")
            arrays = {key: file[key] for key in file.files}
        metadata: dict[str, Any] = json.loads(_text(arrays, "metadata"))
        form = metadata.pop("format", None) if isinstance(metadata, dict) else None
        if form != cls._format or set(metadata) - set(_OPTIONAL) != set(_METADATA):
            raise DataError(f"its metadata isn't of format {cls._format}")
        metadata["class_names"] = _names(metadata.get("class_names"))
        names = arrays.get("names")
        if names is not None and (names.dtype != np.uint8 or names.ndim != 1):
            raise DataError("its names aren't texts")
        noisy = cls(
            labels=arrays["labels"],
            clean_labels=arrays.get("clean_labels"),
            names=() if names is None else tuple(names.tobytes().decode("utf-8", "surrogateescape").split("\0")),
            index=arrays.get("index"),
            **metadata,
        )
        noisy._check_metadata()
        for what, array in (("labels", noisy.labels), ("clean labels", noisy.clean_labels)):
            if array is not None:
                noisy._check_values(what, array)
        if noisy._digest() != _text(arrays, "sha256"):
            raise DataError("its content doesn't match its SHA-256 sum: it was altered or damaged")
        return noisy

    def _check_metadata(self) -> None:
        spec = self.parsed_spec()
        rate = None if spec is None else 0.0 if spec.kind == "none" else spec.rate
        wanted = {
            "spec": isinstance(self.spec, str),
            "seed": self.seed is None or (type(self.seed) is int and 0 <= self.seed < 2**64),
            "num_classes": type(self.num_classes) is int and self.num_classes >= self._least,
            "class_names": self.class_names is None or len(self.class_names) == self.num_classes,
            "requested_rate": self.requested_rate is None or self.requested_rate == rate,
            "clean_are": self.clean_are in (None, "given"),
            "pmd_factor": self.pmd_factor is None
            or (spec is not None and spec.kind == "pmd" and _is_positive(self.pmd_factor)),
        }
        for key, holds in wanted.items():
            if not holds:
                raise DataError(f"{key} {getattr(self, key)!r} is impossible")


def known_labels(clean: NDArray[Any]) -> NDArray[np.bool_]:
    """bool [N]: which clean labels are known; of classes [N] those from 0, of other forms [N, K] all."""
    return np.asarray(clean >= 0) if clean.ndim == 1 else np.ones(len(clean), bool)


def clean_if_known(clean: NDArray[Any] | None, rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[Any] | None:
    """The clean labels of some rows; None if that of none is known."""
    chosen = None if clean is None else clean[rows]
    return None if chosen is None or not known_labels(chosen).any() else chosen


def _save_compressed(file: BinaryIO, arrays: Mapping[str, Any]) -> None:
    """As np.savez_compressed, but at zlib's first level: twice as fast for the names of a million images."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def _names(found: Any) -> tuple[str, ...] | None:
    """Texts from JSON, or None."""
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise DataError("class_names aren't texts")
    return tuple(found)


def _little_endian(array: NDArray[Any]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _is_positive(number: Any) -> bool:
    return type(number) is float and 0 < number < math.inf


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _text(arrays: dict[str, NDArray[Any]], key: str) -> str:
    if arrays[key].dtype.kind != "U" or arrays[key].shape != ():
        raise DataError(f"{key} isn't a text")
    return str(arrays[key])
