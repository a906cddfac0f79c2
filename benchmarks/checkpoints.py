"""How long training pauses for the checkpoint of a large target table, and what memory it takes to go on from one.

    python -m benchmarks.checkpoints

A table of 300,000 samples and 1,000 classes, 1.2 GB in float32, is that of a real noisy set. The steps are those of ELR
on features with a linear head, so that the table is nearly all that there is. Checkpoints are asked for every few
seconds, inside epochs. What comes out: the longest time that the loop spent in one, the longest that its file took in
the background, the longest gap between two steps, and the memory that the process that goes on had taken once the
checkpoint was loaded, in tables: 1 is the table itself, 2 would be a second copy. Pages of the mapped file are not
counted, since the system takes them back when it needs them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from . import record

RESULTS = record.RESULTS / "checkpoints.csv"
FEATURES, TEST, BATCH = 8, 1000, 512


def run(folder: str, samples: int, classes: int, *, resume: bool) -> dict[str, float]:
    """Train in this process, or go on until the checkpoint is loaded; returns the figures."""
    import numpy as np
    from rich.console import Console

    from fastnoise.data import ImageDataset
    from fastnoise.engine import train
    from fastnoise.engine.checkpoint import Checkpoints
    from fastnoise.engine.saves import SaveClock
    from fastnoise.engine.single import Single
    from fastnoise.engine.step import Step
    from fastnoise.recipes import recipe

    rng = np.random.default_rng(0)
    features = rng.normal(size=(samples + TEST, FEATURES)).astype(np.float32)
    labels = np.arange(samples + TEST) % classes
    dataset = ImageDataset.from_arrays(
        features[:samples],
        labels[:samples],
        test_images=features[samples:],
        test_labels=labels[samples:],
        class_names=[str(number) for number in range(classes)],
    )
    fields = {"model": "linear", "batch_size": BATCH, "epochs": 2, "crop_padding": 0, "flip": False, "device": "cpu"}
    config = recipe("elr", dataset.name).replace(
        {**fields, "noise": "none", "save_every": "4s", "normalisation": "none", "run_dir": folder}
    )
    found: dict[str, float] = {}
    steps: list[float] = []

    def longest(name: str, seconds: float) -> None:
        found[name] = max(found.get(name, 0.0), seconds)

    save, took, step = Checkpoints.save, SaveClock.took, Step.train

    def timed_save(self: Checkpoints, *place: Any, last: bool = False) -> None:
        began = time.perf_counter()
        save(self, *place, last=last)
        if not last:
            longest("pause_seconds", time.perf_counter() - began)
            found["checkpoints"] = found.get("checkpoints", 0) + 1

    def noted(self: SaveClock, seconds: float) -> None:
        longest("background_seconds", seconds)
        took(self, seconds)

    def timed_step(self: Step, *batch: Any) -> Any:
        result = step(self, *batch)
        steps.append(time.perf_counter())
        return result

    if not resume:
        with (
            patch.object(Checkpoints, "save", timed_save),
            patch.object(SaveClock, "took", noted),
            patch.object(Step, "train", timed_step),
        ):
            train(config, dataset=dataset, console=Console(quiet=True))
        per_epoch = -(-samples // BATCH)
        gaps = [np.diff(steps[first : first + per_epoch]) for first in range(0, len(steps), per_epoch)]
        found["longest_gap_seconds"] = max(float(gap.max()) for gap in gaps)
        found["median_step_seconds"] = float(np.median(np.concatenate(gaps)))
        return found
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            peak[0] = max(peak[0], private_bytes())

    class Loaded(Exception):
        pass

    def stop(self: Single, *place: Any) -> Any:
        raise Loaded

    before = private_bytes()
    thread = threading.Thread(target=watch)
    thread.start()
    began = time.perf_counter()
    try:
        with patch.object(Single, "train", stop):
            train(config.replace({"epochs": 3}), dataset=dataset, resume=True, console=Console(quiet=True))
    except Loaded:
        found["load_seconds"] = time.perf_counter() - began
    finally:
        ended.set()
        thread.join()
    return found | {"tables": (peak[0] - before) / (4 * samples * classes)}


def private_bytes() -> int:
    """Memory of this process that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def main(words: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=300_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--folder", help="where the run lies, on the disk to be measured; a temporary one by default")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--part", choices=("train", "resume"), help="run only this, in this process")
    options = parser.parse_args(words)
    if options.part:
        found = run(options.folder, options.samples, options.classes, resume=options.part == "resume")
        print(json.dumps(found))
        return found
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for part in ("train", "resume"):
            words = ["--part", part, "--folder", f"{folder}/run"]
            words += ["--samples", str(options.samples), "--classes", str(options.classes)]
            done = subprocess.run(
                [sys.executable, "-m", f"{__package__}.checkpoints", *words],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            figures |= json.loads(done.stdout.splitlines()[-1])
    for name, value in figures.items():
        print(f"{name}: {value:.4g}")
    sizes = {"samples": str(options.samples), "classes": str(options.classes)}
    row = {**sizes, **{name: f"{value:.4g}" for name, value in figures.items()}, **record.stamp()}
    record.append(options.output, [row], key=(*sizes, "machine"))
    return figures


if __name__ == "__main__":
    main()
