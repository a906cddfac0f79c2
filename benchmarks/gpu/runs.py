"""Whole runs by the command line's own entry, on CIFAR-10 where it is laid and on generated images in its form elsewhere.
"""

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

from .worker import Bench

FOLDER = "cifar-10-batches-py"
MARGIN = 15.0
"""Seconds before a step's limit in which a run is told to end, saves its state and is measured."""


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
        data = (random.integers(0, 128, (per_file, 3072)) + 12 * labels[:, None]).astype(np.uint8)
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


def _run(bench: Bench, key: str, words: Sequence[str], epochs: int) -> None:
    """Train by the command line and keep what each epoch brings; a run that the limit ends counts so far."""
    with cifar10(bench) as (root, source), tempfile.TemporaryDirectory() as parent:
        run = Path(parent) / "run"
        command = ["train", *words, "--data-root", str(root), "--run-dir", str(run)]
        bench.say(f"fastnoise {' '.join(command)}")
        bench.say(f"  {source}")
        ended = threading.Event()
        start = time.perf_counter()

        def note() -> None:
            history = _history(run)
            if not history:
                return
            epoch, seconds = history[-1], time.perf_counter() - start
            inside = [each["seconds"] for each in history]
            details = {"command": "fastnoise " + " ".join(words), "source": source, "of": epochs}
            bench.value(f"{key}/epochs", epoch["epoch"], "epochs", "higher", **details)
            bench.value(f"{key}/minutes", seconds / 60, "min", epochs=epoch["epoch"], **details)
            bench.value(f"{key}/epoch", statistics.median(inside[1:] or inside), "s", **details)
            bench.value(f"{key}/outside-epochs", max(0.0, 1 - sum(inside) / seconds), "share", **details)
            bench.value(f"{key}/images", statistics.median(each["images_per_second"] for each in history[1:] or history),
                        "images/s", "higher", **details)  # fmt: skip
            bench.value(f"{key}/accuracy", epoch["test_accuracy"], "share", "higher", epochs=epoch["epoch"], **details)
            shutil.copy(run / "metrics.jsonl", bench.folder / f"{key.replace('/', '-')}.jsonl.txt")

        def watch() -> None:
            stopping = False
            while not ended.wait(5):
                note()
                if bench.left() < MARGIN and not stopping:
                    stopping = True
                    os.kill(os.getpid(), signal.SIGTERM)  # the run saves its state and comes back

        watcher = threading.Thread(target=watch, daemon=True)
        # Outside of training a SIGTERM would end this process.
        before = signal.signal(signal.SIGTERM, lambda *_: bench.say("  told to end outside of training"))
        watcher.start()
        try:
            code = fastnoise(command)
        finally:
            ended.set()
            watcher.join()
            signal.signal(signal.SIGTERM, before)
        note()
        done = len(_history(run))
        if code not in (0, 128 + signal.SIGTERM) or not done:
            raise RuntimeError(f"fastnoise train ended with exit code {code} after {done} epochs")


def three_epochs(bench: Bench) -> None:
    """The product as its users start it: three epochs."""
    words = ["--method", "elr", "--dataset", "cifar10", "--noise", "symmetric:0.4", "--epochs", "3"]
    if not bench.on_gpu:
        words += ["--model", "small_cnn", "--width", "0.25", "--batch-size", "32"]
    key = "run/three-epochs"
    bench.attempt(key, lambda: _run(bench, key, words, 3))


WHOLE_RUNS: dict[str, tuple[int, tuple[str, ...]]] = {
    "elr_resnet34": (150, ("--method", "elr", "--noise", "symmetric:0.4,true_class=included")),
    "elr_resnet18_fast": (
        50,
        ("--method", "elr", "--noise", "symmetric:0.4,true_class=included", "--model", "resnet18", "--batch-size", "512",
         "--learning-rate", "0.1", "--weight-decay", "5e-4", "--schedule", "cosine",
         "--optimizer", "sgd:momentum=0.9,nesterov"),
    ),
    "ce_resnet18_fast": (
        50,
        ("--method", "ce", "--noise", "symmetric:0.4,true_class=included", "--model", "resnet18", "--batch-size", "512",
         "--learning-rate", "0.1", "--weight-decay", "5e-4", "--schedule", "cosine",
         "--optimizer", "sgd:momentum=0.9,nesterov"),
    ),
}  # fmt: skip
"""Step -> epochs and flags of a whole run on CIFAR-10. A step in programmes.py names it."""


def _whole(name: str, epochs: int, words: Sequence[str]) -> Callable[[Bench], None]:
    def measure(bench: Bench) -> None:
        given = ["--dataset", "cifar10", *words, "--epochs", str(epochs if bench.on_gpu else 2)]
        if not bench.on_gpu:
            for flag in ("--model", "--batch-size"):
                if flag in given:
                    del given[given.index(flag) : given.index(flag) + 2]
            given += ["--model", "small_cnn", "--width", "0.25", "--batch-size", "32"]
        key = f"run/{name}"
        bench.attempt(key, lambda: _run(bench, key, given, epochs if bench.on_gpu else 2))

    return measure


WHOLE = {name: _whole(name, epochs, words) for name, (epochs, words) in WHOLE_RUNS.items()}
