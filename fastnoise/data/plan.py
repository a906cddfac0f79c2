"""What every loader does in an epoch: which samples come in which batch, and how each is cropped, flipped and cut out.

All of it is drawn here, by NumPy, as a pure function of (seed, epoch), so that every loader gives the same batches and
an epoch can be entered at any batch. Loaders draw nothing themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import ConfigError
from .augment import Augmentation

DRAWS = 5
"""Numbers that say how one image is augmented: crop row and column, flip, cutout row and column."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What to do for B samples in V views: row v * B + b of the images is view v of sample b."""

    index: np.ndarray
    """int64 [B], positions in the table."""
    corner: np.ndarray | None
    """int32 [V * B, 2], row and column in the unpadded image at which the crop begins, from -P on. None: no crop, or
    one that `key` decides once the image's size is known."""
    flip: np.ndarray | None
    """int32 [V * B], 1 where the image is mirrored. None: no flips."""
    hole: np.ndarray | None = None
    """int32 [V * B, 2], row and column in the cropped and flipped image at which the cutout begins, perhaps outside.
    None: no cutout."""
    key: np.ndarray | None = None
    """uint64 [V * B], from which all other draws of the image follow (`placing.uniforms`). None: there are none."""

    def take(self, rows: np.ndarray, views: int) -> "Batch":
        """The samples at these places of the batch, with all their views."""

        def part(array: np.ndarray | None) -> np.ndarray | None:
            if array is None:
                return None
            return array.reshape(views, -1, *array.shape[1:])[:, rows].reshape(-1, *array.shape[1:])

        return Batch(self.index[rows], part(self.corner), part(self.flip), part(self.hole), part(self.key))

    def part(self, first: int, last: int, size: int, views: int) -> "Batch":
        """Of a whole epoch, as `PlannedEpoch.draw` gives it, the samples at first..last - 1 in batches of `size`, one
        behind the other: row (k * V + v) * size + b is view v of sample b of batch k. Each row has its own index."""

        def rows(array: np.ndarray | None) -> np.ndarray | None:
            if array is None:
                return None
            batches = array[:, first:last].reshape(len(array), -1, size, *array.shape[2:])
            return np.ascontiguousarray(batches.swapaxes(0, 1)).reshape(-1, *array.shape[2:])

        index = rows(np.broadcast_to(self.index, (views, len(self.index))))
        assert index is not None
        return Batch(index, *map(rows, (self.corner, self.flip, self.hole, self.key)))

    def packed(self) -> np.ndarray | None:
        """corner, flip and hole as int32 [..., DRAWS], zeros for those that are None; None if all are."""
        given = [part for part in (self.corner, self.flip, self.hole) if part is not None]
        if not given:
            return None
        shape = given[0].shape if given[0] is self.flip else given[0].shape[:-1]
        draws = np.zeros((*shape, DRAWS), dtype=np.int32)
        if self.corner is not None:
            draws[..., :2] = self.corner
        if self.flip is not None:
            draws[..., 2] = self.flip
        if self.hole is not None:
            draws[..., 3:] = self.hole
        return draws


