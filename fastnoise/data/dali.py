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
from .augment import Augmentation
from .base import BaseLoader, LoaderSpec
from .images import as_ppm, read_by_dali, unreadable
from .members import any_within
from .placing import SourceSizes, place
from .plan import Batch, Plan, PlannedEpoch
from .table import ImageTable
from .torch_loader import Finish, prefetch

PREFETCH = 2
"""Batches that DALI works on ahead of the consumer."""


class Source:
    """Hands planned batches to DALI's external source, and remembers those that have not come out yet."""

    def __init__(self, spec: LoaderSpec, by_pillow: np.ndarray | None = None) -> None:
        self.spec, self.by_pillow = spec, by_pillow
        self.batches: Iterator[tuple[Batch, list[Any]]] = iter(())
        self.in_flight: deque[Batch] = deque()
        self._sizes = SourceSizes(spec.table, spec.common)

    def start(self, batches: Iterable[Batch]) -> None:
        self.stop()
        # What Pillow does is done ahead in a thread, as DALI calls for a batch in the thread of the training.
        self.batches = ((batch, self._inputs(batch)) for batch in batches)
        if self.by_pillow is not None or (self.spec.table.images is None and self.spec.plan.augmentation.places):
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
        if self.by_pillow[position]:
            return as_ppm(np.asarray(self.spec.decoded(position)))
        return np.frombuffer(self.spec.table.read_bytes(position), np.uint8)

    def _inputs(self, batch: Batch) -> list[Any]:
        """What the graph takes: the images, the index, and what is drawn, view after view (`_drawn`)."""
        plan = self.spec.plan
        parts: list[np.ndarray | None] = [batch.corner, batch.flip, batch.hole]
        if plan.augmentation.places:
            parts[:1] = self._placement(batch)
        if plan.augmentation.recolours:
            parts.pop()  # the hole is cut out at the end, on the host
        drawn = [part.reshape(plan.views, -1, *part.shape[1:]) for part in parts if part is not None]
        return [self._data(batch), batch.index, *(part[view] for view in range(plan.views) for part in drawn)]

    def _placement(self, batch: Batch) -> list[np.ndarray]:
        """The part of each image and its size; then the region that is resized, or the grid and the crop's corner."""
        plan = self.spec.plan
        with ThreadPoolExecutor(self.spec.threads) as pool:
            sizes = np.tile(self._sizes.of(batch.index, pool), (plan.views, 1))
        where = place(plan.augmentation, sizes, batch.key, batch.corner)
        parts: list[np.ndarray] = [where.part[:, :2], where.part[:, 2:]] if plan.augmentation.resized_crop else []
        if _by_region(plan.augmentation):
            parts += where.region(plan.size)
        else:
            parts += [where.grid.astype(np.float32)] * plan.augmentation.resizes
            parts += [where.corner] * _cut(plan.augmentation)
        return [np.ascontiguousarray(part) for part in parts]  # DALI takes no others

    def __call__(self) -> list[Any]:
        batch, inputs = next(self.batches)  # its StopIteration tells DALI that the epoch ends here
        self.in_flight.append(batch)
        return inputs


def _by_region(augmentation: Augmentation) -> bool:
    """Whether a crop of the resized image lies within it, so that nothing else need be resized."""
    if augmentation.resized_crop is not None or augmentation.crop_padding or augmentation.crop is None:
        return False
    grid = augmentation.resize
    least = (grid, grid) if isinstance(grid, int) else grid
    return least is not None and all(part <= side for part, side in zip(augmentation.crop, least, strict=True))


def _cut(augmentation: Augmentation) -> bool:
    """Whether the image is a window of what is resized, or of itself."""
    return augmentation.crop is not None or augmentation.crop_padding > 0


def _drawn(augmentation: Augmentation) -> list[tuple[types.DALIDataType, int]]:
    """The type and the number of dimensions of each input that a view has of its own."""
    whole, real = types.DALIDataType.INT32, types.DALIDataType.FLOAT
    found = [(whole, 1)] * (2 if augmentation.resized_crop is not None else 0)
    if _by_region(augmentation):
        found += [(real, 1)] * 2
    else:
        found += [(real, 1)] * augmentation.resizes + [(whole, 1)] * _cut(augmentation)
    cut = augmentation.cutout > 0 and not augmentation.recolours
    return found + [(whole, 0)] * augmentation.flip + [(whole, 1)] * cut


