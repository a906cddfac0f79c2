"""Whole runs by the command line's own entry: on CIFAR-10 where it is laid, else on generated images in its form."""

import hashlib
import json
import os
import pickle
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastnoise.cli import main as fastnoise

from .bench import Bench

FOLDER = "cifar-10-batches-py"
EVERY = 10.0
"""Seconds at least between two looks at what a run has reached."""

MARGIN = 15.0
"""Seconds before a step's limit, or a fifth of a short one, in which a run is told to end and saves its state."""


@contextmanager
def cifar10(bench: Bench) -> Iterator[tuple[Path, str]]:
    """A data root that holds CIFAR-10, and in words which: that under --data, or generated images.

    For the latter torchvision's table of checksums, which fastnoise goes by, gets those of the generated files.
    """
    if (bench.data / FOLDER).is_dir():
        yield bench.data.absolute(), "the images of CIFAR-10"
        return
    from torchvision.datasets import CIFAR10

    official = CIFAR10.train_list, CIFAR10.test_list, CIFAR10.meta
    with tempfile.TemporaryDirectory() as root:
        sums = write_cifar10(Path(root), 10_000 if bench.on_gpu else 40)
        CIFAR10.train_list = [[name, sums[name]] for name, _ in official[0]]
        CIFAR10.test_list = [[name, sums[name]] for name, _ in official[1]]
        CIFAR10.meta = {**official[2], "md5": sums[official[2]["filename"]]}
        try:
            yield Path(root), "generated images in CIFAR-10's form: accuracies mean nothing"
        finally:
            CIFAR10.train_list, CIFAR10.test_list, CIFAR10.meta = official


def write_cifar10(root: Path, per_file: int) -> dict[str, str]:
    """Write generated images as CIFAR-10's pickles hold them; returns the MD5 sum of each file."""
    random, sums = np.random.default_rng(0), {}
    (root / FOLDER).mkdir()
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for name in names:
        labels = random.integers(0, 10, per_file)
        # A shade per class, so that there is something to learn.
        data = random.integers(0, 128, (per_file, 3072), dtype=np.uint8) + 12 * labels[:, None].astype(np.uint8)
        sums[name] = _pickle(root / FOLDER / name, {"data": data, "labels": labels.tolist()})
    words = {"label_names": [f"class{number}" for number in range(10)]}
    return {**sums, "batches.meta": _pickle(root / FOLDER / "batches.meta", words)}


def _pickle(path: Path, content: dict[str, Any]) -> str:
    # Protocol 3 and NumPy 1's name: the official files name no other globals, and none other are let in.
    text = pickle.dumps(content, protocol=3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    path.write_bytes(text)
    return hashlib.md5(text, usedforsecurity=False).hexdigest()


def _history(run: Path) -> list[dict[str, Any]]:
    """The epochs so far; the last line may be half there while the run goes on."""
    found = []
    path = run / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return [epoch for epoch in found if epoch.get("epoch", 0) > 0]


def _run(bench: Bench, key: str, words: Sequence[str], epochs: int) -> str:
    """Train by the command line and keep what each epoch brings. A run that comes too near to the step's limit is told
    to end; returns a word on that."""
    details: dict[str, Any] = {"command": "fastnoise train " + " ".join(words), "of": epochs}
    with cifar10(bench) as (root, details["source"]), tempfile.TemporaryDirectory() as parent:
        run = Path(parent) / "run"
        command = ["train", *words, "--data-root", str(root), "--run-dir", str(run)]
        bench.say(f"fastnoise {' '.join(command)}\n  {details['source']}")
        start, over = time.perf_counter(), threading.Event()

        def note(history: list[dict[str, Any]]) -> None:
            seconds, inside = time.perf_counter() - start, [each["seconds"] for each in history]
            later = history[1:] or history  # the first epoch compiles and fills caches
            done: dict[str, Any] = {"epochs": len(history), **details}
            bench.value(f"{key}/minutes", seconds / 60, "min", **done)
            bench.value(f"{key}/epoch", statistics.median(each["seconds"] for each in later), "s", **done)
            bench.value(f"{key}/outside-steps", max(0.0, 1 - sum(inside) / seconds), "share", **done)
            images = statistics.median(each["images_per_second"] for each in later)
            bench.value(f"{key}/images", images, "images/s", "higher", **done)
            bench.value(f"{key}/accuracy", history[-1]["test_accuracy"], "share", "higher", **done)
            shutil.copy(run / "metrics.jsonl", bench.folder / f"{key.replace('/', '-')}.jsonl.txt")

        def watch() -> None:
            known, last, told = 0, 0.0, False
            while not over.wait(1):
                history = _history(run)
                if len(history) > known and time.perf_counter() > last + EVERY:
                    known, last = len(history), time.perf_counter()
                    note(history)
                if bench.left() < min(MARGIN, bench.limit / 5) and not told:
                    told = True
                    os.kill(os.getpid(), signal.SIGTERM)  # the run saves its state and comes back

        watcher = threading.Thread(target=watch, daemon=True)
        # While it prepares, the run takes no notice of SIGTERM, which would end this process.
        before = signal.signal(signal.SIGTERM, lambda *_: bench.say("  there is no time left for this run"))
        watcher.start()
        try:
            code = fastnoise(command)
        finally:
            over.set()
            watcher.join()
            signal.signal(signal.SIGTERM, before)
        history = _history(run)
        if code not in (0, 128 + signal.SIGTERM) or not history:
            raise RuntimeError(f"fastnoise train ended with exit code {code} after {len(history)} epochs")
        if code == 0:
            note(history)
            return ""
        return f"{len(history)} of {epochs} epochs, then the limit was near"


def three_epochs(bench: Bench) -> str | None:
    """The product as its users start it: three epochs."""
    words = ["--method", "elr", "--dataset", "cifar10", "--noise", "symmetric:0.4", "--epochs", "3"]
    if not bench.on_gpu:
        words += ["--model", "small_cnn", "--width", "0.25", "--batch-size", "32"]
    key = "run/three-epochs"
    return bench.attempt(key, lambda: _run(bench, key, words, 3))


_NOISE = ("--noise", "symmetric:0.4,true_class=included")
_FAST = (
    *("--model", "resnet18", "--batch-size", "512", "--optimizer", "sgd:momentum=0.9,nesterov"),
    *("--learning-rate", "0.1", "--weight-decay", "5e-4", "--schedule", "cosine"),
)

WHOLE_RUNS: dict[str, tuple[int, tuple[str, ...]]] = {
    "elr_resnet34": (150, ("--method", "elr", *_NOISE)),
    "elr_resnet18_fast": (50, ("--method", "elr", *_NOISE, *_FAST)),
    "ce_resnet18_fast": (50, ("--method", "ce", *_NOISE, *_FAST)),
}
"""Step -> epochs and flags of a whole run on CIFAR-10. A step in programmes.py names it."""


def _whole(name: str, epochs: int, words: Sequence[str]) -> Callable[[Bench], str | None]:
    def measure(bench: Bench) -> str | None:
        given = ["--dataset", "cifar10", *words, "--epochs", str(epochs if bench.on_gpu else 2)]
        if not bench.on_gpu:
            for flag in ("--model", "--batch-size"):
                if flag in given:
                    del given[given.index(flag) : given.index(flag) + 2]
            given += ["--model", "small_cnn", "--width", "0.25", "--batch-size", "32"]
        key = f"run/{name}"
        return bench.attempt(key, lambda: _run(bench, key, given, epochs if bench.on_gpu else 2))

    return measure


WHOLE = {name: _whole(name, epochs, words) for name, (epochs, words) in WHOLE_RUNS.items()}