class Plan:
    """The batches of every epoch over `num_samples` samples.

    Each sample comes once per epoch, or as often as an `order` given for the epoch names it. All batches are full but
    the last, which is smaller where `batch_size` does not divide the number of samples, or left out with `drop_last`.
    Each of `views` is drawn for itself; of several the first `weak_views` are weak (`Augmentation`). `source` is height
    and width of the images before they are augmented, which cutout and a crop of another size need; files of several
    sizes may have any if the augmentation resizes.

    With `shard`, (rank, size), it is the plan of one of several processes, all with equally many samples in each batch.
    Of an epoch's samples it takes those whose position leaves the remainder `rank`, in the order in which they come,
    as many as the process with the fewest has; what one process would do with a sample is done with it. Of an order
    given, a last batch that is smaller is left out where there is a full one. With `share_batches` the processes take
    the full batches of an order in turn, whatever the samples.

    ConfigError for a batch size that gives no batch, and for an augmentation that images of this size don't allow.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
        views: int = 1,
        weak_views: int = 1,
        source: tuple[int, int] = (1, 1),
        shard: tuple[int, int] = (0, 1),
        share_batches: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"the batch size must be at least 1, not {batch_size}")
        if not 0 <= seed < 2**64:
            raise ConfigError(f"the seed must be between 0 and 2^64 - 1, not {seed}")
        self.shard, self.share_batches = shard, share_batches
        self.own_samples = num_samples // shard[1]
        """Of an epoch in the plan's own order."""
        if drop_last and self.own_samples < batch_size:
            raise ConfigError(
                f"dropping the last batch leaves none: {self.own_samples} samples, batch size {batch_size}"
            )
        if views < 1:
            raise ConfigError(f"a sample is given in at least 1 view, not {views}")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.seed = seed
        self.shuffle = shuffle
        self.views = views
        self.weak_views = weak_views
        self.source = source
        self.augmentation = (augmentation or Augmentation()).simplified(source)
        self.size = self.augmentation.output_size(source)
        """Height and width of the images that come out."""
        self.crop_padding = self.augmentation.crop_padding
        self.flips = self.augmentation.flip
        self.cutout = self.augmentation.cutout
        self.augments = self.augmentation != Augmentation()
        self.num_batches = self.count_batches()

    def weak_rows(self, rows: int) -> int:
        """How many of a batch's `rows` of images, from the first on, are of weak views."""
        return rows // self.views * self.weak_views if self.views > 1 else 0

    def count_batches(self, order: np.ndarray | None = None) -> int:
        """Batches of an epoch, of all samples or in an order given for it."""
        if order is None:
            count = self.own_samples
        else:
            places = self.own_places(order)
            count = len(order) if places is None else len(places)
        return self._batches_of(count)

    def _batches_of(self, count: int) -> int:
        """Batches of so many samples of this process."""
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def own_places(self, order: np.ndarray) -> np.ndarray | None:
        """Which places of an order this process takes, int64; None: all."""
        rank, world = self.shard
        size = self.batch_size
        if world == 1:
            return None
        if self.share_batches:
            full = len(order) // (size * world)
            if not full:
                raise ConfigError(
                    f"an epoch of {len(order)} samples has no batch of {size} for each of {world} processes: lower "
                    "--batch-size, or start fewer processes"
                )
            batches = np.arange(rank, full * world, world)
            return (batches[:, None] * size + np.arange(size)).ravel()
        owner = np.asarray(order) % world
        count = int(np.bincount(owner, minlength=world).min())
        if count > size:
            count -= count % size
        return np.flatnonzero(owner == rank)[:count]

    def batches(self, epoch: int, start_batch: int = 0, order: np.ndarray | None = None) -> "PlannedEpoch":
        """The batches of an epoch from `start_batch` on.

        order: int64 [M], positions in the table to take in this order, in place of the plan's own.

        ConfigError if the epoch has no such batch or the table no such position.
        """
        if order is not None:
            order = np.array(order)  # a copy: the caller may write to its own while the epoch runs
            if order.ndim != 1 or not (np.issubdtype(order.dtype, np.integer) or order.size == 0):
                raise ConfigError(f"an order must be integers of shape [M], not {order.dtype} of {list(order.shape)}")
            if order.size and not 0 <= order.min() <= order.max() < self.num_samples:
                raise ConfigError(
                    f"an order spans the positions {order.min()}..{order.max()}, outside 0..{self.num_samples - 1}"
                )
            order = order.astype(np.int64, copy=False)
        count = self.count_batches(order)
        if epoch < 0 or not 0 <= start_batch <= count:
            raise ConfigError(f"no batch {start_batch} in epoch {epoch}: an epoch has {count} batches")
        return PlannedEpoch(self, epoch, start_batch, order)


