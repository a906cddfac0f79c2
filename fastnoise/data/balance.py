"""Imbalanced classes: weights for their losses, and orders in which an epoch has as much of each."""

import numpy as np
from numpy.typing import NDArray

STREAM, SUBSET_STREAM = 8, 9
"""Of the random numbers that balance an epoch and that draw its samples, beside those that plan it (below) and those of
methods (above)."""


def class_weights(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """float32 [C]: N / (classes that occur * samples of the class), so that each class weighs as much in a mean over
    all samples, and the mean of their weights is 1. 0 for a class without samples.

    Args:
        labels: int64 [N].
        num_classes: C.
    """
    counts = np.bincount(labels, minlength=num_classes)
    weights = np.zeros(num_classes)
    weights[counts > 0] = len(labels) / ((counts > 0).sum() * counts[counts > 0])
    return weights.astype(np.float32)


def balanced_order(
    labels: NDArray[np.int64], batch_size: int, seed: int, epoch: int, batches: int | None = None
) -> NDArray[np.int64]:
    """An epoch of N samples, or of so many `batches`, whose batches have as much of each class as they can without
    having a sample twice.

    A class with fewer samples than its share of a batch is in each batch with all of them, and the other classes share
    the rest. From batch to batch each class goes round and round through its samples, in an order drawn for the epoch,
    so that none comes more than once more often than another. The order depends on (seed, epoch) alone.

    Args:
        labels: int64 [N].
        batch_size: samples in a batch; the last one of an epoch of N samples may be smaller.
        batches: full ones, if the epoch has another number of samples than N.

    Returns int64 [N] or [batches * batch_size], positions in `labels`, which may repeat.
    """
    random = _random(seed, epoch, STREAM)
    count, size = len(labels), min(batch_size, len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    mixed = random.permutation(len(classes))  # which classes get what does not divide evenly
    classes, counts = classes[mixed], counts[mixed]
    full = _turns(counts, size, count // size if batches is None else batches)
    rest = _turns(counts, count % size if batches is None else 0, 1)
    turns = np.concatenate([random.permuted(full, axis=1).ravel(), random.permuted(rest, axis=1).ravel()])
    # Samples sorted by class, each class in an order of its own; then the number of each turn among those of its class
    members, place = random.permutation(count), np.argsort(classes)
    members = members[np.argsort(place[np.searchsorted(classes[place], labels[members])], kind="stable")]
    starts = np.cumsum(counts) - counts
    order = np.argsort(turns, kind="stable")
    sizes = np.bincount(turns, minlength=len(classes))
    number = np.empty(len(turns), dtype=np.int64)
    number[order] = np.arange(len(turns)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return members[starts[turns] + number % counts[turns]].astype(np.int64)


def drawn_subset(labels: NDArray[np.int64], count: int, seed: int, epoch: int, balanced: bool) -> NDArray[np.int64]:
    """`count` different samples drawn for an epoch, in random order: of all alike, or as many of each class.

    A class that has fewer samples than its share gives all of them, and the other classes share the rest: the draw of
    DivideMix's code for Clothing1M, which takes the first count / C of each class in a shuffled order. The draw depends
    on (seed, epoch) alone.

    Args:
        labels: int64 [N], the given ones.
        count: at most N.
        balanced: whether classes have equal shares.

    Returns int64 [count], positions in `labels`.
    """
    if balanced:
        return balanced_order(labels, count, seed, epoch, batches=1)
    return _random(seed, epoch, SUBSET_STREAM).permutation(len(labels))[:count]


def drawn_order(
    balance: str,
    labels: NDArray[np.int64],
    batch_size: int,
    batches: int | None,
    seed: int,
    epoch: int,
    processes: int = 1,
) -> NDArray[np.int64] | None:
    """The samples of an epoch as --balance and --epoch-batches say; None: each once, in the loader's own order.

    Of several processes each has an order of its own samples (those of one remainder, as `Plan` gives them out), by the
    same rules, and the orders follow one another.
    """
    if processes > 1:
        parts = [
            (rank, drawn_order(balance, labels[rank::processes], batch_size, batches, seed, epoch + (rank << 32)))
            for rank in range(processes)
        ]
        orders = [rank + processes * part for rank, part in parts if part is not None]
        return np.concatenate(orders) if orders else None
    if balance == "sampler":
        return balanced_order(labels, batch_size, seed, epoch, batches)
    if batches is None:
        return None
    return drawn_subset(labels, batches * batch_size, seed, epoch, balanced=balance == "subset")


def _random(seed: int, epoch: int, stream: int) -> np.random.Generator:
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))


def filled(order: NDArray[np.int64], batch_size: int, least: int) -> NDArray[np.int64]:
    """An epoch's order whose last batch has at least `least` samples: the first ones of the epoch come once more where
    it has fewer. An epoch of a single batch stays as it is."""
    rest = len(order) % batch_size
    if rest == 0 or rest >= least or len(order) < batch_size:
        return order
    return np.concatenate([order, order[: least - rest]])


def _turns(counts: NDArray[np.int64], size: int, batches: int) -> NDArray[np.int64]:
    """[batches, size]: the class of each place, as a position in `counts`, at most as often in a batch as the class has
    samples."""
    small = np.zeros(len(counts), dtype=bool)
    while not small.all():
        places = size - counts[small].sum()
        share = -(-places // (~small).sum())  # of the class that gets most
        if not (fewer := ~small & (counts < share)).any():
            break
        small |= fewer
    always = np.repeat(np.flatnonzero(small), counts[small])
    left = size - len(always)
    large = np.flatnonzero(~small)
    shared = large[np.arange(batches * left) % max(1, len(large))] if left else np.empty(0, dtype=np.int64)
    return np.concatenate([np.tile(always, (batches, 1)), shared.reshape(batches, left)], 1)
