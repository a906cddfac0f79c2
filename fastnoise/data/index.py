"""Positions for datasets that have none: a wrapper for plain PyTorch data loaders."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from ..errors import DataError


class IndexedDataset(Dataset):
    """What `with_index` returns; the wrapped dataset is its attribute `dataset`."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: Any) -> Any:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[Any]) -> list[Any]:
        """Fetch a batch's items, in the one call that data loaders make where the wrapped dataset can serve it."""
        size = len(self)
        places = [operator.index(position) for position in positions]
        for place in places:
            if not -size <= place < size:
                raise IndexError(f"position {place} is outside a dataset of {size}")
        places = [place % size for place in places]
        batched = getattr(self.dataset, "__getitems__", None)
        items = batched(places) if batched else [self.dataset[place] for place in places]
        return [extended(item, place) for item, place in zip(items, places, strict=True)]


def extended(item: Any, place: int) -> Any:
    if isinstance(item, Mapping):
        if "index" in item:
            raise DataError('with_index: the items already have a key "index"; rename or drop it')
        return {**item, "index": place}
    return (*item, place) if isinstance(item, (tuple, list)) else (item, place)


def with_index(dataset: Any) -> IndexedDataset:
    """Wrap a dataset so that its items end with their position: what a loss with per-sample targets is called with.

        loader = DataLoader(with_index(dataset), batch_size=128, shuffle=True)
        for images, labels, index in loader: ...

    (x, y) becomes (x, y, index), a dictionary gets the key "index", and any other item, such as a single tensor,
    becomes (item, index). The position is an int, which data loaders collate to an int64 tensor [B], and is the one in
    `dataset`: `Subset(with_index(dataset), kept)` yields positions in the whole, for a table of `len(dataset)` rows;
    `with_index(Subset(dataset, kept))` yields 0..len(kept) - 1.

    Args:
        dataset: map-style: with `__getitem__` for positions 0..len - 1 and `__len__`; `__getitems__`, if there is one,
            is called once for a batch.

    Raises:
        DataError: where the dataset is iterable or has no length, and so gives samples no position; at the first item
            where items have a key "index" already.
    """
    kind = type(dataset).__name__
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise DataError(f"with_index: {kind} only iterates, so samples have no position; give a map-style dataset")
    try:
        len(dataset)
    except (TypeError, NotImplementedError):
        raise DataError(f"with_index: {kind} has no length; give a map-style dataset with __len__") from None
    return IndexedDataset(dataset)
