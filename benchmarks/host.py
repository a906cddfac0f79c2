"""Host time of a loss in an eager loop: forward and backward on one CPU thread, most of it Python's.

    python -m benchmarks.host

Sides, in turn within one process on the same inputs of float32, each averaged over the batch. Their order changes from
round to round: who follows the authors' code finds its caches colder.

    cross_entropy   torch.nn.functional.cross_entropy
    authors         ELR with the operations of its authors' code (benchmarks.losses)
    ce, swce, elr, nal   the modules of fastnoise.losses

Prints the medians and, for each of our losses, its time relative to plain cross-entropy's and how many times as long
the authors' lines of ELR take.
"""

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from . import record
from .loss_sides import sides_of, table_rows
from .losses import cpu_samples, make_inputs, percentiles, size

RESULTS = record.RESULTS / "host.csv"
KEY = ("side", "B", "C", "machine", "torch", "commit")
SIZES = ((128, 100), (64, 10))
LOSSES = ("ce", "swce", "elr", "nal")


def measure(batch: int, num_classes: int, seconds: float, stamp: record.Row) -> list[record.Row]:
    """All sides at one size."""
    device, num_samples = torch.device("cpu"), table_rows(batch, num_classes)
    inputs = make_inputs(4, batch, num_classes, num_samples, torch.float32, device)
    by_loss = {loss: sides_of(loss, num_samples, num_classes, device) for loss in LOSSES}
    sides = {"cross_entropy": by_loss["ce"]["reference"], "authors": by_loss["elr"]["authors"]}
    sides |= {loss: by_loss[loss]["fused"] for loss in LOSSES}
    samplers = {name: cpu_samples(side, "both", inputs, name == "nal") for name, side in sides.items()}
    found = in_changing_turn(samplers, seconds)
    quantiles = {name: percentiles(samples) for name, samples in found.items()}
    rows = []
    for name, (low, middle, high) in quantiles.items():
        row = {
            "side": name,
            "B": batch,
            "C": num_classes,
            "us_p20": f"{low:.2f}",
            "us_p50": f"{middle:.2f}",
            "us_p80": f"{high:.2f}",
            "of_cross_entropy": f"{middle / quantiles['cross_entropy'][1]:.2f}",
            "authors_of_it": f"{quantiles['authors'][1] / middle:.2f}",
            "samples": len(found[name]),
            **stamp,
        }
        rows.append({column: str(value) for column, value in row.items()})
    return rows


def in_changing_turn(samplers: dict[str, Iterator[float]], seconds: float) -> dict[str, list[float]]:
    """Samples of every side, in another order each round, for so long in all; ten rounds warm up."""
    found: dict[str, list[float]] = {name: [] for name in samplers}
    order, shuffler, rounds, start = list(samplers), random.Random(0), 0, time.perf_counter()
    while rounds < 15 or time.perf_counter() - start < seconds:
        shuffler.shuffle(order)
        for name in order:
            sample = next(samplers[name])
            if rounds >= 10:
                found[name].append(sample)
        rounds += 1
    return found


def summary(rows: list[record.Row]) -> Iterator[str]:
    for row in rows:
        ratios = f"{row['of_cross_entropy']} x cross_entropy, authors take {row['authors_of_it']} x as long"
        yield f"({row['B']},{row['C']}) {row['side']}: {row['us_p50']} us, {ratios}"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=size, metavar="BxC", default=SIZES, help="default: 128x100 64x10")
    parser.add_argument("--seconds", type=float, default=6.0, help="per size, beside warm-up; default: %(default)s")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file; default: %(default)s")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    stamp = record.stamp()
    print(f"one thread, float32, forward and backward, {stamp['machine']}")
    for batch, num_classes in arguments.sizes:
        rows = measure(batch, num_classes, arguments.seconds, stamp)
        record.append(arguments.output, rows, KEY)
        print("\n".join(summary(rows)), flush=True)


if __name__ == "__main__":
    main()
