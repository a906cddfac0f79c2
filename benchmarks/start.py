"""The start of a run on many image files, against the same images in an array.

    python -m benchmarks.start [--files 100000] [--rounds 5]

Both sides are `fastnoise train` in a process of its own, and take turns. A start ends when the network gets its first
training batch. The files have been read once before, as by `fastnoise check`, and have not changed since. The files
and the array hold the same images of 8 x 8 pixels, so that the disk has little part in it.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from . import first_batch, record
from .first_batch import ARRAYS, BATCH, STARTED
from .timing import spread

RESULTS = record.RESULTS / "start.csv"
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


def start(folder: Path, dataset: str) -> tuple[float, float]:
    """Seconds from the start of `fastnoise train` to its first batch, and those of the processor in them."""
    begun = folder / "started"
    begun.unlink(missing_ok=True)
    words = ["train", "--dataset", dataset, "--method", "ce", "--noise", "none", "--batch-size", str(BATCH)]
    words += ["--model", f"{OWN}:StopAtFirstBatch", "--val-fraction", "0", "--epochs", "1"]
    words += ["--run-dir", tempfile.mkdtemp(dir=folder) + "/run"]
    environment = {**os.environ, STARTED: str(begun), ARRAYS: str(folder / "arrays.npz")}
    before, used = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "fastnoise.cli", *words], env=environment, capture_output=True, text=True, check=False
    )
    if not begun.exists():
        raise SystemExit(f"the run on {dataset} did not begin: {done.stderr.strip()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return float(begun.read_text()) - before, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file; default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder, options.files)
        sides = {"files": f"folder:{folder / 'files'}", "array": f"{OWN}:arrays"}
        first, _ = start(folder, sides["files"])
        start(folder, sides["array"])
        rounds = [{side: start(folder, dataset) for side, dataset in sides.items()} for _ in range(options.rounds)]
    figures: dict[str, float] = {}
    for place, what in enumerate(("seconds", "processor_seconds")):
        seconds = {side: [turn[side][place] for turn in rounds] for side in sides}
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
    record.append(options.output, [row], key=("files", "machine"))
    print(
        f"{options.files} files: first start {first:.1f} s, later {row['files_seconds']} s, array "
        f"{row['array_seconds']} s: {row['more_seconds_median']} s more [{row['more_seconds_low']}, "
        f"{row['more_seconds_high']}], of the processor {row['more_processor_seconds_median']} s "
        f"[{row['more_processor_seconds_low']}, {row['more_processor_seconds_high']}]"
    )


if __name__ == "__main__":
    main()
