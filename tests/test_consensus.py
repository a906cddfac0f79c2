"""fastnoise.selection's stage consensus against its definition in NumPy."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastnoise.errors import ConfigError, DataError, FastnoiseError
from fastnoise.selection import ConsensusOptions, StageTables, consensus, consensus_sweep

RNG = np.random.default_rng(0)


def stages(count: int = 5003, dtype: str = "int32", stages: int = 3) -> tuple[np.ndarray, np.ndarray]:
    losses = RNG.random((stages, count), np.float32)
    losses[RNG.random(losses.shape) < 0.02] = np.nan
    predictions = np.where(RNG.random(losses.shape) < 0.8, np.arange(count) % 3, RNG.integers(0, 3, losses.shape))
    return losses, predictions.astype(dtype)


def members(losses: np.ndarray, predictions: np.ndarray, threshold: float, options: ConsensusOptions) -> np.ndarray:
    wide = losses.astype(np.float64)
    passed = wide < threshold if options.compare == "below" else wide <= threshold
    return passed.all(0) & ((predictions == predictions[0]).all(0) | (not options.agree))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64", "int8", ">i2"])
@pytest.mark.parametrize("options", [ConsensusOptions(), ConsensusOptions("at_most", agree=False, label_stage=0)])
@pytest.mark.parametrize("threads", [1, 3])
def test_members(dtype: str, options: ConsensusOptions, threads: int):
    losses, predictions = stages(130_001, dtype)
    result = consensus(losses, predictions, 0.6, options=options, threads=threads)
    expected = members(losses, predictions, 0.6, options)
    assert 0.05 < expected.mean() < 0.95
    assert np.array_equal(result.index, np.flatnonzero(expected))
    assert np.array_equal(np.unpackbits(result.mask, count=130_001, bitorder="little"), expected)
    assert result.mask.shape == (-(-130_001 // 8),)
    assert np.array_equal(result.pseudo_labels, predictions[options.label_stage][expected])
    assert result.options == options
    assert result.num_members == expected.sum()
    labels = np.full(130_001, 7)
    relabelled = result.relabelled(labels)
    assert np.array_equal(relabelled[result.index], result.pseudo_labels)
    assert (relabelled[~expected] == 7).all()
    assert (labels == 7).all()


@pytest.mark.parametrize("count", [1, 7, 8, 63, 64, 65, 1024])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_sizes(count: int, number: int):
    losses, predictions = stages(count, stages=number)
    result = consensus(losses, predictions, 0.8)
    assert np.array_equal(result.index, np.flatnonzero(members(losses, predictions, 0.8, ConsensusOptions())))


@pytest.mark.parametrize("compare", ["below", "at_most"])
def test_comparison_at_the_threshold(compare: str):
    """0.1 is no float32; the losses around it compare with the threshold as written, and so does an equal one."""
    near = np.float32(0.1)
    losses = np.array([[np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(1)), 0.5, np.inf]])
    predictions = np.zeros((1, 5), np.uint8)
    for threshold in (0.1, float(near), 0.5, np.inf, -np.inf, 0.0, 1e300):
        options = ConsensusOptions(compare)
        result = consensus(losses.astype(np.float32), predictions, threshold, options=options)
        expected = members(losses, predictions, threshold, options)
        if compare == "at_most" and threshold == np.inf:
            expected[4] = False  # an infinite loss is a failed evaluation, below nothing
        assert np.array_equal(result.index, np.flatnonzero(expected)), threshold


@pytest.mark.parametrize("judged", ["pseudo", "given"])
@pytest.mark.parametrize("agree", [True, False])
@pytest.mark.parametrize("threads", [1, 4])
def test_sweep(judged: str, agree: bool, threads: int):
    runs = [stages(70_001, "uint8") for _ in range(3)]
    losses, predictions = (np.stack(arrays) for arrays in zip(*runs, strict=True))
    true_labels = np.arange(70_001) % 3
    labels = RNG.integers(0, 3, 70_001)
    options = ConsensusOptions(agree=agree, judged=judged, label_stage=1)
    thresholds = [0.9, 0.1, 0.5, 0.5, -1, 2, *np.linspace(0, 1, 64)]
    given = {"labels": labels} if judged == "given" else {}
    sweep = consensus_sweep(
        losses, predictions, thresholds, true_labels=true_labels, options=options, threads=threads, **given
    )
    assert np.array_equal(sweep.thresholds, thresholds)
    for r in range(3):
        right = (labels if judged == "given" else predictions[r, 1]) == true_labels
        assert sweep.all_right[r] == right.sum()
        for t, threshold in enumerate(thresholds):
            expected = members(losses[r], predictions[r], threshold, options)
            assert sweep.members[r, t] == expected.sum()
            assert sweep.right[r, t] == (expected & right).sum()
            if expected.any():
                assert sweep.precision[r, t] == pytest.approx(right[expected].mean())
            else:
                assert np.isnan(sweep.precision[r, t])
            assert sweep.recall[r, t] == pytest.approx((expected & right).sum() / right.sum())


def test_sweep_of_one_run_without_truth():
    losses, predictions = stages()
    sweep = consensus_sweep(losses, predictions, [0.5])
    assert sweep.members.tolist() == [[len(consensus(losses, predictions, 0.5).index)]]
    assert sweep.right is sweep.all_right is None
    with pytest.raises(DataError, match="need true_labels"):
        _ = sweep.precision


def test_stage_tables_go_in():
    tables = StageTables(2, 4)
    logits = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0.1, 0, 0], [0, 0, 9]])
    for stage in range(2):
        tables.record(
            stage,
            logits
            if stage == 0
            else logits.roll(1, 1) * torch.tensor([[0], [1], [1], [0]]) + logits * torch.tensor([[1], [0], [0], [1]]),
            torch.arange(4),
        )
    result = consensus(tables.loss, tables.prediction, 1.0)
    assert result.index.tolist() == [0, 3]
    assert result.pseudo_labels.tolist() == [0, 2]
    assert result.relabelled([1, 1, 1, 1]).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("kind", "part", "change"),
    [
        (ConfigError, "must be a number, got nan", {"threshold": float("nan")}),
        (ConfigError, "must be a number, got 'a'", {"threshold": "a"}),
        (ConfigError, "label_stage is 3, and there are 3 stages", {"options": ConsensusOptions(label_stage=3)}),
        (ConfigError, "threads must be in", {"threads": -1}),
        (ConfigError, "threads must be an integer", {"threads": 1.5}),
        (DataError, "losses: must be float32, got float64", {"losses": np.zeros((3, 5))}),
        (DataError, "must have an integer dtype, got float32", {"predictions": np.zeros((3, 5), np.float32)}),
        (DataError, "must be [S, N] both, got (3, 5) and (3, 4)", {"predictions": np.zeros((3, 4), int)}),
        (DataError, "must be [S, N] both", {"losses": np.zeros(5, np.float32), "predictions": np.zeros(5, int)}),
        (DataError, "empty", {"losses": np.zeros((0, 5), np.float32), "predictions": np.zeros((0, 5), int)}),
        (DataError, "beyond 32 bits", {"predictions": np.full((3, 5), 2**40)}),
    ],
)
def test_refuses(kind: type[FastnoiseError], part: str, change: dict[str, Any]):
    arguments = {"losses": np.zeros((3, 5), np.float32), "predictions": np.zeros((3, 5), int), "threshold": 1.0}
    with pytest.raises(kind) as caught:
        consensus(**{**arguments, **change})
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "part", "change"),
    [
        (ConfigError, "got nan", {"thresholds": [0.1, float("nan")]}),
        (ConfigError, "goes together with", {"labels": np.zeros(5, int)}),
        (ConfigError, "goes together with", {"true_labels": [0] * 5, "options": ConsensusOptions(judged="given")}),
        (DataError, "true_labels: must be integers [5]", {"true_labels": [0] * 4}),
        (DataError, "true_labels: a label is outside the predictions' uint8", {"true_labels": [300] * 5}),
    ],
)
def test_sweep_refuses(kind: type[FastnoiseError], part: str, change: dict[str, Any]):
    arguments = {"losses": np.zeros((3, 5), np.float32), "predictions": np.zeros((3, 5), np.uint8), "thresholds": [1]}
    with pytest.raises(kind, match=part.replace("[", r"\[")):
        consensus_sweep(**{**arguments, **change})


@pytest.mark.parametrize("change", [{"compare": "under"}, {"judged": "true"}, {"agree": "yes"}])
def test_unknown_options(change: dict[str, Any]):
    with pytest.raises(ConfigError):
        ConsensusOptions(**change)


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(
        st.sampled_from(["f4", "f8", "i4", "O"]), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=70)
    ),
    hnp.arrays(
        st.sampled_from(["u1", "u2", "i4", ">i4", "f4", "b1"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=70),
    ),
    st.floats() | st.none(),
    st.booleans(),
)
def test_anything(losses: np.ndarray, predictions: np.ndarray, threshold: Any, fit: bool):
    if fit and predictions.size:
        predictions = np.resize(predictions, losses.shape)
    for call in (
        lambda: consensus(losses, predictions, threshold),
        lambda: consensus_sweep(losses, predictions, [threshold], true_labels=np.zeros(losses.shape[-1:], int)),
    ):
        with suppress(FastnoiseError):
            call()
