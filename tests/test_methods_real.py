"""Every method on real images through the command line, killed for good at a random moment and resumed."""

import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from _train_cases import assert_same_end
from conftest import SHARED
from test_methods import CLASSIFIERS, EPOCHS

from fastnoise.cli import main

SUBSETS = {
    "cifar10": ["--limit-train", "256", "--batch-size", "64", "--model", "resnet18", "--width", "0.125"],
    "mnist": ["--limit-train", "512", "--batch-size", "64"],
}

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["fastnoise.cli", "fastnoise.engine"])


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (SHARED / "data" / "unpack.py").exists():
        pytest.skip("the official files are not here")
    root = tmp_path_factory.mktemp("data")
    subprocess.run(
        [sys.executable, SHARED / "data" / "unpack.py", root, "mnist", "cifar10"], check=True, capture_output=True
    )
    return root


def command(words: list[str], log: str) -> None:
    """What a process of its own runs: the command line, its output in a file."""
    os.environ["OMP_NUM_THREADS"] = "1"
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.exit(main(words))


@pytest.mark.slow
@pytest.mark.parametrize("dataset", SUBSETS)
@pytest.mark.parametrize("method", CLASSIFIERS)
def test_trains_on_real_images_and_survives_kill_9(
    method: str, dataset: str, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--dataset", dataset, *SUBSETS[dataset], "--data-root", str(data_root)]
    options += ["--noise", "symmetric:0.4", "--val-fraction", "0", *EPOCHS.get(method, ["--epochs", "3"])]
    words = ["train", "--method", method, *options]

    def finish(words: list[str], log: str) -> float:
        began = time.perf_counter()
        process = PROCESSES.Process(target=command, args=(words, log))
        process.start()
        process.join()
        assert process.exitcode == 0, Path(log).read_text()
        return time.perf_counter() - began

    duration = finish([*words, "--run-dir", "whole"], "whole.log")
    moment = random.Random(int(hashlib.sha256(f"{method}-{dataset}".encode()).hexdigest(), 16))
    again = [*words, "--run-dir", "killed"]
    kills = 0
    while kills < 2:
        process = PROCESSES.Process(target=command, args=(again, "killed.log"))
        process.start()
        process.join(duration * moment.uniform(0.2, 0.7))
        if process.exitcode is not None:  # it was faster than the first
            if kills:
                break
            shutil.rmtree("killed")
            duration /= 2
            continue
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        kills += 1
        if (tmp_path / "killed" / "config.toml").exists():
            again = ["train", "--resume", "killed"]
    if not (tmp_path / "killed" / "summary.json").exists():
        finish(again, "killed.log")
    assert_same_end(tmp_path / "whole", tmp_path / "killed")
