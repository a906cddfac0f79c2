"""Batches of frozen features out of the C++ core, against NumPy and PyTorch, to the bit."""

import numpy as np
import pytest
import torch

from fastnoise import _C


def normalised(**changes: object) -> np.ndarray:
    """A valid call of the C++ core with some arguments changed."""
    rng = np.random.default_rng(0)
    arguments = {
        "rows": rng.normal(0, 3, (9, 5)).astype(np.float16),
        "index": np.array([8, 0, 8, 3]),
        "mean": rng.normal(0, 1, 5).astype(np.float32),
        "scale": rng.uniform(0.1, 3, 5).astype(np.float32),
        "threads": 1,
    } | changes
    return _C.normalised_rows(**arguments)  # type: ignore[arg-type]


def same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    return np.array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_every_number_of_16_bits_is_widened_as_pytorch_does() -> None:
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    expected = torch.from_numpy(numbers).float()
    for columns in (1, 64):
        words = {"mean": np.zeros(columns, np.float32), "scale": np.ones(columns, np.float32)}
        rows = numbers.reshape(-1, columns)
        found = normalised(rows=rows, index=np.arange(len(rows)), **words)
        reference = torch.sub(expected.view(-1, columns), torch.zeros(columns)).mul_(1.0).numpy()
        assert same_bits(found, reference)
        finite = np.isfinite(numbers).reshape(-1, columns)
        assert np.array_equal(found[finite], rows.astype(np.float32)[finite])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("columns", [1, 3, 4, 7, 8, 15, 16, 17, 31, 64, 100, 513, 2304])
def test_rows_are_gathered_and_normalised_as_by_numpy(columns: int, dtype: type) -> None:
    rng = np.random.default_rng(columns)
    rows = rng.normal(1, 2, (50, columns)).astype(dtype)
    mean, scale = rng.normal(1, 1, columns).astype(np.float32), rng.uniform(0.1, 3, columns).astype(np.float32)
    for count in (0, 1, 2, 3, 77):
        index = rng.integers(0, 50, count)
        found = normalised(rows=rows, index=index, mean=mean, scale=scale)
        assert found.dtype == np.float32
        assert found.shape == (count, columns)
        assert same_bits(found, (rows[index].astype(np.float32) - mean) * scale)


def test_parts_of_tables_and_of_orders_are_read_where_they_lie() -> None:
    rows = np.arange(60, dtype=np.float16).reshape(12, 5)
    rows.flags.writeable = False
    order = np.array([3, 0, 6, 2, 2, 1])
    words = {"mean": np.zeros(5, np.float32), "scale": np.full(5, 2, np.float32)}
    assert np.array_equal(normalised(rows=rows[3:10], index=order[1:5], **words), 2 * rows[3:10][order[1:5]])


def test_threads_make_no_difference() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (300, 4096)).astype(np.float16)
    words = {"mean": rng.normal(0, 1, 4096).astype(np.float32), "scale": np.full(4096, 3, np.float32)}
    index = rng.integers(0, 300, 1100)
    one, many = (normalised(rows=rows, index=index, threads=threads, **words) for threads in (1, 4))
    assert same_bits(one, many)


def test_a_batch_stays_as_it_was_given() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (400, 512)).astype(np.float16)
    words = {"rows": rows, "mean": np.zeros(512, np.float32), "scale": np.ones(512, np.float32)}
    kept = [normalised(index=np.full(256, place), **words) for place in range(6)]
    view = torch.from_numpy(kept.pop())[10:20]
    for place in range(20):
        normalised(index=np.full(256, 100 + place), **words)
    for place, batch in enumerate(kept):
        assert np.array_equal(batch, np.broadcast_to(rows[place], batch.shape))
    assert np.array_equal(view.numpy(), np.broadcast_to(rows[5], (10, 512)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": np.zeros((9, 5))}, "rows must be float16 or float32"),
        ({"rows": np.zeros((9, 5), np.int16)}, "rows must be float16 or float32"),
        ({"rows": np.zeros((9, 5), np.uint8)}, "rows must be float16 or float32"),
        ({"rows": np.zeros((9, 1, 5), np.float16)}, "rows must be float16 or float32"),
        ({"rows": np.zeros((9, 10), np.float16)[:, ::2]}, "rows must be contiguous"),
        ({"rows": np.zeros((5, 9), np.float16).T}, "rows must be contiguous"),
        ({"rows": np.zeros((9, 5), ">f2")}, "native byte order"),
        ({"rows": np.zeros(91, np.uint8)[1:].view(np.float16).reshape(9, 5)}, "rows must be aligned"),
        ({"rows": np.zeros((9, 4), np.float16)}, "mean and scale must be"),
        ({"rows": np.zeros((0, 5), np.float16)}, r"outside \[0, 0\)"),
        ({"index": np.array([8, 0, 9])}, r"index holds 9, outside \[0, 9\)"),
        ({"index": np.array([-1])}, "index holds -1"),
        ({"index": np.array([1], np.int32)}, "index must be int64"),
        ({"index": np.arange(8)[::2]}, "index must be contiguous"),
        ({"mean": np.zeros(5)}, "mean must be float32"),
        ({"mean": np.zeros(4, np.float32)}, "mean and scale must be"),
        ({"scale": np.zeros((5, 1), np.float32)}, "scale must be float32"),
    ],
)
def test_what_the_core_cannot_read_is_refused(changes: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises((ValueError, TypeError, IndexError), match=words):
        normalised(**changes)
