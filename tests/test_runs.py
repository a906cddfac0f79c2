"""Runs that are made longer, moved, damaged, shared or left without anyone who reads their output."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _train_cases import history, refusal, state

from fastnoise.cli import main
from fastnoise.engine import RunFolder
from fastnoise.errors import CheckpointError

QUICK = ("--dataset", "digits", "--limit-train", "65", "--epochs", "2", "--width", "0.25", "--loader", "torch")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run() -> Path:
    assert main(["train", *QUICK, "--method", "elr", "--run-dir", "run[/b]"]) == 0
    return Path("run[/b]")


def test_a_run_goes_on_longer(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(run), "--epochs", "4"]) == 0
    assert "the learning rate follows the cosine of 4 epochs from epoch 3 on" in capsys.readouterr().out
    rates = [line["learning_rate"] for line in history(run)]
    base = rates[0]
    course = [base, base / 2, *(base * (1 + np.cos(np.pi * done / 4)) / 2 for done in (2, 3))]
    assert rates == pytest.approx(course)
    assert "the run has epochs 4, not 3" in refusal(capsys, "--resume", str(run), "--epochs", "3")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", "1"), ("batch", None), ("history", "x"), ("history", []), ("first_step_seconds", "x"),
        ("networks", {1: 2}), ("labels", torch.zeros(())), ("schedule", {"last_epoch": "x"}), ("rng_cpu", 3),
    ],
)  # fmt: skip
def test_stored_values_of_other_types_are_one_line(
    run: Path, key: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({**state(run), key: value}, run / "checkpoint.pt")
    assert "checkpoint" in refusal(capsys, "--resume", str(run))


def test_a_changed_bit_and_a_second_writer_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(run)
    folder.lock()
    assert "another process trains this run" in refusal(capsys, "--resume", str(run))
    folder.release()
    content = bytearray((run / "checkpoint.pt").read_bytes())
    weights = next(iter(state(run)["networks"].values())).numpy().tobytes()
    content[content.index(weights)] ^= 1
    (run / "checkpoint.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"the checksum of .* is wrong"):
        folder.read_checkpoint(torch.device("cpu"))


def test_names_that_the_system_refuses_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "File name too long" in refusal(capsys, *QUICK, "--run-dir", "n" * 300)
    assert "not UTF-8" in refusal(capsys, *QUICK, "--run-dir", os.fsdecode(b"r\xff"))
    assert "must fit into 64 bits" in refusal(capsys, "--method", "elr_plus", "--average-ramp", "1" + "0" * 21)
    assert "--crop-padding must lie in [0, 4096]" in refusal(capsys, "--crop-padding", "100000")


def test_a_last_batch_of_one_is_refused_where_batch_norm_cannot_take_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*QUICK, "--model", "resnet18", "--batch-size", "16"]
    assert "leaves a last batch of 1 of 65 images" in refusal(capsys, *words)
    assert not Path("runs").exists()
