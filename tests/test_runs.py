"""Runs that are made longer, moved, damaged, shared or left without anyone who reads their output."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _train_cases import history, refusal, state

import fastnoise
from fastnoise import ImageDataset
from fastnoise.cli import main
from fastnoise.data.digits import load_digits
from fastnoise.engine import RunFolder
from fastnoise.engine.stacked import train_stacked
from fastnoise.engine.step import Step
from fastnoise.errors import CheckpointError, ConfigError
from fastnoise.methods import METHODS
from fastnoise.recipes import recipe

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
    partial = run / "checkpoint.pt.partial"
    partial.write_bytes(b"half a checkpo")  # which the first one is writing
    assert "another process trains this run" in refusal(capsys, "--resume", str(run))
    with pytest.raises(CheckpointError, match="another process trains this run"):
        train_stacked([folder.read_config().replace({"epochs": 3})])
    assert partial.exists()
    folder.release()
    folder.lock()
    assert not partial.exists()
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


def few(count: int) -> ImageDataset:
    """The first digits."""
    table = load_digits("digits", None, False).train
    assert table.images is not None
    images, labels = table.images, table.labels
    others = {"test_images": images[-20:], "test_labels": labels[-20:]}
    return ImageDataset.from_arrays(images[:count], labels[:count], **others, name="few")


SINGLE: dict[str, tuple[int, dict[str, Any]]] = {
    "dividemix": (41, {"warm_up": 2, "epochs": 3}),
    "swce": (43, {"warm_up": 1, "stages": "1;1", "rate_factors": "1,1,1", "selection_threshold": 100.0, "epochs": 3}),
    "swce by batches": (65, {"warm_up": 1, "stages": "1", "rate_factors": "1,1", "epochs": 2, "drop_last": True}),
    "coteaching": (34, {"epochs": 2}),
    "elr_plus": (34, {"epochs": 1}),
}
"""Samples and settings with which epochs that a method orders, or scans, would end in one image for a network: twice 41
in batches of 16 leave 2 for two networks, and 43 samples with two copies of each leave 1."""


@pytest.mark.parametrize("name", SINGLE)
def test_no_epoch_that_a_method_orders_ends_in_a_batch_of_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    count, changes = SINGLE[name]
    method = name.split()[0]
    if method == "swce":
        changes = changes | {"agreement": "ignored"}
    if name == "swce by batches":
        changes = changes | {"stage_statistics": "batch"}
    sizes: list[int] = []
    train_step = Step.train
    monkeypatch.setattr(
        Step, "train", lambda self, images, index: (sizes.append(len(index)), train_step(self, images, index))[1]
    )
    settings = {
        "batch_size": 16,
        "model": "resnet18",
        "width": 0.125,
        "crop_padding": 0,
        "flip": False,
        "device": "cpu",
    }
    config = recipe(method, "few").replace(settings | changes)
    summary = fastnoise.train(config, dataset=few(count))
    assert summary["epochs"] == config.optim.epochs
    assert min(sizes) >= (4 if name == "dividemix" else 2)


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.whole_batches or not kind.shares])
def test_a_last_batch_of_one_is_refused_for_every_method_in_the_loaders_order(name: str) -> None:
    settings = {"batch_size": 16, "model": "resnet18", "width": 0.125, "device": "cpu"}
    config = recipe(name, "few").replace(settings)
    with pytest.raises(ConfigError, match="leaves a last batch of 1 of 33 images"):
        fastnoise.train(config, dataset=few(33))
