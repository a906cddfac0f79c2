"""The DALI loader: one graph for the CPU and for CUDA."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.plugin.pytorch.torch_utils import feed_ndarray

from ..errors import DataError
from .base import BaseLoader, LoaderSpec
from .images import as_ppm, read_by_dali, read_image, unreadable
from .members import Member
from .plan import Batch, PlannedEpoch
from .table import ImageTable
from .torch_loader import prefetch

PREFETCH = 2
"""Batches that DALI works on ahead of the consumer."""


class Source:
    """Hands planned batches to DALI's external source, and remembers those that have not come out yet."""

    def __init__(self, spec: LoaderSpec, by_pillow: np.ndarray | None = None) -> None:
        self.spec, self.by_pillow = spec, by_pillow
        self.batches: Iterator[tuple[Batch, Any]] = iter(())
        self.in_flight: deque[np.ndarray] = deque()

    def start(self, batches: Iterable[Batch]) -> None:
        self.stop()
        # What Pillow decodes is made ahead in a thread, as DALI calls for a batch in the thread of the training.
        self.batches = ((batch, self._data(batch)) for batch in batches)
        if self.by_pillow is not None:
            self.batches = prefetch(self.batches, PREFETCH)
        self.in_flight.clear()

    def stop(self) -> None:
        """End the thread that reads ahead, if there is one."""
        if isinstance(self.batches, Generator):
            self.batches.close()

    def _data(self, batch: Batch) -> Any:
        """Images, or the paths or contents of files."""
        table = self.spec.table
        if table.images is not None:
            return table.images[batch.index]
        if self.by_pillow is None:
            return [np.frombuffer(os.fsencode(table.files[i]), dtype=np.uint8) for i in batch.index]
        with ThreadPoolExecutor(self.spec.threads) as pool:
            return list(pool.map(self._content, batch.index.tolist()))

    def _content(self, position: int) -> np.ndarray:
        """A file's bytes, or those of what Pillow decodes from it."""
        assert self.by_pillow is not None
        file = self.spec.table.files[position]
        if self.by_pillow[position]:
            return as_ppm(read_image(file, self.spec.size, self.spec.table.exif))
        return np.frombuffer(self.spec.table.read_bytes(position), np.uint8)

    def __call__(self) -> list[Any]:
        batch, data = next(self.batches)  # its StopIteration tells DALI that the epoch ends here
        self.in_flight.append(batch.index)
        views = self.spec.plan.views
        drawn = [
            part.reshape(views, -1, *part.shape[1:])
            for part in (batch.corner, batch.flip, batch.hole)
            if part is not None
        ]
        return [data, batch.index, *(part[view] for view in range(views) for part in drawn)]


def build_pipeline(
    source: Callable[[], list[Any]],
    spec: LoaderSpec,
    *,
    batch_size: int,
    gpu: bool,
    device_id: int | None,
    paths: bool = True,
) -> Pipeline:
    """The graph from (images, paths or files' contents, index, crop corner, flip and hole of each view) to (float32
    [B, H, W, C] for each view, int64 [B]).

    Every random choice comes in through `source`. `gpu` puts the image operators on the GPU `device_id`: uint8 pixels
    or encoded files are what is copied there. With `paths` DALI reads the files, else `source` gives their contents.
    """
    plan = spec.plan
    files = spec.table.images is None
    dtypes, ndims = [types.DALIDataType.UINT8, types.DALIDataType.INT64], [1 if files else 3, 0]
    drawn = [1] * bool(plan.crop_padding) + [0] * plan.flips + [1] * bool(plan.cutout)
    dtypes += [types.DALIDataType.INT32] * len(drawn) * plan.views
    ndims += drawn * plan.views
    pipeline = Pipeline(
        batch_size=batch_size,
        num_threads=spec.threads,
        device_id=device_id,
        prefetch_queue_depth=PREFETCH,
        exec_dynamic=True,  # its outputs are counted references: what the consumer holds is never written again
    )
    with pipeline:
        data, index, *random = fn.external_source(
            source=source, num_outputs=len(dtypes), dtype=dtypes, ndim=ndims, layout=["" if files else "HWC"]
        )
        if files:
            encoded: Any = data
            if paths:
                encoded = fn.io.file.read(data)  # type: ignore[attr-defined]  # DALI makes the module at run time
            images: Any = fn.decoders.image(
                encoded,
                device="mixed" if gpu else "cpu",
                output_type=types.DALIImageType.RGB,
                adjust_orientation=spec.table.exif,
                jpeg_fancy_upsampling=True,  # as the CPU's decoder does
            )
            images = fn.resize(
                images, size=list(spec.size), interp_type=types.DALIInterpType.INTERP_LINEAR, antialias=True
            )
        else:
            images = data.gpu() if gpu else data
        views = []
        for _ in range(plan.views):
            view = images
            if plan.crop_padding:
                # Not crop_pos_x and crop_pos_y: they round a fraction to a pixel, so that uniform fractions do not give
                # uniform offsets, and on the CPU their cost per image grows with the batch.
                corner = random.pop(0)
                view = fn.slice(view, start=corner, shape=list(spec.size), axis_names="HW", out_of_bounds_policy="pad")
            view = fn.crop_mirror_normalize(
                view,
                mirror=random.pop(0) if plan.flips else 0,
                mean=spec.mean.tolist(),
                std=spec.std.tolist(),
                dtype=types.DALIDataType.FLOAT,
                output_layout="HWC",
            )
            if plan.cutout:
                hole = fn.cast(random.pop(0), dtype=types.DALIDataType.FLOAT)
                view = fn.erase(view, anchor=hole, shape=[plan.cutout] * 2, axis_names="HW", fill_value=0)
            views.append(view)
        pipeline.set_outputs(*views, index.gpu() if gpu else index)
    return pipeline


