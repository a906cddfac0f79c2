"""Early stopping: when a run ends, what it leaves, and that a resumed one ends alike."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _train_cases import Killed, assert_same_end, history, noted, refusal

import fastnoise
from fastnoise.cli import main
from fastnoise.config import RunConfig
from fastnoise.engine.stopping import EarlyStop
from fastnoise.recipes import recipe
from fastnoise.tasks.classification import Classification
from fastnoise.tasks.names import SCORES

QUICK: dict[str, Any] = {"epochs": 6, "width": 0.25, "limit_train": 100, "batch_size": 32, "val_fraction": 0.2}
WORDS = [word for name, value in QUICK.items() for word in ("--" + name.replace("_", "-"), str(value))]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Validation accuracies of the epochs, in place of those that are measured: they are taken from the front."""
    given = [0.3, 0.5, 0.4, 0.5, 0.6, 0.1]
    monkeypatch.setattr(Classification, "validation_figures", lambda *_: {"accuracy": given.pop(0)})
    return given


def config_of(method: str = "ce", **changes: Any) -> RunConfig:
    return recipe(method, "digits").replace(QUICK | {"patience": 2, "device": "cpu"} | changes)


def lines(values: list[float]) -> list[dict[str, Any]]:
    return [{"epoch": number, "validation_accuracy": value} for number, value in enumerate(values, 1)]


def test_patience_counts_epochs_without_a_better_score() -> None:
    stop = EarlyStop(config_of(), SCORES["classification"], 1)
    values = [0.3, 0.5, 0.4, 0.5]  # as good is not better
    assert [stop.reached(lines(values[:done])) for done in range(5)] == [False, False, False, False, True]
    assert not stop.reached(lines([0.1, 0.2, 0.3, 0.4]))
    never = EarlyStop(config_of(patience=0), SCORES["classification"], 1)
    assert not never.reached(lines([0.5, 0.1, 0.1, 0.1]))
    of_last_round = EarlyStop(config_of(), SCORES["classification"], 4)  # whose first round was better
    ends = [of_last_round.reached(lines([0.9, 0.9, 0.9, 0.1, 0.2, 0.2, 0.2][:done])) for done in range(3, 8)]
    assert ends == [False, False, False, False, True]
    lower = SCORES["regression"]
    errors = [{"epoch": number, f"validation_{lower.name}": value} for number, value in enumerate([9, 3, 4, 3.5], 1)]
    assert not lower.higher
    assert EarlyStop(config_of(), lower, 1).reached(errors)


def test_a_run_ends_early_and_properly(scores: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--method", "elr", *WORDS, "--patience", "2", "--run-dir", "run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "stopped after epoch 4 of 6: no better validation accuracy than 50.00 % in epoch 2 for 2 epochs" in said
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["epochs"] == len(history(Path("run"))) == 4
    assert summary["stopped_early"] == {"epoch": 4, "epochs": 6, "patience": 2, "best_epoch": 2}
    assert summary["validation_accuracy"]["best_epoch"] == 2
    for name in ("model.safetensors", "model-best.safetensors", "corrected.csv"):
        assert Path("run", name).is_file()
    rates = [line["learning_rate"] for line in history(Path("run"))]
    assert rates == pytest.approx([rates[0] * (1 + math.cos(math.pi * done / 6)) / 2 for done in range(4)])
    assert main(["report", "run", "--out", "run.html"]) == 0
    page = Path("run.html").read_text()
    assert "4 of 6" in page
    assert "has not ended" not in page
    assert main(["train", "--resume", "run"]) == 0
    assert "resumed: the run is complete" in capsys.readouterr().out
    assert len(history(Path("run"))) == 4


def test_a_run_killed_before_its_early_end_ends_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.3, 0.5, 0.4, 0.4, *[0.3, 0.5, 0.4], 0.4])
    monkeypatch.setattr(Classification, "validation_figures", lambda *_: {"accuracy": next(values)})
    fastnoise.train(config_of("nal", run_dir="whole", save_every=1))
    cut = config_of("nal", run_dir="cut", save_every=1)
    with monkeypatch.context() as patch:
        noted(patch, kill_at=(4, 0))  # after the third epoch
        with pytest.raises(Killed):
            fastnoise.train(cut)
    fastnoise.train(cut, resume=True)
    assert_same_end(Path("whole"), Path("cut"))
    assert len(history(Path("cut"))) == 4
    with monkeypatch.context() as patch:  # killed between the last checkpoint and the summary: nothing is trained
        patch.setattr("fastnoise.engine.step.Step.train", lambda *_: pytest.fail("a step after the end"))
        Path("cut/summary.json").unlink()
        assert fastnoise.train(cut, resume=True)["stopped_early"]["epoch"] == 4


def test_more_patience_lets_it_go_on(scores: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    fastnoise.train(config_of(run_dir="run"))
    assert "the run has patience 2, not 1" in refusal(capsys, "--resume", "run", "--patience", "1")
    assert main(["train", "--resume", "run", "--patience", "3"]) == 0
    assert [line["validation_accuracy"] for line in history(Path("run"))] == [0.3, 0.5, 0.4, 0.5, 0.6, 0.1]
    assert "stopped_early" not in json.loads(Path("run/summary.json").read_text())
    straight = iter([0.3, 0.5, 0.4, 0.5, 0.6, 0.1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classification, "validation_figures", lambda *_: {"accuracy": next(straight)})
        fastnoise.train(config_of(run_dir="straight", patience=3))
    assert_same_end(Path("run"), Path("straight"))


def test_what_cannot_stop_early_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--limit-train", "100", "--patience", "2")
    assert "--patience 2 needs a validation set: give --val-fraction 0.1" in refusal(capsys, *words)
    assert "method swce goes through phases of set lengths" in refusal(capsys, *words, "--method", "swce")
    assert not Path("runs").exists()


def test_values_stop_by_their_error() -> None:
    config = recipe("plain", "rotated:of=digits").replace(
        {"epochs": 40, "width": 0.25, "limit_train": 60, "val_fraction": 0.3, "patience": 1, "learning_rate": 0.1}
    )
    summary = fastnoise.train(config)
    errors = [line["validation_mse"] for line in history(Path(summary["run_dir"]))]
    assert summary["epochs"] == len(errors) < 40
    assert int(np.argmin(errors)) == len(errors) - 2
    assert torch.isfinite(torch.tensor(errors)).all()
