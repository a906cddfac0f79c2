"""Figures a run reports, on cases small enough to count by hand."""

import numpy as np
import pytest
import torch

from fastnoise.engine.metrics import (
    EpochStatistics,
    attention_figures,
    best_last_mean,
)
from fastnoise.engine.step import Forward
from fastnoise.tasks.classification import split_shares


def test_split_shares_by_hand() -> None:
    clean = np.array([0, 0, 1, 1, 2, 2, 2])
    given = np.array([0, 0, 2, 2, 0, 0, 0])
    predictions = np.array([0, 1, 1, 2, 1, 0, -1])  # the last was not visited
    assert split_shares(predictions, given, clean) == pytest.approx(
        {
            "clean_true": 1 / 2,
            "clean_other": 1 / 2,
            "mislabelled_true": 1 / 4,
            "mislabelled_memorised": 2 / 4,
            "mislabelled_other": 1 / 4,
        }
    )
    assert split_shares(clean, clean, clean) == {"clean_true": 1.0, "clean_other": 0.0}


def test_attention_figures_by_hand() -> None:
    attention = np.array([0.9, 0.5, 0.6, 0.1, np.nan], dtype=np.float32)
    wrong = np.array([False, False, True, True, True])
    figures = attention_figures(attention, wrong)
    assert figures == pytest.approx(
        {"attention_clean": 0.7, "attention_mislabelled": 0.35, "attention_auroc": 3 / 4}, rel=1e-6
    )


def test_best_last_mean() -> None:
    history = [{"epoch": number, "x": value} for number, value in enumerate([0.1, 0.9, *[0.5] * 9, 0.4], 1)]
    assert best_last_mean(history, "x") == {
        "best": 0.9, "best_epoch": 2, "last": 0.4, "mean_last_10": pytest.approx(0.49),
    }  # fmt: skip


def test_statistics_find_the_first_bad_step_and_survive_a_checkpoint() -> None:
    device = torch.device("cpu")
    statistics = EpochStatistics(5, attention=True, device=device)
    losses = [1.0, 2.0, float("nan"), float("inf")]
    for step, loss in enumerate(losses):
        result = Forward(torch.tensor(loss), torch.tensor([step]), torch.tensor([step / 10]))
        statistics.update(result, torch.tensor([step]))
        if step == 1:
            assert float(statistics.loss_sum) == 3.0
            assert int(statistics.bad_step) == -1
    assert int(statistics.bad_step) == 3
    assert statistics.predictions.tolist() == [0, 1, 2, 3, -1]
    copy = EpochStatistics(5, attention=True, device=device)
    copy.load_state_dict(statistics.state_dict())
    assert copy.predictions.tolist() == statistics.predictions.tolist()
    assert int(copy.bad_step) == 3
    copy.reset()
    assert copy.predictions.tolist() == [-1] * 5
    assert bool(copy.attention.isnan().all())
