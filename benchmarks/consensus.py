"""Stage consensus in ns a sample: the C++ core, NumPy in place, NumPy as one writes it, and a loop over samples.

    python -m benchmarks.consensus [--samples 1000000] [--rounds 15]

Three stages. Writes benchmarks/results/consensus.csv, one row per task, dtype of the predictions and implementation;
`copy_share` is the share of one thread's copy bandwidth that reading each loss and prediction once amounts to.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fastnoise import _C
from fastnoise.selection import consensus, consensus_sweep

from . import record, timing

RESULTS = record.RESULTS / "consensus.csv"

STAGES, THRESHOLD = 3, 0.7
GOALS: dict[str, dict[str, float]] = {
    "one threshold": {"NumPy in place": 1.4, "NumPy": 2},
    "64 thresholds": {"NumPy in place": 10},
}
COLUMNS = ("task", "dtype", "samples", "implementation", "isa")


def loop(losses: np.ndarray, predictions: np.ndarray) -> dict[int, int]:
    """The consensus as papers write it: a set of easy samples a stage, their intersection, and a label for each."""
    common: set[int] = set()
    for stage in range(len(losses)):
        easy = set()
        for sample in range(losses.shape[1]):
            if losses[stage][sample] < THRESHOLD:
                easy.add(sample)
        common = common & easy if stage else easy
    labels = {}
    for sample in sorted(common):
        if all(predictions[stage][sample] == predictions[0][sample] for stage in range(1, len(losses))):
            labels[sample] = int(predictions[-1][sample])
    return labels


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10**6)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file; default: %(default)s")
    options = parser.parse_args(words)
    count, stamp, bandwidth = options.samples, record.stamp(), timing.copy_bandwidth()
    print(f"{_C.active_isa()}, copy {bandwidth / 1e9:.1f} GB/s")
    rng, rows = np.random.default_rng(0), []
    losses = rng.random((STAGES, count), np.float32)
    thresholds = np.linspace(0, 1, 64).tolist()
    member, part = np.empty(count, bool), np.empty(count, bool)
    for dtype in ("uint8", "uint16", "int32"):
        predictions = np.where(rng.random((STAGES, count)) < 0.9, 5, 3).astype(dtype)
        truth = np.full(count, 5, dtype)

        def in_place(threshold: float = THRESHOLD, predictions: np.ndarray = predictions) -> np.ndarray:
            np.less(losses[0], threshold, out=member)
            for stage in range(1, STAGES):
                np.logical_and(member, np.less(losses[stage], threshold, out=part), out=member)
                np.logical_and(member, np.equal(predictions[stage], predictions[0], out=part), out=member)
            return member

        def each_threshold(predictions: np.ndarray = predictions, truth: np.ndarray = truth) -> None:
            right = predictions[-1] == truth
            for threshold in thresholds:
                chosen = in_place(threshold, predictions)
                np.count_nonzero(chosen)
                np.count_nonzero(np.logical_and(chosen, right, out=part))

        def index_of(predictions: np.ndarray = predictions) -> np.ndarray:
            return consensus(losses, predictions, THRESHOLD, threads=1).index

        def plain(predictions: np.ndarray = predictions) -> np.ndarray:
            return (losses < THRESHOLD).all(0) & (predictions == predictions[0]).all(0)

        one: dict[str, Callable[[], object]] = {
            "C++, 1 thread": partial(consensus, losses, predictions, THRESHOLD, threads=1),
            "C++ and index, 1 thread": index_of,
            "C++, all threads": partial(consensus, losses, predictions, THRESHOLD),
            "NumPy in place": in_place,
            "NumPy": plain,
        }
        sweep = partial(consensus_sweep, losses, predictions, thresholds, true_labels=truth)
        many: dict[str, Callable[[], object]] = {
            "C++, 1 thread": partial(sweep, threads=1),
            "C++, all threads": sweep,
        }
        many["NumPy in place"] = each_threshold
        short = losses[:, :50_000].copy(), predictions[:, :50_000].copy()
        looped = {"Python loop": partial(loop, *short)}
        for task, calls, rounds, samples in (
            ("one threshold", one, options.rounds, count),
            ("one threshold", looped, 3, short[0].shape[1]),
            ("64 thresholds", many, 3, count),
        ):
            times = timing.in_turn(calls, rounds)
            for name, seconds in times.items():
                ns = seconds / samples * 1e9
                share = STAGES * (4 + predictions.itemsize) / (ns * 1e-9) / bandwidth
                values = (task, dtype, str(samples), name, _C.active_isa())
                figures = {"ns_per_sample": f"{ns:.3f}", "copy_share": f"{share:.3f}"}
                rows.append({**dict(zip(COLUMNS, values, strict=True)), **figures, **stamp})
                print(f"{task:14} {dtype:6} {name:24} {ns:8.3f} ns  {share:.3f}")
            for name, goal in GOALS[task].items():
                if name in times:
                    print(f"{'':14} 1 thread: {times[name] / times['C++, 1 thread']:.1f} times {name} (goal {goal})")
    record.append(options.output, rows, key=(*COLUMNS, "machine", "date"))


if __name__ == "__main__":
    main()
