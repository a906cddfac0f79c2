"""What goes wrong around a run: full disks, Ctrl-C at the start, data that has changed, too little memory."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _train_cases import assert_same_end, refusal
from PIL import Image

from fastnoise import checks
from fastnoise.cli import main
from fastnoise.losses import tables

QUICK = ("--dataset", "digits", "--limit-train", "100", "--epochs", "3", "--width", "0.25", "--save-every", "1")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# -- disks ---------------------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_at_a_checkpoint_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second checkpoint fails half-way. What is there is whole, and the run ends as an undisturbed one."""
    words = ("--method", "elr", *QUICK)
    assert main(["train", *words, "--run-dir", "whole"]) == 0
    save, calls = torch.save, [0]

    def full(state: Any, stream: Any) -> None:
        calls[0] += 1
        if calls[0] == 2:
            stream.write(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(state, stream)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        line = refusal(capsys, *words, "--run-dir", "cut")
    assert "checkpoint.pt: No space left on device; the earlier file is untouched; free space" in line
    assert not list(Path("cut").glob("*.partial"))
    assert torch.load("cut/checkpoint.pt", weights_only=True)["epoch"] == 2
    assert main(["train", "--resume", "cut"]) == 0
    assert_same_end(Path("whole"), Path("cut"))


def test_a_disk_that_is_full_at_the_line_of_an_epoch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Any, mode: str = "r", **options: Any) -> Any:
        if str(path).endswith("metrics.jsonl") and mode == "a":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return open(path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr("fastnoise.engine.folder.open", full, raising=False)
        line = refusal(capsys, *QUICK, "--run-dir", "run")
    assert "metrics.jsonl: No space left on device; free space, then --resume run" in line
    assert main(["train", "--resume", "run"]) == 0


# -- Ctrl-C at the start ---------------------------------------------------------------------------------------------

SLOW = """
import time
print("importing", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    {raised}
"""


@pytest.mark.parametrize("raised", ["raise", "raise ImportError('a library in pieces') from None"])
def test_ctrl_c_while_torch_is_imported(raised: str) -> None:
    """A package in place of torch waits in its import; some libraries turn the interrupt into an error of their own."""
    Path("torch").mkdir()
    Path("torch/__init__.py").write_text(SLOW.format(raised=raised))
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from fastnoise.cli import main; sys.exit(main(['train']))"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said == "fastnoise: interrupted\n"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for what is loaded")
def test_ctrl_c_in_the_middle_of_torchs_own_import() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fastnoise.cli", "train", *QUICK],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    maps = Path(f"/proc/{process.pid}/maps")
    deadline = time.monotonic() + 60
    while "libtorch" not in maps.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said == "fastnoise: interrupted\n"
    assert not Path("runs").exists()


# -- data that has changed -------------------------------------------------------------------------------------------


def photos(folder: str, count: int = 12) -> None:
    for label in ("cat", "dog"):
        Path(folder, label).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{folder}/{label}/{number}.png")


FOLDER = (
    "--dataset",
    "folder:photos",
    "--image-size",
    "16",
    "--model",
    "small_cnn",
    "--epochs",
    "2",
    "--loader",
    "torch",
)


def test_a_changed_folder_is_refused_and_the_same_elsewhere_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    photos("photos")
    assert main(["train", "--method", "elr", *FOLDER, "--run-dir", "run"]) == 0
    wrong = "its list of images, classes or labels has changed; restore it, or start a new run"
    Path("photos/cat/0.png").rename("photos/dog/cat.png")  # the label of one image
    assert wrong in refusal(capsys, "--resume", "run", "--epochs", "3")
    Path("photos/dog/cat.png").rename("photos/cat/0.png")
    Path("photos/dog/11.png").rename("photos/dog/12.png")
    assert wrong in refusal(capsys, "--resume", "run", "--epochs", "3")
    Path("photos/dog/12.png").unlink()
    assert wrong in refusal(capsys, "--resume", "run", "--epochs", "3")
    photos("elsewhere")
    assert main(["train", "--resume", "run", "--epochs", "3", "--dataset", "folder:elsewhere"]) == 0


# -- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("elr", "the targets of 100 samples and 10 classes take 4.0 kB as float32, and cpu has 1.0 kB free"),
        ("elr_plus", "the targets of 100 samples and 10 classes"),
        ("plc", "plc: the predictions of 5 epochs: this takes"),
    ],
)
def test_tables_that_do_not_fit_into_memory_are_refused(
    method: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checks, "_UNASKED", 0)
    monkeypatch.setattr(checks, "free_memory", lambda device=None: 10_000)
    monkeypatch.setattr(tables, "free_memory", lambda device=None: 1000)
    line = refusal(capsys, *QUICK, "--noise", "none", "--method", method)
    assert message in line
    assert not Path("runs").exists()