def build_pipeline(
    source: Callable[[], list[Any]],
    spec: LoaderSpec,
    *,
    batch_size: int,
    gpu: bool,
    device_id: int | None,
    paths: bool = True,
) -> Pipeline:
    """The graph from (images, paths or files' contents, index, and what is drawn for each view) to
    (float32 [B, H, W, C] for each view, int64 [B]); uint8 if the host recolours the images.

    Every random choice comes in through `source`. `gpu` puts the image operators on the GPU `device_id`: uint8 pixels
    or encoded files are what is copied there. With `paths` DALI reads the files, else `source` gives their contents.
    """
    plan = spec.plan
    files = spec.table.images is None
    drawn = _drawn(plan.augmentation) * plan.views
    dtypes = [types.DALIDataType.UINT8, types.DALIDataType.INT64, *(dtype for dtype, _ in drawn)]
    ndims = [1 if files else 3, 0, *(ndim for _, ndim in drawn)]
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
        if files and paths:
            data = fn.io.file.read(data)  # type: ignore[attr-defined]  # DALI makes the module at run time
        elif gpu and not files:
            data = data.gpu()
        whole = None if _fused(plan, files, gpu) else _whole(data, spec, gpu)
        views = []
        for _ in range(plan.views):
            view = _placed(data, spec, gpu, whole, random)
            if plan.augmentation.recolours:
                views.append(fn.flip(view, horizontal=random.pop(0)) if plan.flips else view)
                continue
            view = fn.crop_mirror_normalize(
                view,
                mirror=random.pop(0) if plan.flips else 0,
                mean=spec.mean.tolist(),
                std=spec.std.tolist(),
                dtype=_HALF if _in_half(spec) else types.DALIDataType.FLOAT,
                output_layout="HWC",
            )
            if plan.cutout:
                hole = fn.cast(random.pop(0), dtype=types.DALIDataType.FLOAT)
                view = fn.erase(view, anchor=hole, shape=[plan.cutout] * 2, axis_names="HW", fill_value=0)
            views.append(view)
        pipeline.set_outputs(*views, index.gpu() if gpu else index)
    return pipeline


_HALF = types.DALIDataType.FLOAT16


def _in_half(spec: LoaderSpec) -> bool:
    """Whether DALI itself gives float16, which saves a pass. It has no bfloat16, and cannot cut out of float16."""
    return spec.dtype == torch.float16 and not spec.plan.cutout


def _fused(plan: Plan, files: bool, gpu: bool) -> bool:
    """Whether only a part of each file is decoded. On the CPU it has the pixels of the whole image to the bit."""
    return files and not gpu and plan.views == 1 and plan.augmentation.resized_crop is not None


def _decoding(spec: LoaderSpec, gpu: bool) -> dict[str, Any]:
    """The settings of DALI's decoders."""
    settings: dict[str, Any] = {
        "device": "mixed" if gpu else "cpu",
        "output_type": types.DALIImageType.RGB,
        "adjust_orientation": spec.table.exif,
        "jpeg_fancy_upsampling": True,  # as the CPU's decoder does
    }
    return settings | _ON_GPU if gpu else settings


_ON_GPU: dict[str, Any] = {
    "hw_decoder_load": 0.9,
    "preallocate_width_hint": 5980,
    "preallocate_height_hint": 6430,
    "device_memory_padding": 211_025_920,
    "host_memory_padding": 140_544_512,
}
"""Most JPEG files go to the GPU's own decoder, because few CPU threads are left beside a training. Memory is set aside
for the largest image of ImageNet, as in NVIDIA's example for it, so that no batch waits for an allocation."""

_RESIZE: dict[str, Any] = {"interp_type": types.DALIInterpType.INTERP_LINEAR, "antialias": True}


def _whole(data: Any, spec: LoaderSpec, gpu: bool) -> Any:
    """Images as the augmentation finds them."""
    if spec.table.images is not None:
        return data
    images = fn.decoders.image(data, **_decoding(spec, gpu))
    return images if spec.common is None else fn.resize(images, size=list(spec.common), **_RESIZE)


def _window(images: Any, corner: Any, size: tuple[int, int]) -> Any:
    # Not crop_pos_x and crop_pos_y: they round a fraction to a pixel, so that uniform fractions do not give
    # uniform offsets, and on the CPU their cost per image grows with the batch.
    return fn.slice(images, start=corner, shape=list(size), axis_names="HW", out_of_bounds_policy="pad")


