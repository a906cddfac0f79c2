"""DivideMix on the consensus labels of the SWCE pipeline, in one run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _train_cases import assert_same_end, history, killed_at, refusal

import fastnoise
from fastnoise.methods import METHODS
from fastnoise.recipes import recipe

SMALL = {"model": "small_cnn", "width": 0.25, "batch_size": 64, "limit_train": 1000, "device": "cpu", "amp": "off"}
COURSE = {"pipeline_warm_up": 7, "stages": "2,3", "rate_factors": "1,1", "warm_up": 1, "epochs": 14}
"""Ten epochs of the pipeline, one of warm-up and three of DivideMix."""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config_of(**changes: Any) -> Any:
    return recipe("swce_dividemix", "digits", "symmetric:0.3").replace(SMALL | COURSE | changes)


def test_dividemix_learns_from_the_consensus(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the pipeline the label table holds its labels, both networks have one backbone and heads of their own, and
    the corrected labels are better than the given ones."""
    kind: Any = METHODS["swce_dividemix"]
    seen: dict[int, Any] = {}
    original = kind.end_epoch

    def watched(self: Any, run: Any) -> None:
        original(self, run)
        seen[run.epoch] = self.program, run.labels.clone(), self.pipeline.corrected(run.given)
        if run.epoch == 10:
            first, second = (network.state_dict() for network in run.networks)
            for name, weight in first.items():
                assert torch.equal(weight, second[name]) == name.startswith("backbone"), name
        if run.epoch == 14:
            relabelled = self.pipeline.corrected(run.given) != run.given
            seen[0] = self.estimates(run), super(kind, self).estimates(run), relabelled

    monkeypatch.setattr(kind, "end_epoch", watched)
    summary = fastnoise.train(config_of(run_dir="run"))
    programs = [seen[epoch][0] for epoch in range(1, 15)]
    assert programs == [2] * 10 + [0] + [1] * 3
    labels = seen[10][1]
    assert torch.equal(labels, seen[10][2])
    assert all(torch.equal(seen[epoch][1], labels) for epoch in range(11, 15)), "no later epoch relabels"
    epochs = history(Path("run"))
    assert [epoch["learning_rate"] for epoch in epochs[:10]] == [0.1] * 10
    assert epochs[10]["learning_rate"] == pytest.approx(0.1), "a schedule of its own"
    assert "consensus" in epochs[9]["selections"]
    assert "labelled_1" in epochs[13]["selections"]
    found, of_labels, relabelled = seen[0]
    assert bool((relabelled & ~of_labels.suspected).any()), "some labels are doubted by the consensus alone"
    assert torch.equal(found.suspected, of_labels.suspected | relabelled)
    assert torch.equal(found.confidence[relabelled], 1 - of_labels.confidence[relabelled])
    assert torch.equal(found.confidence[~relabelled], of_labels.confidence[~relabelled])
    assert summary["correction_accuracy"] > 0.75
    assert summary["test_accuracy"]["last"] > 0.6


def test_a_killed_run_ends_in_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(save_every="0.0001s", limit_train=200, pipeline_warm_up=1, stages="1,2", epochs=6)
    fastnoise.train(config.replace({"run_dir": "whole"}))
    for number in (9, 20):  # in the pipeline, and in DivideMix
        cut = config.replace({"run_dir": f"cut{number}"})
        with monkeypatch.context() as patch:
            killed_at(patch, number)
            with pytest.raises(GeneratorExit):
                fastnoise.train(cut)
        fastnoise.train(cut, resume=True)
        assert_same_end(Path("whole"), Path(f"cut{number}"))


def test_the_recipe_has_the_published_pipeline_and_dividemix() -> None:
    for dataset, threshold in (("cifar10", 1.0), ("chest_xray", 0.25)):
        config = recipe("swce_dividemix", dataset, "idn:0.2")
        assert config.method.selection_threshold == threshold  # type: ignore[attr-defined]
        theirs = recipe("dividemix", dataset, "idn:0.2")
        assert config.optim.epochs == theirs.optim.epochs + 30
        for name in theirs.method.names():
            assert getattr(config.method, name) == getattr(theirs.method, name)
    clothing = recipe("swce_dividemix", "clothing1m")
    assert (clothing.data.epoch_batches, clothing.data.balance) == (None, "none")
    assert clothing.method.mixup_alpha == 0.5  # type: ignore[attr-defined]


def test_what_cannot_be_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--method", "swce_dividemix")
    assert "takes 30 of them, which leaves none for DivideMix" in refusal(capsys, *words, "--epochs", "30")
    assert "has 2 factors: give one for the warm-up" in refusal(capsys, *words, "--rate-factors", "1,1")
    assert "orders the samples of its epochs" in refusal(capsys, *words, "--epoch-batches", "4")
    assert np.isfinite(config_of().method.pipeline_rate)