def _by_pillow(table: ImageTable) -> np.ndarray | None:
    """bool [N]: the files whose pixels Pillow makes; None if there are none, and DALI can read all files itself."""
    if table.images is not None:
        return None
    found = table.by_pillow
    if found is None:
        found = np.array([not read_by_dali(file) for file in table.files])
    return found if found.any() or isinstance(table.files[0], Member) else None


def _copy(dense: Any, tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` with what DALI's tensor holds; on CUDA by torch's current stream, for which DALI's then wait."""
    stream = torch.cuda.current_stream(tensor.device) if tensor.is_cuda else None
    return feed_ndarray(dense, tensor, cuda_stream=stream)


class DaliLoader(BaseLoader):
    """Decodes, resizes, crops, flips and normalises in DALI, with `threads` of its threads.

    On the CPU batches are views of DALI's own buffers, which live as long as the tensors do. On CUDA they are copies
    (50 us for 77 MB), on torch's current stream at the time of the call and without waiting on the host; consume them
    on that stream. Views there would be given back by a thread of DALI's that synchronises the whole device, which
    ruins the capture of a CUDA graph that happens to be under way.
    """

    name = "dali"

    def __init__(self, spec: LoaderSpec, reason: str) -> None:
        super().__init__(spec, reason)
        self._by_pillow = _by_pillow(spec.table)
        self._source = Source(spec, self._by_pillow)
        self._pipeline: Pipeline | None = self._build(self._source, spec.plan.batch_size)
        self._pipeline.build()

    def _build(self, source: Source, batch_size: int) -> Pipeline:
        device = self.spec.device
        return build_pipeline(
            source,
            self.spec,
            batch_size=batch_size,
            gpu=device.type == "cuda",
            device_id=device.index,
            paths=self._by_pillow is None,
        )

    def _produce(self, planned: PlannedEpoch) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        pipeline = self._pipeline or self._build(self._source, self.batch_size)
        # Only a pipeline that has run to the end of its epoch is used again. After an error it is void, and after an
        # interrupt it may wait for a batch that was never started.
        self._pipeline = None
        self._source.start(planned)
        try:
            pipeline.schedule_run()
            while (outputs := self._outputs(pipeline)) is not None:
                self._source.in_flight.popleft()
                pipeline.schedule_run()
                yield outputs
        except RuntimeError as error:
            if (culprit := self._culprit()) is None:
                raise
            raise unreadable(culprit, "DALI cannot decode it") from error
        finally:
            self._source.stop()
        pipeline.reset()
        self._pipeline = pipeline

    def _outputs(self, pipeline: Pipeline) -> tuple[torch.Tensor, torch.Tensor] | None:
        on_cuda = self.spec.device.type == "cuda"
        try:
            outputs = pipeline.outputs(torch.cuda.current_stream(self.spec.device) if on_cuda else None)
        except StopIteration:
            return None
        *views, index = (output.as_tensor() for output in outputs)
        images, index = self._copied(views, index) if on_cuda else self._viewed(views, index)
        return images.permute(0, 3, 1, 2), index

    @staticmethod
    def _viewed(views: list[Any], index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [views * B, H, W, C], the views one behind the other, and their samples [B]."""
        tensors = [torch.from_dlpack(view) for view in views]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors), torch.from_dlpack(index)

    def _copied(self, views: list[Any], index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        batch, *image = views[0].shape()
        images = torch.empty((len(views) * batch, *image), dtype=torch.float32, device=self.spec.device)
        for view, part in zip(views, images.split(batch), strict=True):
            _copy(view, part)
        return images, _copy(index, torch.empty(batch, dtype=torch.int64, device=self.spec.device))

    def _culprit(self) -> str | None:
        """The file under way that DALI fails on. DALI does not say which, so halve them until one fails by itself."""
        files = self.spec.table.files
        suspects = [i for index in self._source.in_flight for i in index] if files else []
        while len(suspects) > 1:
            half = suspects[: len(suspects) // 2]
            suspects = half if self._fails(half) else suspects[len(half) :]
        return files[suspects[0]] if suspects and self._fails(suspects) else None

    def _fails(self, positions: list[int]) -> bool:
        source = Source(self.spec, self._by_pillow)
        plan = self.spec.plan
        zeros = np.zeros((plan.views * len(positions), 2), dtype=np.int32)
        corner, hole = zeros if plan.crop_padding else None, zeros if plan.cutout else None
        source.start([Batch(np.asarray(positions), corner, zeros[:, 0].copy() if plan.flips else None, hole)])
        try:
            self._build(source, len(positions)).run()
        except (RuntimeError, DataError):
            return True
        finally:
            source.stop()
        return False

    def close(self) -> None:
        super().close()
        self._pipeline = None
