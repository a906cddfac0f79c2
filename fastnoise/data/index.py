"""Positions for datasets that have none: a wrapper for plain PyTorch data loaders."""

import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset, IterableDataset, Subset

from ..errors import DataError


class IndexedDataset(Dataset):
    """What `with_index` returns. The wrapped dataset is its attribute `dataset`.

    Attributes that it has not itself, such as `classes`, `targets` or `collate_fn`, are those of the wrapped dataset.
    """

    def __init__(self, dataset: Any):
        self.dataset = dataset
        self._warned = False

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or (name.startswith("__") and name.endswith("__")):  # while a copy is made
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        try:
            return getattr(self.dataset, name)
        except AttributeError:
            kind = type(self.dataset).__name__
            raise AttributeError(f"neither with_index nor its {kind} has an attribute {name!r}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.dataset)})

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
        if not self._warned and len(set(places)) < len(places):
            self._warned = True
            twice = next(place for place in places if places.count(place) > 1)
            warnings.warn(
                f"with_index: position {twice} occurs twice in a batch, from a sampler with replacement or a Subset "
                "that lists it twice; a loss with targets needs distinct positions, since each updates its row: sample "
                "without replacement",
                stacklevel=2,
            )
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
    `with_index(Subset(dataset, kept))` yields 0..len(kept) - 1, and warns of it. The result has the attributes of
    `dataset`, such as `classes` and `targets`.

    UserWarning, once, if a position occurs twice in a batch, as with a sampler with replacement: each copy would update
    the same row of a loss's table.

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
    if isinstance(dataset, Subset):
        warnings.warn(
            f"with_index: positions count within this Subset, 0..{len(dataset) - 1} in the order of its indices, which "
            "a saved table of targets needs again; Subset(with_index(dataset), indices) has those in the whole dataset",
            stacklevel=2,
        )
    return IndexedDataset(dataset)
