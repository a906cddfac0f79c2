"""Label noise in ns a label: the C++ core on one thread and on all, tuned NumPy, cleanlab's generator
(where it is installed: pip install cleanlab), and the papers' Python loops.

    python -m benchmarks.noise [--samples 1000000] [--rounds 15]

Writes benchmarks/results/noise.csv, one row per model, dtype, number of classes and implementation. Sides "in place"
write labels of the given dtype into an array that is there already, as a sweep does, and NumPy's have all its
intermediate arrays ready too; the others make a new int64 array. "Labels copied" is what memory alone costs with the
same things in the caches: a side of NumPy's comes before it and after it, so that no side of C++ finds the caches as it
leaves them. `copy_share` is the share of one thread's copy bandwidth that reading and writing the labels amounts to.
"""

import argparse
import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fastnoise import _C

from . import record, timing

RESULTS = record.RESULTS / "noise.csv"

RATE = 0.4
COLUMNS = ("model", "dtype", "classes", "samples", "implementation", "isa")
GOALS = {"symmetric": (10, 2.0), "pair": (8, 2.0), "matrix": (25, 3.5)}  # times NumPy's speed, ns a label; one thread


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


def numpy_symmetric_at_once(labels: np.ndarray, classes: int) -> np.ndarray:
    """One 24-bit number decides both whether a label flips and how far, and a table wraps the sum: the fastest we know,
    but what a label flips to changes with the rate."""
    step = np.random.default_rng(1).random(len(labels), dtype=np.float32)
    step *= np.float32((classes - 1) / RATE)
    np.minimum(step, classes - 1, out=step)
    moved = step.astype(np.uint8)
    moved += 1
    moved += labels.astype(np.uint8)
    return (np.arange(2 * classes) % classes).take(moved, mode="clip")


def numpy_pair_narrow(labels: np.ndarray, classes: int) -> np.ndarray:
    """In bytes until the end."""
    flips = np.random.default_rng(1).random(len(labels), dtype=np.float32) < RATE
    noisy = labels.astype(np.uint8)
    noisy += flips.view(np.uint8)
    noisy *= noisy != classes
    return noisy.astype(np.int64)


def in_place(labels: np.ndarray, classes: int) -> dict[str, dict[str, Callable[[], object]]]:
    """The sides that make no new array: one rate and one seed of the sweep, and NumPy."""
    rng, count, dtype = np.random.default_rng(1), len(labels), labels.dtype
    given, noisy = np.zeros((1, 1, count), dtype), np.zeros(count, dtype)
    number, step, flips = np.zeros(count, np.float32), np.zeros(count, np.uint8), np.zeros(count, bool)
    wrapped = (np.arange(2 * classes) % classes).astype(dtype)

    def sweep(kind: str) -> None:
        _C.corrupt_sweep(labels, given, num_classes=classes, rates=[RATE], seeds=[1], kind=kind, threads=1)

    def symmetric() -> None:
        rng.random(dtype=np.float32, out=number)
        index = np.flatnonzero(np.less(number, RATE, out=flips))
        np.copyto(noisy, labels)
        noisy[index] = wrapped[noisy[index] + rng.integers(1, classes, len(index), dtype=dtype)]

    def symmetric_at_once() -> None:
        rng.random(dtype=np.float32, out=number)
        np.multiply(number, np.float32((classes - 1) / RATE), out=number)
        np.minimum(number, classes - 1, out=number)
        np.copyto(step, number, casting="unsafe")
        np.add(step, 1, out=step)
        np.add(step, labels, out=step, casting="unsafe")
        wrapped.take(step, mode="clip", out=noisy)

    def pair() -> None:
        rng.random(dtype=np.float32, out=number)
        np.less(number, RATE, out=flips)
        np.add(labels, flips.view(np.uint8), out=noisy, casting="unsafe")
        np.not_equal(noisy, classes, out=flips)
        np.multiply(noisy, flips.view(np.uint8), out=noisy, casting="unsafe")

    return {
        "symmetric": {
            "C++ in place, 1 thread": partial(sweep, "excluded"),
            "NumPy in place": symmetric,
            "NumPy in place, in bytes": symmetric_at_once,
        },
        "pair": {"C++ in place, 1 thread": partial(sweep, "pair"), "NumPy in place": pair},
    }


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


def loop_pair(labels: np.ndarray, classes: int) -> np.ndarray:
    """Class by class, each one's shuffled samples are gone through, as in ELR's loader of asymmetric noise."""
    rng = np.random.RandomState(1)
    noisy = labels.astype(np.int64)
    for label in range(classes):
        positions = np.where(labels == label)[0]
        rng.shuffle(positions)
        for rank, position in enumerate(positions):
            if rank < RATE * len(positions):
                noisy[position] = (label + 1) % classes
    return noisy


