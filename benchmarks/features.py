"""The speed of heads on frozen features: a linear layer on rows of 512 numbers, on one thread of the CPU.

    python -m benchmarks.features

50,000 rows: 30 epochs of GCE and of ELR in batches of 512, each with the evaluation of 10,000 test rows; the start of
the process does not count. 1,000,000 rows (1 GB, mapped into memory): how much memory the process takes above its
imports, with the pages of the file that lie in it. Of both: seconds of the processor for an epoch, evaluation included,
against one pass that gathers and sums the same random batches, by NumPy and by torch. They are those of the processor,
since a busy machine does not lengthen them. Each row is of a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from . import record

RESULTS = record.RESULTS / "features.csv"
SIZE, CLASSES, TEST, BATCH = 512, 10, 10_000, 512
EPOCHS = {50_000: 30, 1_000_000: 3}
METHODS = {50_000: ("gce", "elr"), 1_000_000: ("gce",)}


def make(path: Path, count: int) -> None:
    """Write made features: CLASSES normal clouds that overlap."""
    from fastnoise.data import ImageDataset, ImageTable
    from fastnoise.data.features import About, FeatureFiles, write_about, write_labels

    rng = np.random.default_rng(0)
    centres = rng.normal(0, 0.15, (CLASSES, SIZE)).astype(np.float32)
    labels = rng.integers(0, CLASSES, count + TEST)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(count + TEST, SIZE))
    for first in range(0, len(labels), 10_000):
        part = labels[first : first + 10_000]
        rows[first : first + 10_000] = rng.standard_normal((len(part), SIZE), np.float32) + centres[part]
    rows.flush()
    images = rows[:, None, None]
    train, test = (ImageTable(labels[part], images=images[part]) for part in (slice(count), slice(count, None)))
    names = tuple(map(str, range(CLASSES)))
    dataset = ImageDataset("made", train, test, names, (0.0,) * SIZE, (1.0,) * SIZE)
    about = About(
        "made", dataset.list_hash, "made", "0" * 64, (1, 1), (0,), (1,), {"train": count, "test": TEST}, SIZE, 1
    )
    write_labels(FeatureFiles(path), dataset)
    write_about(FeatureFiles(path), about, (dataset.mean, dataset.std))


def peak() -> float:
    """Megabytes that this process has had in memory at most, mapped files among them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def passes(path: Path) -> dict[str, float]:
    """Seconds of the processor for one pass that sums random batches, by NumPy and by torch."""
    import torch

    from fastnoise.data.features import read_features
    from fastnoise.data.plan import Plan

    rows = read_features(path)
    order = Plan(len(rows) - TEST, BATCH, shuffle=True).batches(0).draw().index
    tensor = torch.from_numpy(rows)
    sums = {
        "numpy": lambda part: rows[part].sum(dtype=np.float32),
        "torch": lambda part: tensor.index_select(0, torch.from_numpy(part)).sum(dtype=torch.float32),
    }
    found = {}
    for name, add in sums.items():
        used = time.process_time()
        for first in range(0, len(order), BATCH):
            add(order[first : first + BATCH])
        found[name] = time.process_time() - used
    return found


def run(path: Path, method: str, epochs: int) -> dict[str, float]:
    """Train in this process; returns seconds and megabytes."""
    import torch
    from rich.console import Console

    from fastnoise.engine import train
    from fastnoise.recipes import recipe

    torch.set_num_threads(1)
    imported = peak()
    config = recipe(method, f"features:{path}", "symmetric:0.4").replace({"device": "cpu"})

    def trained(count: int) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder:
            began, used = time.perf_counter(), time.process_time()
            train(config.replace({"epochs": count, "run_dir": f"{folder}/run"}), console=Console(quiet=True))
            return time.perf_counter() - began, time.process_time() - used

    _, first = trained(1)  # imports what is imported late
    taken = peak() - imported  # of one training: each maps the file anew
    _, one = trained(1)
    seconds, processor = trained(epochs)
    epoch = (processor - min(first, one)) / (epochs - 1)
    return {"seconds": seconds, "processor": processor, "epoch": epoch, "megabytes": taken, **passes(path)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", choices=EPOCHS, default=tuple(EPOCHS))
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file; default: %(default)s")
    parser.add_argument("--run", nargs=3, metavar=("FILE", "METHOD", "EPOCHS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        print(json.dumps(run(Path(options.run[0]), options.run[1], int(options.run[2]))))
        return
    for count in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "made.npy"
            make(path, count)
            for method in METHODS[count]:
                words = ["--run", str(path), method, str(EPOCHS[count])]
                command = [sys.executable, "-m", "benchmarks.features", *words]
                said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found = json.loads(said.splitlines()[-1])
                stamp = record.stamp()
                row = {
                    "rows": str(count),
                    "method": method,
                    "epochs": str(EPOCHS[count]),
                    "seconds": f"{found['seconds']:.2f}",
                    "processor_seconds": f"{found['processor']:.2f}",
                    "epoch_seconds": f"{found['epoch']:.3f}",
                    "numpy_sum_seconds": f"{found['numpy']:.3f}",
                    "torch_sum_seconds": f"{found['torch']:.3f}",
                    "epoch_of_numpy_sum": f"{found['epoch'] / found['numpy']:.2f}",
                    "epoch_of_torch_sum": f"{found['epoch'] / found['torch']:.2f}",
                    "megabytes": f"{found['megabytes']:.0f}",
                    **{name: stamp[name] for name in ("machine", "torch", "commit", "date")},
                }
                record.append(options.output, [row], key=("rows", "method", "machine"))
                print(
                    f"{count} rows, {method}: {row['epochs']} epochs in {row['seconds']} s (processor "
                    f"{row['processor_seconds']} s); an epoch {row['epoch_seconds']} s, {row['epoch_of_numpy_sum']} of "
                    f"NumPy's sums, {row['epoch_of_torch_sum']} of torch's; {row['megabytes']} MB above the imports",
                    flush=True,
                )


if __name__ == "__main__":
    main()
