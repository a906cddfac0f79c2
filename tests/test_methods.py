"""Every method: trains from the command line, compiles its step whole, survives a kill; a user's own method too."""

import inspect
import json
import os
import signal
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from _train_cases import assert_same_end, history, refusal

import fastnoise.methods
from fastnoise.cli import main
from fastnoise.engine.step import Step
from fastnoise.errors import ConfigError
from fastnoise.methods import METHODS, find_method
from fastnoise.tasks import TASKS

CLASSIFIERS = [
    name for name, method in METHODS.items() if name != "simclr" and "classification" in (method.tasks or TASKS)
]
SHORT = ["--dataset", "digits", "--limit-train", "150", "--width", "0.25", "--batch-size", "32", "--loader", "torch"]
EPOCHS = {
    "swce": ["--epochs", "6", "--warm-up", "2", "--stages", "1,2;1,2", "--rate-factors", "1,1,1"],
    "dividemix": ["--epochs", "3", "--warm-up", "1"],
    "promix": ["--epochs", "4", "--warm-up", "1", "--guess-from", "3"],
    "pes": ["--epochs", "5", "--warm-up", "1", "--stage-epochs", "1", "--head-epochs", "1"],
    "pes_semi": ["--epochs", "4", "--warm-up", "1", "--head-epochs", "1"],
    "augdesc": ["--epochs", "3", "--warm-up", "1"],
    "disc": ["--epochs", "3", "--warm-up", "1"],
    "cores": ["--epochs", "4", "--ramp-from", "1", "--ramp-to", "3", "--sieve-from", "2"],
    "c2d": ["--epochs", "4", "--pretrain-epochs", "1", "--warm-up", "1"],
    "swce_dividemix": [
        *("--epochs", "4", "--pipeline-warm-up", "1", "--stages", "1", "--rate-factors", "1,1", "--warm-up", "1"),
    ],
    "plc": ["--epochs", "4", "--warm-up", "1"],
    "selc_plus": ["--epochs", "4", "--update-from", "2"],
    "selc": ["--epochs", "4", "--update-from", "2"],
}
"""Methods that train in several stages: as few epochs as reach the last one."""


def words(method: str) -> list[str]:
    # "auto" would also save inside an epoch if its steps are slow.
    return [*SHORT, "--save-every", "1", "--method", method, *EPOCHS.get(method, ["--epochs", "3"])]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Killed(BaseException):
    """Stands for a kill: nothing of the run's own catches it."""


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int, how: Any) -> None:
    """Have `how` called before the training step `number`, counted from 1."""
    steps, train = [0], Step.train

    def counting(self: Step, images: torch.Tensor, index: torch.Tensor) -> Any:
        steps[0] += 1
        if steps[0] == number:
            how()
        return train(self, images, index)

    monkeypatch.setattr(Step, "train", counting)


def kill() -> None:
    raise Killed


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("method", CLASSIFIERS)
def test_killed_and_interrupted_runs_end_as_undisturbed_ones(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main(["train", *words(method), "--run-dir", "undisturbed"]) == 0
    with monkeypatch.context() as patch:  # in the second epoch: the first one's checkpoint is what is left
        stop_at(patch, 8, kill)
        with pytest.raises(Killed):
            main(["train", *words(method), "--run-dir", "disturbed"])
    with monkeypatch.context() as patch:  # inside the epoch before the last, or the last: saved there
        stop_at(patch, 8, interrupt)
        assert main(["train", "--resume", "disturbed"]) != 0
    assert len(history(tmp_path / "disturbed")) < len(history(tmp_path / "undisturbed"))
    assert main(["train", "--resume", "disturbed"]) == 0
    assert_same_end(tmp_path / "disturbed", tmp_path / "undisturbed")
    summary = json.loads((tmp_path / "undisturbed" / "summary.json").read_text())
    assert 0 <= summary["test_accuracy"]["last"] <= 1
    assert 0 <= summary["test_macro_f1"]["last"] <= 1
    assert summary["test_top5"]["last"] >= summary["test_accuracy"]["last"]


@pytest.fixture
def own_method(tmp_path: Path) -> str:
    """The documented example, as a file; what names it on the command line."""
    text = inspect.getdoc(fastnoise.methods) or ""
    code = text.split("otherwise:\n")[1].split("\nSave it as")[0]
    (tmp_path / "self_training.py").write_text(textwrap.dedent(code))
    assert "--method self_training.py:SelfTraining --threshold 0.5" in text
    return "self_training.py:SelfTraining"


def test_the_documented_method_of_ones_own_trains_and_resumes(
    own_method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*SHORT, "--epochs", "3", "--method", own_method]
    assert main(["train", *options, "--threshold", "0.05", "--run-dir", "own"]) == 0
    assert main(["train", *options, "--threshold", "1.0", "--run-dir", "never"]) == 0
    assert main(["train", *SHORT, "--epochs", "3", "--method", "ce", "--run-dir", "ce"]) == 0
    losses = {name: [line["train_loss"] for line in history(tmp_path / name)] for name in ("own", "never", "ce")}
    assert losses["never"] == losses["ce"]  # above every difference of probabilities: plain cross-entropy
    assert losses["own"] != losses["ce"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["train", "--resume", str(tmp_path / "own")]) == 2  # a run folder may come from someone else
    words = ["--method", str(tmp_path / own_method), "--resume", str(tmp_path / "own")]
    assert f"add --method {tmp_path / own_method}" in capsys.readouterr().err
    assert main(["train", *words]) == 0


def test_a_file_without_the_method_is_refused(
    own_method: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "there is no file" in refusal(capsys, *SHORT, "--method", "missing.py:Method")
    assert "it has: SelfTraining" in refusal(capsys, *SHORT, "--method", "self_training.py:Other")
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    assert "fails with ModuleNotFoundError" in refusal(capsys, *SHORT, "--method", "broken.py:Method")
    told = refusal(capsys, *SHORT, "--method", own_method, "--threshold", "2")
    assert "--threshold must lie in [0, 1], not 2.0" in told
    with pytest.raises(ConfigError, match=r"FILE\.py:CLASS"):
        find_method("nothing")
