"""fastnoise.noise.corrupt_sweep: the labels of single calls, nesting, and refusals."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fastnoise.errors import ConfigError, DataError, FastnoiseError
from fastnoise.noise import NoiseSpec, corrupt, corrupt_sweep

RATES = (0.0, 0.1, 0.4, 0.95, 1.0)
SEEDS = (0, 7, 2**64 - 1)


def cyclic(count: int = 1003, dtype: str = "uint8") -> np.ndarray:
    return (np.arange(count) % 10).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", ">i4"])
@pytest.mark.parametrize(
    "spec", ["symmetric", "symmetric,true_class=included", "asymmetric,map=cifar10", " pair ", "asymmetric"]
)
def test_equals_single_calls(spec: str, dtype: str):
    common: dict[str, Any] = {"num_classes": 10, "dataset": "cifar10"}
    noisy = corrupt_sweep(cyclic(dtype=dtype), spec, RATES, SEEDS, threads=2, **common)
    assert noisy.shape == (len(RATES), len(SEEDS), 1003)
    assert noisy.dtype == np.dtype(dtype).newbyteorder("=")
    kind, _, options = spec.strip().partition(",")
    for r, rate in enumerate(RATES):
        for s, seed in enumerate(SEEDS):
            alone = corrupt(cyclic(), f"{kind}:{rate}" + (f",{options}" if options else ""), seed=seed, **common)
            assert np.array_equal(noisy[r, s], alone.labels)


def test_flipped_sets_nest():
    labels = cyclic(20_000)
    noisy = corrupt_sweep(labels, "symmetric", (0.1, 0.2, 0.5), [3], num_classes=10)[:, 0]
    assert [abs((row != labels).mean() - rate) < 0.02 for row, rate in zip(noisy, (0.1, 0.2, 0.5), strict=True)]
    for lower, higher in pairwise(noisy):
        flipped = lower != labels
        assert np.array_equal(higher[flipped], lower[flipped])
        assert (higher != labels).sum() > flipped.sum()


@pytest.mark.parametrize("threads", [1, 2, 7, 0])
def test_threads_and_given_array(threads: int):
    labels = cyclic(200_003)
    out = np.zeros((2, 3, len(labels)), np.uint8)
    returned = corrupt_sweep(
        labels, NoiseSpec("pair", rate=0.3), (0.2, 0.6), SEEDS, num_classes=10, threads=threads, out=out
    )
    assert returned is out
    assert np.array_equal(out, corrupt_sweep(labels, "pair", np.array([0.2, 0.6]), SEEDS, num_classes=10, threads=1))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_results_beyond_the_caches(dtype: str):
    """Above 32 MiB they are written past the caches: rows that begin within lines, by several threads."""
    labels = cyclic(1_500_001, dtype)
    noisy = corrupt_sweep(labels, "symmetric", (0.2, 0.6), SEEDS, num_classes=10, threads=2)
    assert noisy.nbytes > 2**25
    for row, rate in zip(noisy, (0.2, 0.6), strict=True):
        for swept, seed in zip(row, SEEDS, strict=True):
            assert np.array_equal(
                swept, corrupt(cyclic(1_500_001), f"symmetric:{rate}", seed=seed, num_classes=10).labels
            )


@pytest.mark.parametrize(
    ("kind", "part", "change"),
    [
        (ConfigError, "takes its rates from rates=", {"spec": "symmetric:0.4"}),
        (ConfigError, "can't draw 'symmetric:0.0,quota=global'", {"spec": "symmetric,quota=global"}),
        (ConfigError, "can't draw 'none'", {"spec": "none"}),
        (ConfigError, "unknown noise 'other'", {"spec": "other"}),
        (ConfigError, "got int", {"spec": 4}),
        (ConfigError, "map=sce", {"spec": "asymmetric,map=sce", "num_classes": 100}),
        (ConfigError, "rates must hold at least one number", {"rates": []}),
        (ConfigError, "rates must be a sequence", {"rates": 0.4}),
        (ConfigError, "got nan", {"rates": [float("nan")]}),
        (ConfigError, "outside [0, 1]", {"rates": [0.4, 1.5]}),
        (ConfigError, "must be a number", {"rates": ["a"]}),
        (ConfigError, "the noise seed must be in", {"seeds": [-1]}),
        (ConfigError, "the noise seed must be an integer", {"seeds": [0.5]}),
        (ConfigError, "threads must be in", {"threads": -1}),
        (ConfigError, "num_classes must be in", {"num_classes": 1}),
        (DataError, "position 9 holds 9, outside [0, 9)", {"num_classes": 9}),
        (DataError, "uint8 has no room for 300 classes", {"num_classes": 300}),
        (DataError, "int8 has no room for 129 classes", {"num_classes": 129, "labels": cyclic(20, "int8")}),
        (DataError, "labels: empty", {"labels": np.zeros(0, int)}),
        (DataError, "out: must be an array, uint8 [1, 1, 20], got list", {"out": []}),
        (DataError, "got uint8 [1, 2, 20]", {"out": np.zeros((1, 2, 20), np.uint8)}),
        (DataError, "got int64 [1, 1, 20]", {"out": np.zeros((1, 1, 20), np.int64)}),
        (DataError, "C-contiguous", {"out": np.zeros((1, 1, 40), np.uint8)[..., ::2]}),
        (DataError, "writeable", {"out": np.broadcast_to(np.uint8(0), (1, 1, 20))}),
    ],
)
def test_refuses(kind: type[FastnoiseError], part: str, change: dict[str, Any]):
    arguments = {"labels": cyclic(20), "spec": "symmetric", "rates": [0.4], "seeds": [0], "num_classes": 10}
    with pytest.raises(kind) as caught:
        corrupt_sweep(**{**arguments, **change})
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_to_overwrite_its_input():
    labels = cyclic(20)
    with pytest.raises(DataError, match="overlaps the labels"):
        corrupt_sweep(labels, "pair", [0.4], [0], num_classes=10, out=labels[None, None])