def loop_matrix(labels: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """A multinomial draw a sample, as in Co-teaching's loader."""
    rng = np.random.RandomState(1)
    noisy = labels.astype(np.int64)
    for position in range(len(labels)):
        noisy[position] = np.where(rng.multinomial(1, transition[labels[position]], 1)[0] == 1)[0][0]
    return noisy


def cleanlab_generator() -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """cleanlab's `generate_noisy_labels`, which takes columns as true classes and meets its counts exactly."""
    try:
        module = importlib.import_module("cleanlab.benchmarking.noise_generation")
    except ImportError:
        return None
    generate: Callable[[np.ndarray, np.ndarray], np.ndarray] = module.generate_noisy_labels
    return generate


def uniform_transition(classes: int) -> np.ndarray:
    transition = np.full((classes, classes), RATE / (classes - 1))
    np.fill_diagonal(transition, 1 - RATE)
    return transition


def cases(labels: np.ndarray, classes: int) -> dict[str, dict[str, Callable[[], object]]]:
    transition = uniform_transition(classes)

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
    narrow: dict[str, Callable[[], object]] = {
        "symmetric": lambda: numpy_symmetric_at_once(labels, classes),
        "pair": lambda: numpy_pair_narrow(labels, classes),
    }
    calls = {
        model: {"C++, 1 thread": one[model], "C++, all threads": every[model], "NumPy": numpy[model]} for model in one
    }
    copied = np.zeros_like(labels)
    for model, call in narrow.items():
        calls[model]["labels copied"] = lambda: np.copyto(copied, labels)
        calls[model]["NumPy, in bytes"] = call
    for model, sides in in_place(labels, classes).items():
        calls[model] |= sides
    return calls


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10**6)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file; default: %(default)s")
    options = parser.parse_args(words)
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
                times = timing.in_turn(calls, options.rounds)
                for name, seconds in times.items():
                    written = labels.itemsize if "in place" in name or "copied" in name else 8
                    add(model, dtype, classes, name, count, seconds / count * 1e9, labels.itemsize + written)
                ratio, most = GOALS[model]
                for own, others in (("C++, 1 thread", "NumPy"), ("C++ in place, 1 thread", "NumPy in place")):
                    if own not in times:
                        continue
                    fast = times[own]
                    against = ", ".join(
                        f"{seconds / fast:.1f} times {name}"
                        for name, seconds in times.items()
                        if name.startswith(others) and ("in place" in name) == ("in place" in own)
                    )
                    print(f"{'':16} {own}: {against} (goal {ratio}), {fast / count * 1e9:.2f} ns (goal {most})")
        transition = uniform_transition(classes)
        generate = cleanlab_generator()
        if generate is None:
            print("cleanlab: not installed")
        else:
            labels = np.random.default_rng(0).integers(0, classes, count)
            seconds = timing.in_turn({"": partial(generate, labels, transition.T)}, 3)[""]
            add("matrix", "int64", classes, "cleanlab", count, seconds / count * 1e9, 0)
        short = np.random.default_rng(0).integers(0, classes, 50_000)
        loops: dict[str, Callable[[], object]] = {
            "symmetric": partial(loop_symmetric, short, classes),
            "pair": partial(loop_pair, short, classes),
            "matrix": partial(loop_matrix, short, transition),
        }
        for model, seconds in timing.in_turn(loops, 3).items():
            add(model, "int64", classes, "Python loop", 50_000, seconds / 50_000 * 1e9, 0)

    rates, seeds = [r / 10 for r in range(10)], list(range(10))
    for dtype in ("uint8", "int32", "int64"):
        labels = np.random.default_rng(0).integers(0, 10, count).astype(dtype)
        out = np.zeros((10, 10, count), dtype)

        def sweep(y: np.ndarray = labels, to: np.ndarray = out) -> None:
            _C.corrupt_sweep(y, to, num_classes=10, rates=rates, seeds=seeds, kind="excluded", threads=1)

        def apart(y: np.ndarray = labels) -> None:
            for rate in rates:
                for seed in seeds:
                    _C.corrupt_symmetric(y, num_classes=10, rate=rate, include_true_class=False, seed=seed, threads=1)

        times = timing.in_turn({"corrupt_sweep": sweep, "100 calls": apart}, 3)
        for name, seconds in times.items():
            add("symmetric 10x10", dtype, 10, f"{name}, 1 thread", count, seconds / count * 1e7, 0)
        goal = " (goal 3)" if dtype == "uint8" else ""
        print(f"{'':16} {times['100 calls'] / times['corrupt_sweep']:.1f} times the speed of single calls{goal}")
    record.append(options.output, rows, key=(*COLUMNS, "machine", "date"))


if __name__ == "__main__":
    main()
