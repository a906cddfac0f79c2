"""Figures a run reports, on cases small enough to count by hand."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import Tensor

from fastnoise.engine.metrics import (
    EpochStatistics,
    attention_figures,
    best_last_mean,
)
from fastnoise.engine.step import Forward
from fastnoise.methods.shards import Shards
from fastnoise.ops.looks import FORGOTTEN, LABEL, LOOKS, new_looks, note_looks
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


class Thread(Shards):
    """One of two processes that are threads. `sent` has what each has sent."""

    size = 2

    def __init__(self, rank: int, sent: list[Tensor], barrier: Barrier):
        self.rank, self.sent, self.barrier = rank, sent, barrier

    def gathered(self, tensor: Tensor) -> Tensor:
        self.sent[self.rank] = tensor.clone()
        self.barrier.wait(60)
        found = torch.stack(self.sent)
        self.barrier.wait(60)
        return found

    def sum_(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            tensor.copy_(self.gathered(tensor).sum(0))


def test_looks_of_all_processes_count_where_each_may_have_any_sample() -> None:
    """Two epochs of two processes, the second one begun again from a checkpoint inside, as one process notes the same
    looks one after the other. No sample is forgotten twice in an epoch, which each would count for itself."""
    given = torch.tensor([0, 1, 0, 1, 0])
    steps = [  # epoch -> of each step and process, the samples and whether each is taken to be right
        [(([0, 1], [1, 0]), ([2, 1], [1, 0])), (([3, 1], [1, 1]), ([0, 2], [1, 1]))],
        [(([2, 3], [1, 1]), ([0, 1], [1, 1])), (([1, 0], [0, 1]), ([3, 0], [0, 1]))],
    ]
    whole, sent, barrier = new_looks(given), [torch.empty(0)] * 2, Barrier(2)

    def of(process: int) -> EpochStatistics:
        looks = new_looks(given)
        return EpochStatistics(5, False, torch.device("cpu"), looks=looks, anywhere=True)

    def logits_of(index: Tensor, right: list[int], step: int) -> Tensor:
        wanted = torch.where(torch.tensor(right) == 1, given[index], 1 - given[index])
        return (1.0 + step) * torch.nn.functional.one_hot(wanted, 2)

    processes = [of(0), of(1)]
    for epoch, batches in enumerate(steps, 1):
        for statistics in processes:
            statistics.reset()
        for step, batch in enumerate(batches):
            for process, (samples, right) in enumerate(batch):
                index, statistics = torch.tensor(samples), processes[process]
                logits = logits_of(index, right, step)
                note_looks(logits, index, whole)
                note_looks(logits, index, statistics.looks)
                statistics.update(Forward(torch.tensor(0.0), logits.argmax(1)), index)
                if (epoch, step) == (2, 0):
                    processes[process] = of(process)
                    processes[process].load_state_dict(statistics.state_dict())
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda rank: processes[rank].share(Thread(rank, sent, barrier)), range(2)))
        for statistics in processes:
            torch.testing.assert_close(statistics.looks, whole)
    assert whole[:, LABEL].tolist() == given.tolist()
    assert whole[:, LOOKS].tolist() == [5, 5, 3, 3, 0]
    assert whole[:, FORGOTTEN].any()
