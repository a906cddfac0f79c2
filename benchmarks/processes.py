"""How much faster two processes train than one: LeNet-5 on MNIST, batch 128 a process, gloo, on two cores of a CPU.

    python -m benchmarks.processes [--data-root data]

Each process has one thread of torch and one core. The two ways take turns for five rounds, each round a run of its own
with some epochs on a part of MNIST; of each way the best epoch counts, whose images per second are those of all
processes. The first epoch of a run, which warms caches, is left out. Run it on an idle machine: a busy neighbour slows
two processes more than one, since each step waits for the slower.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from . import record

RESULTS = record.RESULTS / "processes.csv"
COLUMNS = ("processes", "batch_size", "threads")
ROUNDS, EPOCHS, IMAGES, BATCH = 5, 4, 20_000, 128
BUSY = 1.5
"""Load of the machine from which on nothing is measured."""


def measure(processes: int, data_root: str, epochs: int, images: int) -> tuple[float, float]:
    """The best epoch of a run: images per second, and the share of its time in collectives."""
    words = ["--dataset", "mnist", "--data-root", data_root, "--model", "lenet5", "--method", "ce", "--device", "cpu"]
    words += ["--epochs", str(epochs), "--limit-train", str(images), "--batch-size", str(BATCH), "--save-every", "1h"]
    words += ["--loader", "resident", "--loader-threads", "1", *(["--gpus", str(processes)] if processes > 1 else [])]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "fastnoise.cli", "train", *words, "--run-dir", f"{folder}/run"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    best = max(lines[1:], key=lambda line: float(line["images_per_second"]))
    return float(best["images_per_second"]), float(best.get("collectives", 0.0))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--busy", action="store_true", help="measure though the machine is busy")
    options = parser.parse_args(words)
    if options.rounds < 1 or options.epochs < 2:
        parser.error("give 1 round or more, and 2 epochs or more: the first is left out")
    if (load := os.getloadavg()[0]) >= BUSY and not options.busy:
        parser.error(f"the machine is busy (load {load:.1f}); wait, or add --busy")
    best: dict[int, tuple[float, float]] = {}
    for number in range(options.rounds):
        for processes in (1, 2):
            found = measure(processes, options.data_root, options.epochs, options.images)
            best[processes] = max(best.get(processes, (0.0, 0.0)), found)
            print(f"round {number + 1}, {processes} process(es): {found[0]:,.0f} images/s, collectives {found[1]:.1%}")
    print(f"two processes: {best[2][0] / best[1][0]:.2f} times the images/s of one")
    rows = [
        {
            "processes": str(processes),
            "batch_size": str(BATCH),
            "threads": "1",
            "images_per_second": f"{rate:.0f}",
            "collectives": f"{share:.4f}",
        }
        for processes, (rate, share) in best.items()
    ]
    record.append(options.output, [{**row, **record.stamp()} for row in rows], key=(*COLUMNS, "machine"))


if __name__ == "__main__":
    main()
