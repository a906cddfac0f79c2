"""Positions in the batches of plain data loaders."""

import copy
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, RandomSampler, Subset, TensorDataset

from fastnoise.data import with_index
from fastnoise.errors import DataError

SIZE = 23
VALUES = torch.arange(SIZE) * 10.0
LABELS = torch.arange(SIZE) % 7


class Items(Dataset):
    """Items of a form of the test's choosing."""

    def __init__(self, form: str):
        self.form = form

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, position: int) -> Any:
        image, label = VALUES[position], LABELS[position]
        return {"pair": (image, label), "list": [image, label], "dict": {"image": image, "label": label}}.get(
            self.form, image
        )


class Batched(Items):
    """Serves whole batches, and counts them."""

    calls = 0

    def __getitems__(self, positions: list[int]) -> list[Any]:
        self.calls += 1
        return [self[position] for position in positions]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("form", ["pair", "list", "dict", "tensor"])
def test_shuffled_loader_pairs_each_sample_with_its_position(form: str, workers: int) -> None:
    """Two workers start in a few hundred milliseconds; the last batch of 23 by 5 is a partial one."""
    loader = DataLoader(with_index(Items(form)), batch_size=5, shuffle=True, num_workers=workers)
    seen = []
    for batch in loader:
        image, *label, index = batch.values() if form == "dict" else batch
        assert index.dtype == torch.int64
        assert torch.equal(image, VALUES[index])
        if label:
            assert torch.equal(label[0], LABELS[index])
        if form == "dict":
            assert list(batch) == ["image", "label", "index"]
        seen += index.tolist()
    assert sorted(seen) == list(range(SIZE))
    assert seen != sorted(seen)


def test_spawned_workers() -> None:
    """The wrapper pickles."""
    dataset = TensorDataset(VALUES, LABELS)
    loader = DataLoader(with_index(dataset), batch_size=12, num_workers=1, multiprocessing_context="spawn")
    assert torch.cat([index for _, _, index in loader]).tolist() == list(range(SIZE))


def positions(dataset: Dataset) -> list[int]:
    return [index for batch in DataLoader(dataset, batch_size=4) for index in batch[-1].tolist()]


def test_position_is_the_one_in_the_wrapped_dataset() -> None:
    kept = [20, 3, 11, 4, 5]
    dataset = TensorDataset(VALUES, LABELS)
    assert positions(Subset(with_index(dataset), kept)) == kept
    with pytest.warns(UserWarning, match=r"positions count within this Subset, 0\.\.4 in the order of its indices"):
        part = with_index(Subset(dataset, kept))
    assert positions(part) == list(range(len(kept)))
    assert positions(with_index(ConcatDataset([dataset, dataset]))) == list(range(2 * SIZE))
    image, _, index = part[1]
    assert (float(image), index) == (30.0, 1)


@pytest.mark.parametrize("position", [-1, SIZE - 1, torch.tensor(SIZE - 1)])
def test_position_is_a_plain_int_of_the_range(position: int | Tensor) -> None:
    indexed = with_index(Items("pair"))
    image, _, index = indexed[position]
    assert type(index) is int
    assert index == SIZE - 1
    assert image == VALUES[-1]
    assert len(indexed) == SIZE


@pytest.mark.parametrize("position", [SIZE, -SIZE - 1])
def test_outside(position: int) -> None:
    with pytest.raises(IndexError, match=f"position {position} is outside a dataset of 23"):
        with_index(Items("pair"))[position]


def test_iteration_ends() -> None:
    assert [index for _, _, index in with_index(Items("pair"))] == list(range(SIZE))


def test_batched_fetch_is_kept() -> None:
    dataset = Batched("pair")
    assert positions(with_index(dataset)) == list(range(SIZE))
    assert dataset.calls == 6


def test_attributes_are_those_of_the_wrapped_dataset() -> None:
    dataset = Items("pair")
    dataset.classes, dataset.targets = ["cat", "dog"], LABELS
    indexed = with_index(dataset)
    assert indexed.classes is dataset.classes
    assert indexed.targets is LABELS
    assert indexed.form == "pair"
    assert {"classes", "dataset", "form"} <= set(dir(indexed))
    for copied in (copy.deepcopy(indexed), pickle.loads(pickle.dumps(indexed))):
        assert copied.classes == ["cat", "dog"]
        assert copied[3][-1] == 3
    with pytest.raises(AttributeError, match="neither with_index nor its Items has an attribute 'transform'"):
        _ = indexed.transform
    assert not hasattr(indexed, "__array__")


def test_positions_that_occur_twice_in_a_batch_are_warned_of_once() -> None:
    dataset = TensorDataset(VALUES, LABELS)
    sampler = RandomSampler(dataset, replacement=True, num_samples=200, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="occurs twice in a batch, from a sampler with replacement") as caught:
        for _ in DataLoader(with_index(dataset), batch_size=20, sampler=sampler):
            pass
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="position 4 occurs twice in a batch"):
        positions(Subset(with_index(dataset), [4, 5, 4]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        positions(with_index(dataset))


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(VALUES)

    def __len__(self) -> int:
        return SIZE


class Endless(Dataset):
    def __getitem__(self, position: int) -> Tensor:
        return torch.zeros(1)


class TakenKey(Items):
    def __getitem__(self, position: int) -> Any:
        return {"index": 0}


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Stream(), "Stream only iterates"),
        (iter([1, 2]), "list_iterator only iterates"),
        (Endless(), "Endless has no length"),
    ],
    ids=["iterable", "iterator", "no length"],
)
def test_refused(dataset: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"with_index: {message}.*; give a map-style dataset") as caught:
        with_index(dataset)
    assert "\n" not in str(caught.value)


def test_taken_key_is_refused() -> None:
    with pytest.raises(DataError, match='items already have a key "index"'):
        with_index(TakenKey("dict"))[0]
