"""--gradients: how clean and mislabelled samples pull at the network (NAL, Figure 3; ELR, Figure 2)."""

import json
import signal
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastnoise.cli import main
from fastnoise.engine.gradients import gradient_figures
from fastnoise.engine.step import Step
from fastnoise.methods import METHODS, Forward
from fastnoise.methods.options import OPTIONS
from fastnoise.methods.scan import keep
from fastnoise.models import Outputs

SMALL = ("--dataset", "digits", "--model", "small_cnn", "--width", "0.5", "--limit-train", "400", "--device", "cpu")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def scan_of(logits: Tensor, attention: Tensor | None = None) -> Any:
    """A pass in batches of 4 over samples whose outputs are these."""

    def scan(of: Any) -> Any:
        with torch.no_grad():
            parts = torch.arange(len(logits)).split(4)
            weights = [None if attention is None else attention[part].sigmoid() for part in parts]
            outputs = [Outputs(logits[part], weight) for part, weight in zip(parts, weights, strict=True)]
            found = ((part, of([output], part)) for part, output in zip(parts, outputs, strict=True))
            return keep(found, len(logits))

    return scan


def test_figures_are_those_of_the_formulas() -> None:
    """ELR's gradient is p - y + strength * g (Eq. 7 and 8), with the targets as they are; they do not change."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 3, generator=generator)
    given, clean = np.arange(10) % 3, np.array([0, 1, 2, 0, 1, 2, 1, 2, 0, -1])
    method = METHODS["elr"](OPTIONS["elr"](strength=3.0), 10, 3).eval()
    targets = torch.rand(10, 3, generator=generator).softmax(1)
    method.criterion.targets.copy_(targets)
    figures = gradient_figures(method, scan_of(logits), torch.from_numpy(given), given, clean)
    probs = logits.softmax(1).double().numpy()
    rows, known, wrong = np.arange(10), clean >= 0, given != clean
    plain = probs - np.eye(3)[given]
    agreement = (probs * targets.numpy()).sum(1, keepdims=True)
    whole = plain + 3.0 * probs / (1 - agreement) * (agreement - targets.numpy())
    sizes, at = np.linalg.norm(whole, axis=1), np.maximum(clean, 0)
    expected = {}
    for name, group in (("clean", known & ~wrong), ("mislabelled", known & wrong)):
        expected[f"gradient_{name}"] = sizes[group].mean()
        expected[f"pull_{name}"] = whole[rows, at][group].mean()
        expected[f"ce_pull_{name}"] = plain[rows, at][group].mean()
    expected["gradient_share_clean"] = sizes[known & ~wrong].sum() / sizes[known].sum()
    assert figures == pytest.approx(expected, abs=1e-6)
    assert torch.equal(method.criterion.targets, targets)


def test_attention_goes_into_the_loss_as_the_network_gave_it() -> None:
    """NAL with one-hot targets: the gradient is phi (p - y), phi = p_y / (p_y - 1 + 1 / tau)."""
    generator = torch.Generator().manual_seed(1)
    logits, attention = torch.randn(8, 3, generator=generator), torch.randn(8, generator=generator)
    given = np.arange(8) % 3
    method = METHODS["nal"](OPTIONS["nal"](target_estimation="off"), 8, 3).eval()
    labels = torch.from_numpy(given)
    figures = gradient_figures(method, scan_of(logits, attention), labels, given, given)
    probs, weights = logits.softmax(1).double().numpy(), attention.sigmoid().double().numpy()
    p = probs[np.arange(8), given]
    whole = (p / (p - 1 + 1 / weights))[:, None] * (probs - np.eye(3)[given])
    assert figures["gradient_clean"] == pytest.approx(np.linalg.norm(whole, axis=1).mean(), rel=1e-3)
    assert "gradient_mislabelled" not in figures
    assert figures["gradient_share_clean"] == 1


def history(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["elr", "nal", "plc", "selc", "sop"])
def test_a_run_is_the_same_with_and_without(method: str) -> None:
    """The pass leaves targets, tables and random numbers as they were."""
    words = ["train", "--method", method, *SMALL, "--noise", "symmetric:0.4", "--epochs", "3"]
    assert main([*words, "--run-dir", "with", "--gradients"]) == 0
    assert main([*words, "--run-dir", "without"]) == 0
    found, without = history("with"), history("without")
    assert all(0 < epoch["gradient_share_clean"] < 1 for epoch in found)
    assert [epoch["train_loss"] for epoch in found] == [epoch["train_loss"] for epoch in without]
    assert [epoch["test_accuracy"] for epoch in found] == [epoch["test_accuracy"] for epoch in without]
    first, second = (torch.load(f"{folder}/checkpoint.pt", weights_only=False) for folder in ("with", "without"))
    for part in ("networks", "method"):
        assert first[part].keys() == second[part].keys()
        assert all(torch.equal(first[part][name], second[part][name]) for name in first[part])


def test_elr_cancels_what_cross_entropy_has(capsys: pytest.CaptureFixture[str]) -> None:
    """ELR, Figure 2: for wrong labels the regulariser pulls back what cross-entropy pushes away from the true class.
    The report draws it."""
    words = ["train", "--method", "elr", *SMALL, "--noise", "symmetric:0.4", "--epochs", "12", "--run-dir", "elr"]
    assert main([*words, "--gradients", "--strength", "7"]) == 0
    last = history("elr")[-1]
    assert last["ce_pull_mislabelled"] > 0
    assert last["pull_mislabelled"] < 0.5 * last["ce_pull_mislabelled"]
    assert last["pull_clean"] < 0
    assert main(["report", "elr"]) == 0
    page = Path("elr/report.html").read_text()
    assert "Gradients of the loss at the logits over epochs." in page
    assert "Gradient norm over epochs." in page


def test_the_mean_norm_of_an_epoch_goes_on_in_a_resumed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With clipping, which has the norms anyway; the same number as of a run that was not interrupted."""
    words = ["train", "--method", "ce", *SMALL, "--epochs", "2", "--clip-norm", "0.5"]
    assert main([*words, "--run-dir", "whole"]) == 0
    make, steps = Step.train, count()

    def stopped(self: Step, *batch: torch.Tensor) -> Forward:
        result = make(self, *batch)
        if next(steps) == 1:
            signal.raise_signal(signal.SIGINT)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Step, "train", stopped)
        assert main([*words, "--run-dir", "cut"]) == 130
    assert history("cut") == []
    assert main(["train", "--resume", "cut"]) == 0
    norms = [[epoch["gradient_norm"] for epoch in history(folder)] for folder in ("whole", "cut")]
    assert norms[0] == norms[1]
    assert min(norms[0]) > 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--method", "dividemix"), "--gradients is for methods that train by one loss of one network's outputs"),
        (("--method", "mixup"), "and mixup does not; drop it"),
        (("--method", "ce", "--dataset", "folder:photos"), "true labels are known"),
    ],
)
def test_refuses(words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    for name in "ab":
        Path("photos", name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(f"photos/{name}/{number}.png")
    assert main(["train", *SMALL[4:6], "--epochs", "1", "--dataset", "digits", *words, "--gradients"]) == 2
    assert complaint in capsys.readouterr().err
