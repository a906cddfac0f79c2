"""The start of a run on many image files, against the same images in an array.

    python -m benchmarks.start [--files 100000] [--rounds 5]
    python -m benchmarks.start --listed 1000000 [--rounds 3]

Both sides are `fastnoise train` in a process of its own, and take turns. A start ends when the network gets its first
training batch. The files have been read once before, as by `fastnoise check`, and have not changed since. The files
and the array hold the same images of 8 x 8 pixels, so that the disk has little part in it.

With --listed the files are those of Clothing1M's lists, so many made names in its official layout. None of them exists,
so that a start which looked at one would fail; the batches are of --loader synthetic. The other side is a start on
digits, and the peak of the memory is compared, too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from . import first_batch, record
from .first_batch import ARRAYS, BATCH, STARTED
from .timing import spread

RESULTS, LISTED = record.RESULTS / "start.csv", record.RESULTS / "start_lists.csv"
SIDE, CLASSES = 8, 10
OWN = Path(first_batch.__file__).resolve()
"""Holds the network that ends the process, and the data set of the array."""


def make_images(folder: Path, count: int) -> None:
    """Write `count` images as PNG files of classes, and as one array."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    labels = np.arange(count) % CLASSES
    for number in range(CLASSES):
        (folder / "files" / "train" / str(number)).mkdir(parents=True)
        (folder / "files" / "test" / str(number)).mkdir(parents=True)
        Image.fromarray(images[number]).save(folder / "files" / "test" / str(number) / "0.png")
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / "files" / "train" / str(label) / f"{place:07d}.png")
    np.savez(folder / "arrays.npz", images=images, labels=labels)


def make_lists(folder: Path, count: int) -> None:
    """Write Clothing1M's lists of `count` made names: a clean label for every 14th, 1,400 to validate and to test."""
    root = folder / "clothing1m"
    (root / "images").mkdir(parents=True)
    names = [f"images/{row % 10}/{row % 1000:03}/{row:09},{row * 7 % 1000003:07}.jpg" for row in range(count)]
    parts = {part: [f"images/{part}/{row:06}.jpg" for row in range(1400)] for part in ("val", "test")}
    (root / "noisy_label_kv.txt").write_text("".join(f"{name} {row % 14}\n" for row, name in enumerate(names)))
    clean = [*names[::14], *parts["val"], *parts["test"]]
    (root / "clean_label_kv.txt").write_text("".join(f"{name} {row % 14}\n" for row, name in enumerate(clean)))
    (root / "noisy_train_key_list.txt").write_text("\n".join(names))
    for part, keys in parts.items():
        (root / f"clean_{part}_key_list.txt").write_text("\n".join(keys))


class Start(NamedTuple):
    """What a start took."""

    seconds: float
    processor_seconds: float
    peak_mb: float


def start(folder: Path, dataset: str, *more: str) -> Start:
    """Seconds from the start of `fastnoise train` to its first batch, those of the processor in them, and the largest
    memory that the process had until then."""
    begun = folder / "started"
    begun.unlink(missing_ok=True)
    words = ["train", "--dataset", dataset, "--method", "ce", "--noise", "none", "--batch-size", str(BATCH)]
    words += ["--model", f"{OWN}:StopAtFirstBatch", "--val-fraction", "0", "--epochs", "1"]
    words += ["--run-dir", tempfile.mkdtemp(dir=folder) + "/run", *more]
    environment = {**os.environ, STARTED: str(begun), ARRAYS: str(folder / "arrays.npz")}
    with tempfile.TemporaryFile() as said:
        before = time.time()
        child = subprocess.Popen(
            [sys.executable, "-m", "fastnoise.cli", *words], env=environment, stdout=said, stderr=said
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if not begun.exists():
            said.seek(0)
            raise SystemExit(f"the run on {dataset} did not begin: {said.read().decode().strip()}")
    return Start(float(begun.read_text()) - before, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def measure_lists(count: int, rounds: int, output: Path) -> None:
    """Record starts on lists of `count` names beside starts on digits."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_lists(folder, count)
        listed = ("--data-root", str(folder), "--loader", "synthetic", "--image-size", "32")
        turns = [(start(folder, "clothing1m", *listed), start(folder, "digits")) for _ in range(rounds)]
    figures = {
        f"{side}_{what}": spread([getattr(turn[place], what) for turn in turns]).median
        for place, side in enumerate(("lists", "digits"))
        for what in Start._fields
    }
    figures["more_peak_mb"] = spread([lists.peak_mb - digits.peak_mb for lists, digits in turns]).median
    stamp = record.stamp()
    row = {
        "names": str(count),
        **{key: f"{value:.2f}" for key, value in figures.items()},
        **{key: stamp[key] for key in ("machine", "torch", "commit", "date")},
    }
    record.append(output, [row], key=("names", "machine"))
    print(
        f"lists of {count} names: first batch after {row['lists_seconds']} s (digits: {row['digits_seconds']} s), peak "
        f"{row['lists_peak_mb']} MB, {row['more_peak_mb']} MB above that of digits"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--listed", type=int, help="measure lists of so many made names, in place of files")
    parser.add_argument("--output", type=Path, help=f"the CSV file; default: {RESULTS}, or {LISTED} of lists")
    options = parser.parse_args()
    if options.listed is not None:
        measure_lists(options.listed, options.rounds, options.output or LISTED)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder, options.files)
        sides = {"files": f"folder:{folder / 'files'}", "array": f"{OWN}:arrays"}
        first = start(folder, sides["files"]).seconds
        start(folder, sides["array"])
        rounds = [{side: start(folder, dataset) for side, dataset in sides.items()} for _ in range(options.rounds)]
    figures: dict[str, float] = {}
    for what in ("seconds", "processor_seconds"):
        seconds = {side: [getattr(turn[side], what) for turn in rounds] for side in sides}
        figures |= {f"{side}_{what}": spread(values).median for side, values in seconds.items()}
        more = spread([files - array for files, array in zip(seconds["files"], seconds["array"], strict=True)])
        figures |= {f"more_{what}_{end}": getattr(more, end) for end in more._fields}
    stamp = record.stamp()
    row = {
        "files": str(options.files),
        "first_seconds": f"{first:.2f}",
        **{key: f"{value:.2f}" for key, value in figures.items()},
        **{key: stamp[key] for key in ("machine", "torch", "commit", "date")},
    }
    record.append(options.output or RESULTS, [row], key=("files", "machine"))
    print(
        f"{options.files} files: first start {first:.1f} s, later {row['files_seconds']} s, array "
        f"{row['array_seconds']} s: {row['more_seconds_median']} s more [{row['more_seconds_low']}, "
        f"{row['more_seconds_high']}], of the processor {row['more_processor_seconds_median']} s "
        f"[{row['more_processor_seconds_low']}, {row['more_processor_seconds_high']}]"
    )


if __name__ == "__main__":
    main()
