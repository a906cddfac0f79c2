"""Label noise in ns a label: the C++ core on one thread and on all, tuned NumPy, and the papers' Python loop.

    python -m benchmarks.noise [--samples 1000000] [--rounds 15]

Writes benchmarks/results/noise.csv, one row per model, dtype, number of classes and implementation. `copy_share` is the
share of one thread's copy bandwidth that reading the labels and writing int64 ones amounts to.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np

from fastnoise import _C

from . import record, timing

RATE = 0.4
COLUMNS = ("model", "dtype", "classes", "samples", "implementation", "isa")


def numpy_symmetric(labels: np.ndarray, classes: int) -> np.ndarray:
    """Draws targets for the flipped labels only, and decides with 32-bit numbers."""
    rng = np.random.default_rng(1)
    index = np.flatnonzero(rng.random(len(labels), dtype=np.float32) < RATE)
    noisy = labels.astype(np.int64)
    noisy[index] = (noisy[index] + rng.integers(1, classes, len(index))) % classes
    return noisy


def numpy_pair(labels: np.ndarray, classes: int) -> np.ndarray:
    noisy = labels.astype(np.int64)
    noisy += np.random.default_rng(1).random(len(labels), dtype=np.float32) < RATE
    noisy[noisy == classes] = 0
    return noisy


def numpy_matrix(labels: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """One search in the cumulative sums of all rows, each a unit above the one before."""
    classes = len(transition)
    ends = np.cumsum(transition, axis=1) + np.arange(classes)[:, None]
    ends[:, -1] = np.arange(1, classes + 1)
    drawn = np.random.default_rng(1).random(len(labels)) + labels
    return np.searchsorted(ends.ravel(), drawn, side="right") - labels.astype(np.int64) * classes


def loop_symmetric(labels: np.ndarray, classes: int) -> np.ndarray:
    """A permutation's prefix is relabelled one by one, as in the papers' loaders (there with the true class)."""
    rng = np.random.default_rng(1)
    noisy = labels.astype(np.int64)
    for position in rng.permutation(len(labels))[: int(RATE * len(labels))]:
        noisy[position] = (noisy[position] + rng.integers(1, classes)) % classes
    return noisy


def cases(labels: np.ndarray, classes: int) -> dict[str, dict[str, Callable[[], object]]]:
    transition = np.full((classes, classes), RATE / (classes - 1))
    np.fill_diagonal(transition, 1 - RATE)

    def fastnoise(threads: int) -> dict[str, Callable[[], object]]:
        common = {"seed": 1, "threads": threads}
        return {
            "symmetric": lambda: _C.corrupt_symmetric(
                labels, num_classes=classes, rate=RATE, include_true_class=False, **common
            ),
            "pair": lambda: _C.corrupt_pair(labels, num_classes=classes, rate=RATE, **common),
            "matrix": lambda: _C.corrupt_matrix(labels, transition, **common),
        }

    one, every = fastnoise(1), fastnoise(0)
    numpy: dict[str, Callable[[], object]] = {
        "symmetric": lambda: numpy_symmetric(labels, classes),
        "pair": lambda: numpy_pair(labels, classes),
        "matrix": lambda: numpy_matrix(labels, transition),
    }
    return {
        model: {"C++, 1 thread": one[model], "C++, all threads": every[model], "NumPy": numpy[model]} for model in one
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10**6)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    count, stamp, bandwidth = options.samples, record.stamp(), timing.copy_bandwidth()
    print(f"{_C.active_isa()}, copy {bandwidth / 1e9:.1f} GB/s")
    rows: list[record.Row] = []

    def add(model: str, dtype: str, classes: int, implementation: str, samples: int, ns: float, touched: int) -> None:
        share = f"{touched / (ns * 1e-9) / bandwidth:.3f}" if touched else ""
        values = (model, dtype, str(classes), str(samples), implementation, _C.active_isa())
        figures = {"ns_per_label": f"{ns:.3f}", "copy_share": share}
        rows.append({**dict(zip(COLUMNS, values, strict=True)), **figures, **stamp})
        print(f"{model:16} {dtype:6} K={classes:<4} {implementation:26} {ns:9.3f} ns  {share}")

    for classes in (10, 100):
        for dtype in ("uint8", "uint16", "int32", "int64"):
            labels = np.random.default_rng(0).integers(0, classes, count).astype(dtype)
            for model, calls in cases(labels, classes).items():
                for name, seconds in timing.in_turn(calls, options.rounds).items():
                    add(model, dtype, classes, name, count, seconds / count * 1e9, 8 + labels.itemsize)
        short = np.random.default_rng(0).integers(0, classes, 50_000)
        seconds = timing.in_turn({"loop": partial(loop_symmetric, short, classes)}, 3)["loop"]
        add("symmetric", "int64", classes, "Python loop", 50_000, seconds / 50_000 * 1e9, 0)

    rates, seeds = [r / 10 for r in range(10)], list(range(10))
    for dtype in ("uint8", "int64"):
        labels = np.random.default_rng(0).integers(0, 10, count).astype(dtype)
        out = np.zeros((10, 10, count), dtype)

        def sweep(y: np.ndarray = labels, to: np.ndarray = out) -> None:
            _C.corrupt_sweep(y, to, num_classes=10, rates=rates, seeds=seeds, kind="excluded", threads=1)

        def apart(y: np.ndarray = labels) -> None:
            for rate in rates:
                for seed in seeds:
                    _C.corrupt_symmetric(y, num_classes=10, rate=rate, include_true_class=False, seed=seed, threads=1)

        for name, seconds in timing.in_turn({"corrupt_sweep": sweep, "100 calls": apart}, 3).items():
            add("symmetric 10x10", dtype, 10, f"{name}, 1 thread", count, seconds / count * 1e7, 0)
    record.append(record.RESULTS / "noise.csv", rows, key=(*COLUMNS, "machine", "date"))


if __name__ == "__main__":
    main()