def _placed(data: Any, spec: LoaderSpec, gpu: bool, whole: Any, random: list[Any]) -> Any:
    """A view of its image: the part that a `Placing` names, or a crop of the image's own size."""
    augmentation = spec.plan.augmentation
    if augmentation.resized_crop is not None:
        part = {"start": random.pop(0), "shape": random.pop(0), "axis_names": "HW"}
        whole = (
            fn.slice(whole, **part)
            if whole is not None
            else fn.decoders.image_slice(data, **part, **_decoding(spec, gpu))
        )
    if _by_region(augmentation):
        first, last = random.pop(0), random.pop(0)
        return fn.resize(whole, size=list(spec.size), roi_start=first, roi_end=last, **_RESIZE)
    if augmentation.resizes:
        whole = fn.resize(whole, size=random.pop(0), **_RESIZE)
    return _window(whole, random.pop(0), spec.size) if _cut(augmentation) else whole


def _by_pillow(table: ImageTable) -> np.ndarray | None:
    """bool [N]: the files whose pixels Pillow makes; None if there are none, and DALI can read all files itself."""
    if table.images is not None:
        return None
    found = table.by_pillow
    if found is None:
        found = np.array([not read_by_dali(file) for file in table.files])
    return found if found.any() or any_within(table.files) else None


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
        self._finish = Finish(spec) if spec.plan.augmentation.recolours else None
        self._pipeline: Pipeline | None = self._build(self._source, spec.plan.batch_size)
        self._pipeline.build()

    def _build(self, source: Source, batch_size: int) -> Pipeline:
        device = self.spec.device
        return build_pipeline(
            source,
            self.spec,
            batch_size=batch_size,
            gpu=device.type == "cuda" and not self.spec.plan.augmentation.recolours,
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
                batch = self._source.in_flight.popleft()
                pipeline.schedule_run()
                yield outputs if self._finish is None else self._finished(batch, outputs)
        except RuntimeError as error:
            if (culprit := self._culprit()) is None:
                raise
            raise unreadable(culprit, "DALI cannot decode it") from error
        finally:
            self._source.stop()
        pipeline.reset()
        self._pipeline = pipeline

    def _outputs(self, pipeline: Pipeline) -> tuple[torch.Tensor, torch.Tensor] | None:
        on_cuda = self.spec.device.type == "cuda" and self._finish is None
        try:
            outputs = pipeline.outputs(torch.cuda.current_stream(self.spec.device) if on_cuda else None)
        except StopIteration:
            return None
        *views, index = (output.as_tensor() for output in outputs)
        images, index = self._copied(views, index) if on_cuda else self._viewed(views, index)
        return images.permute(0, 3, 1, 2), index

    def _finished(self, batch: Batch, outputs: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """What DALI has cropped and flipped, uint8, with what the host does to whole images."""
        assert self._finish is not None
        pixels = outputs[0].permute(0, 2, 3, 1).numpy().copy()  # DALI's own buffer is not ours to write
        with ThreadPoolExecutor(self.spec.threads) as pool:
            return self._finish.on_device(self._finish.on_host(batch, pixels, pool))

    @staticmethod
    def _viewed(views: list[Any], index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [views * B, H, W, C], the views one behind the other, and their samples [B]."""
        tensors = [torch.from_dlpack(view) for view in views]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors), torch.from_dlpack(index)

    def _copied(self, views: list[Any], index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        batch, *image = views[0].shape()
        dtype = torch.float16 if _in_half(self.spec) else torch.float32
        images = torch.empty((len(views) * batch, *image), dtype=dtype, device=self.spec.device)
        for view, part in zip(views, images.split(batch), strict=True):
            _copy(view, part)
        return images, _copy(index, torch.empty(batch, dtype=torch.int64, device=self.spec.device))

    def _culprit(self) -> str | None:
        """The file under way that DALI fails on. DALI does not say which, so halve them until one fails by itself."""
        files, views = self.spec.table.files, self.spec.plan.views
        for batch in self._source.in_flight if files else ():
            suspects = np.arange(len(batch.index))
            if not self._fails(batch):
                continue
            while len(suspects) > 1:
                half = suspects[: len(suspects) // 2]
                suspects = half if self._fails(batch.take(half, views)) else suspects[len(half) :]
            return files[batch.index[suspects[0]]]
        return None

    def _fails(self, batch: Batch) -> bool:
        source = Source(self.spec, self._by_pillow)
        source.start([batch])
        try:
            self._build(source, len(batch.index)).run()
        except (RuntimeError, DataError):
            return True
        finally:
            source.stop()
        return False

    def close(self) -> None:
        super().close()
        self._pipeline = None
