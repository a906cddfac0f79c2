"""Every method on real images through the command line, killed for good at a random moment and resumed."""

import hashlib
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from _forked import Forked
from _train_cases import assert_same_end
from conftest import SHARED
from test_methods import CLASSIFIERS, EPOCHS

SUBSETS = {
    "cifar10": ["--limit-train", "256", "--batch-size", "64", "--model", "resnet18", "--width", "0.125"],
    "mnist": ["--limit-train", "512", "--batch-size", "64"],
}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (SHARED / "data" / "unpack.py").exists():
        pytest.skip("the official files are not here")
    root = tmp_path_factory.mktemp("data")
    subprocess.run(
        [sys.executable, SHARED / "data" / "unpack.py", root, "mnist", "cifar10"], check=True, capture_output=True
    )
    return root


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

    def finish(words: list[str]) -> float:
        began = time.perf_counter()
        process = Forked(*words)
        said = process.communicate()
        assert process.returncode == 0, said
        return time.perf_counter() - began

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    duration = finish([*words, "--run-dir", "whole"])
    moment = random.Random(int(hashlib.sha256(f"{method}-{dataset}".encode()).hexdigest(), 16))
    again = [*words, "--run-dir", "killed"]
    kills = 0
    while kills < 2:
        process = Forked(*again)
        if process.wait(duration * moment.uniform(0.2, 0.7)) is not None:  # it was faster than the first
            if kills:
                break
            shutil.rmtree("killed")
            duration /= 2
            continue
        process.kill()
        process.communicate()
        kills += 1
        if (tmp_path / "killed" / "config.toml").exists():
            again = ["train", "--resume", "killed"]
    if not (tmp_path / "killed" / "summary.json").exists():
        finish(again)
    assert_same_end(tmp_path / "whole", tmp_path / "killed")