@dataclass(frozen=True, eq=False)
class PlannedEpoch:
    """An epoch's batches, as an iterator makes them or drawn all at once."""

    plan: Plan
    epoch: int
    start_batch: int
    order: np.ndarray | None

    @cached_property
    def places(self) -> np.ndarray | None:
        """Which places of the order are this process's; None: all."""
        return None if self.order is None else self.plan.own_places(self.order)

    def spans(self) -> Iterator[tuple[int, int]]:
        """The first position of each batch in the epoch, and the one after its last."""
        plan = self.plan
        count = plan.own_samples if self.order is None else len(self.order if self.places is None else self.places)
        for batch in range(self.start_batch, plan._batches_of(count)):
            yield batch * plan.batch_size, min((batch + 1) * plan.batch_size, count)

    def draw(self) -> Batch:
        """The whole epoch as a batch of M samples, with the views in a dimension of their own: corner and hole
        [V, M, 2], flip [V, M].

        Of the plan's own order, what is drawn belongs to the sample, whatever its place; of an order given, which may
        repeat samples, it belongs to the place.
        """
        plan, order = self.plan, self.order
        count = plan.num_samples if order is None else len(order)
        index = np.arange(count) if order is None else order
        if order is None and plan.shuffle:
            index = self._stream(0).permutation(count)
        taken = index if order is None else self.places  # of what is drawn
        if order is not None and taken is not None:
            index = order[taken]
        elif plan.shard[1] > 1:
            index = taken = index[index % plan.shard[1] == plan.shard[0]][: plan.own_samples]

        def draw(purpose: int, low: int | list[int], high: int | list[int], *shape: int) -> np.ndarray:
            drawn = [
                self._stream(purpose, view).integers(low, high, (count, *shape), dtype=np.int32, endpoint=True)
                for view in range(plan.views)
            ]
            # take: part[index] in a tenth of the time
            return np.stack(drawn if taken is None else [part.take(taken, 0) for part in drawn])

        def alternating() -> np.ndarray:
            """1 in every other epoch, of which kind is drawn once for each sample and view, whatever its place."""
            kinds = [self._stream(5, view, epoch=0).integers(0, 2, plan.num_samples) for view in range(plan.views)]
            return np.stack([((kind[index] + self.epoch) % 2).astype(np.int32) for kind in kinds])

        hole = None
        if plan.cutout:
            low = -(plan.cutout // 2)
            hole = draw(3, [low, low], [low + plan.size[0] - 1, low + plan.size[1] - 1], 2)
        key = None
        if plan.augmentation.keyed:
            keys = [self._stream(4, view).integers(0, 2**64, count, dtype=np.uint64) for view in range(plan.views)]
            key = np.stack(keys if taken is None else [part.take(taken) for part in keys])
        ends = plan.augmentation.corners(plan.source)
        return Batch(
            index=index,
            corner=None if ends is None else draw(1, *ends, 2),
            flip=None if not plan.flips else alternating() if plan.augmentation.alternating else draw(2, 0, 1),
            hole=hole,
            key=key,
        )

    def _stream(self, purpose: int, view: int = 0, epoch: int | None = None) -> np.random.Generator:
        """One per purpose, so that the crops of a seed do not depend on whether the order is shuffled, and per view; of
        this epoch, or of another."""
        key = np.array([self.plan.seed, self.epoch if epoch is None else epoch], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, view, purpose]))

    def __iter__(self) -> Iterator[Batch]:
        whole = self.draw()

        def part(array: np.ndarray | None, first: int, last: int) -> np.ndarray | None:
            return None if array is None else array[:, first:last].reshape(-1, *array.shape[2:])

        for first, last in self.spans():
            drawn = (whole.corner, whole.flip, whole.hole, whole.key)
            yield Batch(whole.index[first:last], *(part(array, first, last) for array in drawn))
