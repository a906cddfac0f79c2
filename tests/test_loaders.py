"""Loaders: one contract, every implementation. DALI runs on the CPU here."""

import contextlib
import gc
import hashlib
import signal
import subprocess
import sys
import threading
import time
import weakref
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastnoise.data import Augmentation, ImageTable, loaders, make_loader, resident
from fastnoise.data.base import aligned_parts
from fastnoise.data.plan import Plan
from fastnoise.data.torch_loader import normalise
from fastnoise.errors import ConfigError, DataError

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
AUGMENTATION = Augmentation(crop_padding=4, flip=True)

try:
    import nvidia.dali  # noqa: F401

    HAS_DALI = True
except ImportError:
    HAS_DALI = False
needs_dali = pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
FILE_KINDS = [pytest.param("dali", marks=needs_dali), "torch"]
KINDS = [*FILE_KINDS, "resident"]
ALL_KINDS = [*KINDS, "synthetic"]


def table(count: int = 37, height: int = 32, width: int = 32, channels: int = 3) -> ImageTable:
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return ImageTable(rng.integers(0, 10, count), images=images)


def loader(kind: str, data: ImageTable, **settings):
    channels = data.shape[0]
    settings = {"batch_size": 8, "mean": MEAN[:channels], "std": STD[:channels], "device": "cpu"} | settings
    return make_loader(kind, data, **settings)


def collect(batches) -> tuple[np.ndarray, np.ndarray]:
    """All of an epoch: images [N, C, H, W] and index [N], in the order they came."""
    images, index = zip(*batches, strict=True)
    return torch.cat(images).numpy(), torch.cat(index).numpy()


def pixels(images: np.ndarray) -> np.ndarray:
    """Undo the normalisation of [N, C, H, W]: uint8 [N, H, W, C]."""
    channels = images.shape[1]
    scaled = images.transpose(0, 2, 3, 1) * np.array(STD[:channels]) + np.array(MEAN[:channels])
    rounded = np.rint(scaled * 255)
    assert np.abs(scaled * 255 - rounded).max() < 1e-3
    return rounded.astype(np.uint8)


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Unlike torch.equal tells 0 from -0."""
    return first.dtype == second.dtype and np.array_equal(first.numpy().view(np.int32), second.numpy().view(np.int32))


def augmented(image: np.ndarray, corner: np.ndarray, flip: int, padding: int) -> np.ndarray:
    """One image [H, W, C] at a time, by the words of the contract."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    top, left = corner + padding
    crop = padded[top : top + height, left : left + width]
    return crop[:, ::-1] if flip else crop


# The plan


def test_plan_draws_every_offset_and_flip_equally_often():
    plan = Plan(40_500, 128, seed=1, augmentation=Augmentation(4, True))
    batches = list(plan.batches(0))
    corner = np.concatenate([batch.corner for batch in batches]) + 4
    flip = np.concatenate([batch.flip for batch in batches])
    counts = np.bincount(corner[:, 0] * 9 + corner[:, 1], minlength=81)
    assert len(counts) == 81
    assert ((counts - 500) ** 2 / 500).sum() < 124.8  # chi-square, 80 degrees of freedom: the 99.9 % quantile
    assert abs(flip.mean() - 0.5) < 3.3 * 0.5 / 40_500**0.5


def test_plan_draws_crops_and_flips_per_sample_whatever_the_order():
    plain, shuffled = (Plan(50, 7, seed=5, augmentation=AUGMENTATION, shuffle=shuffle) for shuffle in (False, True))
    by_sample = {
        int(i): (tuple(corner), flip)
        for batch in shuffled.batches(3)
        for i, corner, flip in zip(batch.index, batch.corner, batch.flip, strict=True)
    }
    assert len(by_sample) == 50
    for batch in plain.batches(3):
        for i, corner, flip in zip(batch.index, batch.corner, batch.flip, strict=True):
            assert by_sample[int(i)] == (tuple(corner), flip)


def test_plan_draws_what_it_always_drew():
    """Recorded results rest on these streams."""
    plan = Plan(1000, 128, seed=3, augmentation=Augmentation(4, True), shuffle=True)
    found = hashlib.sha256()
    for batch in plan.batches(5):
        for part, dtype in ((batch.index, "<i8"), (batch.corner, "<i4"), (batch.flip, "<i4")):
            found.update(part.astype(dtype).tobytes())
    assert found.hexdigest() == "73aff911666367a21306a603121c634ae068a5440aeaa9fccb82ea57baf8e4c2"


def test_plan_views_are_drawn_apart_and_the_first_as_if_alone():
    settings = {"seed": 3, "augmentation": Augmentation(4, True, cutout=6), "shuffle": True, "source": (32, 32)}
    alone, three = (Plan(1000, 1000, **settings, views=views) for views in (1, 3))
    for order in (None, np.arange(1000) % 10):
        one, many = (next(iter(plan.batches(1, order=order))) for plan in (alone, three))
        assert np.array_equal(one.index, many.index)
        for part in ("corner", "flip", "hole"):
            views = np.split(getattr(many, part), 3)
            assert np.array_equal(views[0], getattr(one, part))
            for first, second in ((0, 1), (0, 2), (1, 2)):
                same = (views[first] == views[second]).mean()
                assert same == pytest.approx({"corner": 1 / 9, "flip": 1 / 2, "hole": 1 / 32}[part], abs=0.06)


def test_plan_draws_an_explicit_order_by_place():
    plan = Plan(10, 64, seed=3, augmentation=Augmentation(4, True, cutout=6), source=(32, 32), shuffle=True)
    order = np.repeat([7, 2], 5000)
    batches = list(plan.batches(2, order=order))
    assert len(batches) == plan.count_batches(order) == 157
    assert np.array_equal(np.concatenate([batch.index for batch in batches]), order)
    corner = np.concatenate([batch.corner for batch in batches]) + 4
    counts = np.bincount(corner[:, 0] * 9 + corner[:, 1], minlength=81)
    assert ((counts - 10_000 / 81) ** 2 / (10_000 / 81)).sum() < 124.8  # as above
    centre = np.concatenate([batch.hole for batch in batches]) + 3
    for counts in (np.bincount(centre[:, 0]), np.bincount(centre[:, 1])):
        assert len(counts) == 32
        assert ((counts - 10_000 / 32) ** 2 / (10_000 / 32)).sum() < 61.1  # 31 degrees of freedom
    other = next(iter(plan.batches(3, order=order)))
    assert not np.array_equal(other.corner, batches[0].corner)
    rest = list(plan.batches(2, start_batch=100, order=order))
    assert len(rest) == 57
    assert all(np.array_equal(one.hole, other.hole) for one, other in zip(rest, batches[100:], strict=True))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch size"),
        ({"batch_size": 64, "drop_last": True}, "37 samples, batch size 64"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"threads": 0}, "thread"),
        ({"mean": (0.5,)}, "1 means and 3 standard deviations"),
        ({"std": (0.2, 0.0, 0.2)}, "positive"),
        ({"image_size": 64}, "only image files are resized"),
        ({"image_size": 0}, "at least 1 pixel"),
        ({"views": 0}, "at least 1 view"),
        ({"dtype": torch.float64}, "float32, float16 or bfloat16, not float64"),
        ({"kind": "tensorflow"}, "valid: auto, dali, resident, synthetic, torch"),
        ({"kind": "dalli"}, "did you mean 'dali'"),
    ],
)
def test_settings_that_are_refused(settings, words):
    with pytest.raises(ConfigError) as caught:
        loader(**({"kind": "torch", "data": table()} | settings))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refused_augmentation_epoch_and_empty_table():
    with pytest.raises(ConfigError, match="crop padding"):
        Augmentation(-1, False)
    with pytest.raises(ConfigError, match="cutout"):
        Augmentation(4, True, cutout=-1)
    batches = loader("torch", table())
    for epoch, start in ((-1, 0), (0, 6), (0, -1)):
        with pytest.raises(ConfigError, match="an epoch has 5 batches"):
            batches.epoch(epoch, start)
    with pytest.raises(DataError, match="no samples"):
        loader("torch", table().take(np.array([], int)))


def test_the_largest_seed_is_its_own():
    first, second = (iter(Plan(100, 100, seed=seed, shuffle=True).batches(0)) for seed in (2**64 - 1, 2**64 - 2))
    assert not np.array_equal(next(first).index, next(second).index)


# The choice


def test_explicit_kinds_are_named():
    torch_loader = loader("torch", table())
    assert (torch_loader.name, torch_loader.reason) == ("torch", "torch was asked for")
    assert loader("resident", table()).reason == "resident was asked for"
    assert "noise" in loader("synthetic", table()).reason


def test_auto_takes_the_table_in_memory():
    chosen = loader("auto", table(1000))
    assert chosen.name == "resident"
    assert chosen.reason == "images in memory (3.1 MB) are augmented fastest by the C++ core"


@needs_dali
def test_auto_takes_dali_for_files(tmp_path):
    chosen = loader("auto", folder_of(tmp_path, 3))
    assert (chosen.name, chosen.reason) == ("dali", "images in files are not held in memory; DALI is installed")
    assert loader("dali", table()).name == "dali"


def choice_on_cuda(monkeypatch, free: int, kind: str = "auto") -> tuple[str, str]:
    monkeypatch.setattr(resident, "free_memory", lambda device: free)
    monkeypatch.setattr(loaders, "import_module", lambda name: None)
    return loaders._choose(kind, table(1000), torch.device("cuda", 0))


def test_auto_on_cuda_goes_by_the_free_memory(monkeypatch):
    size = table(1000).images.nbytes
    fits = ("resident", "the images (3.1 MB) fit into the device's free memory (6.1 MB)")
    assert choice_on_cuda(monkeypatch, 2 * size) == fits
    name, reason = choice_on_cuda(monkeypatch, 2 * size - 1)
    assert name == "dali"
    assert reason == "the images (3.1 MB) take more than 50% of the device's free 6.1 MB; DALI is installed"
    assert choice_on_cuda(monkeypatch, 0, "resident")[0] == "resident"  # it is refused when the table is uploaded
    data, device = table(1000), torch.device("cpu")
    assert resident.room(data, device) == 0
    held = resident.on_device(data, device)
    assert resident.room(data, device) == held.numel()


def test_resident_on_cuda_needs_triton(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(loaders, "import_module", missing)
    with pytest.raises(ConfigError, match="Triton cannot be imported"):
        loaders._choose("resident", table(), torch.device("cuda"))
    assert loaders._choose("auto", table(), torch.device("cuda"))[0] == "torch"


def test_resident_refuses_what_it_cannot_hold(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="images in files") as caught:
        loader("resident", folder_of(tmp_path, 3))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(resident, "free_memory", lambda device: 10**6)
    with pytest.raises(ConfigError, match=r"3\.1 MB, of which 1\.0 MB are free; choose the dali or torch loader"):
        resident.on_device(table(1000), torch.device("cuda"))


@pytest.mark.parametrize(
    ("part_bytes", "free", "parts"),
    [
        (2**29, 2**40, [(8, 128, 8), (128, 131, 3)]),
        (2**29, 16 * 2 * 98304, [(8, 24, 8), (24, 40, 8)]),
        (3 * 98304, 2**40, [(8, 32, 8), (32, 56, 8)]),
        (2**29, 0, [(8, 16, 8), (16, 24, 8)]),
    ],
    ids=["an epoch", "free", "bytes", "one batch"],
)
def test_resident_on_cuda_makes_as_many_batches_at_once_as_memory_allows(monkeypatch, part_bytes, free, parts):
    """A batch of 8 samples in two views takes 98,304 bytes."""
    pytest.importorskip("triton", reason="needs triton")
    monkeypatch.setattr(resident, "PART_BYTES", part_bytes)
    monkeypatch.setattr(resident, "free_memory", lambda device: free)
    batches = loader("resident", table(131), views=2, dtype=torch.bfloat16)
    found = list(batches._parts(batches.spec.plan.batches(0, 1)))
    assert found[:2] == parts
    assert found[-1] == (128, 131, 3)
    assert [first for first, *_ in found[1:]] == [last for _, last, _ in found[:-1]]


def test_resident_on_cuda_makes_batches_of_one_size_at_once():
    """A stack's batches become smaller, and differ, as its runs end their epochs."""
    pytest.importorskip("triton", reason="needs triton")

    class Ragged:
        def spans(self):
            return iter([(0, 8), (8, 16), (16, 23), (23, 27), (27, 31), (31, 33)])

    found = list(loader("resident", table(40))._parts(Ragged()))
    assert found == [(0, 16, 8), (16, 23, 7), (23, 31, 4), (31, 33, 2)]


@pytest.mark.parametrize("size", [3, 4])
def test_parts_of_an_index_are_aligned(size):
    """Kernels of torch.compile and Triton are compiled anew for what doesn't begin at 16 bytes."""
    index = torch.arange(14)
    parts = list(aligned_parts(index, size, 14, size))
    assert torch.equal(torch.cat(parts), index[size:])
    assert [len(part) for part in parts[:-1]] == [size] * (len(parts) - 1)
    assert not any(part.data_ptr() % 16 for part in parts)
    whole = [part for part in parts if part.untyped_storage().data_ptr() == index.data_ptr()]
    assert len(whole) == (len(parts) if size == 4 else len(parts) // 2)


def test_loaders_of_one_table_share_its_upload():
    data = table()
    device = torch.device("cpu")
    first = resident.on_device(data, device)
    assert resident.on_device(data, device) is first
    assert resident.on_device(table(), device) is not first
    alive = weakref.ref(first)
    del first
    gc.collect()
    assert alive() is None


def test_without_dali(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)  # makes the import fail
    chosen = loader("auto", folder_of(tmp_path, 3))
    assert chosen.name == "torch"
    assert "pip install nvidia-dali" in chosen.reason
    with pytest.raises(ConfigError, match="pip install nvidia-dali"):
        loader("dali", table())


def test_dali_that_does_not_load(monkeypatch, tmp_path):
    def broken(name):
        raise OSError("libdali.so: cannot open\nshared object")

    monkeypatch.setattr(loaders, "import_module", broken)
    reason = loader("auto", folder_of(tmp_path, 3)).reason
    assert reason.endswith("; DALI cannot be imported (libdali.so: cannot open shared object)")


def test_devices_that_are_not_there(monkeypatch):
    with pytest.raises(ConfigError, match="not meta"):
        loader("dali", table(), device="meta")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device"):
        loader("auto", table(), device="cuda")


# What all loaders do


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_form_of_the_batches(kind, channels):
    data = table(37, 12, 10, channels)  # not square, so that height and width cannot change places
    batches = loader(kind, data, augmentation=AUGMENTATION, shuffle=True)
    assert (batches.num_samples, batches.batch_size, batches.num_batches) == (37, 8, 5)
    given = list(batches.epoch(0))
    assert [len(index) for _, index in given] == [8, 8, 8, 8, 5]
    for images, index in given:
        assert images.shape == (len(index), channels, 12, 10)
        assert images.stride() == (12 * 10 * channels, 1, 10 * channels, channels)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert (images.dtype, images.device.type) == (torch.float32, "cpu")
        assert (index.dtype, index.device.type, index.ndim) == (torch.int64, "cpu", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_gives_every_sample_once_in_order(kind):
    data = table()
    images, index = collect(loader(kind, data).epoch(0))
    assert index.tolist() == list(range(37))
    assert np.array_equal(pixels(images), data.images)
    expected = (data.images / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(images.transpose(0, 2, 3, 1), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_training_gives_every_sample_once_in_an_order_of_its_own(kind):
    data = table(200)
    batches = loader(kind, data, shuffle=True, seed=4)
    epochs = [collect(batches.epoch(epoch)) for epoch in (0, 1, 0)]
    for images, index in epochs:
        assert sorted(index) == list(range(200))
        assert np.array_equal(pixels(images), data.images[index])
    assert np.array_equal(epochs[0][1], epochs[2][1])
    assert not np.array_equal(epochs[0][1], epochs[1][1])
    assert not np.array_equal(epochs[0][1], collect(loader(kind, data, shuffle=True, seed=5).epoch(0))[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "augmentation", [Augmentation(4, True), Augmentation(3, False), Augmentation(0, True), Augmentation(0, False)]
)
@pytest.mark.parametrize("shape", [(32, 32, 3), (8, 8, 1), (5, 9, 3)])
def test_augmentation_equals_the_plain_reference(kind, augmentation, shape):
    data = table(61, *shape)
    settings = {"seed": 7, "augmentation": augmentation, "shuffle": True}
    batches = loader(kind, data, **settings)
    plan = Plan(61, 8, **settings)
    for (images, index), planned in zip(batches.epoch(2), plan.batches(2), strict=True):
        assert np.array_equal(index.numpy(), planned.index)
        count = len(index)
        corner = np.zeros((count, 2), int) if planned.corner is None else planned.corner
        flip = np.zeros(count, int) if planned.flip is None else planned.flip
        padding = augmentation.crop_padding
        expected = np.stack(
            [augmented(data.images[i], *how, padding) for i, *how in zip(index, corner, flip, strict=True)]
        )
        assert np.array_equal(pixels(images.numpy()), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(10, 7, 3), (8, 8, 1), (6, 9, 4)])
@pytest.mark.parametrize("side", [1, 4, 5, 40])
def test_cutout_equals_the_plain_reference(kind, shape, side):
    height, width, channels = shape
    data = table(23, *shape)
    settings = {"seed": 7, "shuffle": True, "views": 2}
    constants = {"mean": (0.5,) * channels, "std": (0.2,) * channels}
    plain = loader(kind, data, augmentation=Augmentation(2, True), **settings, **constants)
    cut = loader(kind, data, augmentation=Augmentation(2, True, side), **settings, **constants)
    planned = Plan(23, 8, augmentation=Augmentation(2, True, side), source=(height, width), **settings)
    for (whole, _), (images, _), batch in zip(plain.epoch(1), cut.epoch(1), planned.batches(1), strict=True):
        for row, (top, left) in enumerate(batch.hole):
            assert 0 <= top + side // 2 < height  # the centre lies in the image
            assert 0 <= left + side // 2 < width
            whole[row, :, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
        assert torch.equal(images, whole)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_an_order_replaces_the_permutation(kind):
    data = table(30)
    batches = loader(kind, data, shuffle=True, seed=2, augmentation=AUGMENTATION)
    order = np.array([5, 5, 29, 0, 5, 7, 7, 7, 1, 2, 3])
    assert batches.count_batches() == batches.num_batches == 4
    assert batches.count_batches(order) == 2
    given = list(batches.epoch(0, order=order))
    assert [index.tolist() for _, index in given] == [order[:8].tolist(), order[8:].tolist()]
    assert [len(images) for images, _ in given] == [8, 3]
    ((rest, _),) = batches.epoch(0, 1, order)
    assert torch.equal(rest, given[1][0])
    assert list(batches.epoch(0, order=order[:0])) == []
    written = order.copy()
    running = batches.epoch(0, order=written)
    written[:] = 0
    assert torch.equal(next(running)[1], given[0][1])
    if kind != "synthetic":
        one, two, three = given[0][0][[0, 1, 4]]
        assert not (torch.equal(one, two) and torch.equal(one, three))
    assert sorted(collect(batches.epoch(0))[1]) == list(range(30))
    assert loader(kind, data, drop_last=True).count_batches(order) == 1


@pytest.mark.parametrize(
    ("order", "words"),
    [([0, 37], r"0\.\.37, outside 0\.\.36"), ([-1, 3], r"-1\.\.3"), ([0.5], "float64"), ([[1]], r"\[1, 1\]")],
)
def test_orders_that_are_refused(order, words):
    with pytest.raises(ConfigError, match=words):
        loader("torch", table()).epoch(0, order=np.array(order))


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_views_and_dtypes(kind, dtype):
    data = table(37, 12, 10)
    settings = {"augmentation": Augmentation(2, True, 3), "shuffle": True, "seed": 6}
    given = list(loader(kind, data, **settings, views=3, dtype=dtype).epoch(1))
    assert [len(images) for images, _ in given] == [24, 24, 24, 24, 15]
    for (images, index), (single, single_index) in zip(given, loader(kind, data, **settings).epoch(1), strict=True):
        assert (images.dtype, index.dtype) == (dtype, torch.int64)
        assert images.stride() == (360, 1, 30, 3)
        assert torch.equal(index, single_index)
        if kind != "synthetic":
            views = images.chunk(3)
            assert torch.equal(views[0], single.to(dtype))
            assert not torch.equal(views[0], views[1])
            assert not torch.equal(views[1], views[2])


def test_synthetic_images_are_noise_and_stay_where_they_are():
    batches = loader("synthetic", table(200), seed=1, shuffle=True)
    images = [images for images, _ in batches.epoch(0)]
    assert len({part.data_ptr() for part in images}) == 4
    drawn = torch.cat(images[:4])
    assert abs(drawn.mean()) < 0.02
    assert abs(drawn.std() - 1) < 0.02
    assert sorted(collect(batches.epoch(1))[1]) == list(range(200))


@pytest.mark.parametrize("kind", KINDS)
def test_crops_seen_in_the_images_are_flat(kind):
    # The pixels hold their own coordinates, so that a crop's centre tells where it began.
    coordinates = np.indices((16, 16), dtype=np.uint8).transpose(1, 2, 0) + 1
    image = np.concatenate([coordinates, np.full((16, 16, 1), 200, np.uint8)], axis=2)
    data = ImageTable(np.zeros(16_200, int), images=np.broadcast_to(image, (16_200, 16, 16, 3)))
    images, _ = collect(loader(kind, data, batch_size=128, augmentation=Augmentation(4, False)).epoch(0))
    offsets = pixels(images[:, :, 8:9, 8:9])[:, 0, 0, :2].astype(int) - 9 + 4
    counts = np.bincount(offsets[:, 0] * 9 + offsets[:, 1], minlength=81)
    assert len(counts) == 81
    assert ((counts - 200) ** 2 / 200).sum() < 124.8  # as above


@needs_dali
@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1)])
@pytest.mark.parametrize("cutout", [0, 9])
def test_loaders_give_the_same_batches(shape, cutout):
    """The C++ core gives the torch loader's bits; DALI's normalisation rounds otherwise."""
    data = table(150, *shape)
    settings = {"seed": 9, "augmentation": Augmentation(4, True, cutout), "shuffle": True, "batch_size": 32, "views": 2}
    dali, core, reference = (loader(kind, data, **settings) for kind in ("dali", "resident", "torch"))
    for order in (None, np.arange(77) * 3 % 20):
        for by_dali, by_core, (images, index) in zip(
            *(kind.epoch(1, order=order) for kind in (dali, core, reference)), strict=True
        ):
            assert torch.equal(index, by_dali[1])
            assert torch.equal(index, by_core[1])
            assert same_bits(by_core[0], images)
            torch.testing.assert_close(by_dali[0], images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("start", [0, 1, 3, 4, 5])
def test_an_epoch_can_be_entered_at_any_batch(kind, start):
    settings = {"seed": 2, "augmentation": AUGMENTATION, "shuffle": True}
    whole = list(loader(kind, table(), **settings).epoch(6))
    rest = list(loader(kind, table(), **settings).epoch(6, start_batch=start))
    assert len(rest) == 5 - start
    for (images, index), (expected_images, expected_index) in zip(rest, whole[start:], strict=True):
        assert torch.equal(index, expected_index)
        assert torch.equal(images, expected_images)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize(("count", "sizes"), [(37, [8, 8, 8, 8]), (16, [8, 8]), (8, [8])])
def test_drop_last(kind, count, sizes):
    batches = loader(kind, table(count), shuffle=True, drop_last=True)
    for epoch in range(3):
        index = [index for _, index in batches.epoch(epoch)]
        assert [len(part) for part in index] == sizes
        assert len(torch.cat(index).unique()) == sum(sizes)
    assert batches.num_batches == len(sizes)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (7, [7]), (8, [8]), (9, [8, 1]), (16, [8, 8])])
def test_small_epochs(kind, count, sizes):
    batches = loader(kind, table(count), augmentation=AUGMENTATION)
    for epoch in range(2):
        assert [len(index) for _, index in batches.epoch(epoch)] == sizes


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_batches_stay_as_they_were_given(kind):
    batches = loader(kind, table(200), batch_size=16, augmentation=AUGMENTATION, shuffle=True)
    held = [
        (images, images.clone(), index, index.clone()) for epoch in range(3) for images, index in batches.epoch(epoch)
    ]
    batches.close()
    del batches
    for images, copy, index, index_copy in held:
        assert torch.equal(images, copy)
        assert torch.equal(index, index_copy)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_abandoned_epochs(kind):
    settings = {"augmentation": AUGMENTATION, "shuffle": True}
    batches = loader(kind, table(200), **settings)
    expected = collect(loader(kind, table(200), **settings).epoch(1))[0]
    threads = threading.active_count()
    for taken in range(4):
        for number, (images, _) in enumerate(batches.epoch(0), 1):
            held, copy = images, images.clone()
            if number > taken:
                break
        assert np.array_equal(collect(batches.epoch(1))[0], expected)
        assert torch.equal(held, copy)
    with pytest.raises(ZeroDivisionError):
        any(1 / 0 for _ in batches.epoch(0))
    assert np.array_equal(collect(batches.epoch(1))[0], expected)
    batches.epoch(0)  # never started
    batches.close()
    batches.close()
    assert "fastnoise-prefetch" not in {thread.name for thread in threading.enumerate()}
    assert threading.active_count() <= threads
    assert np.array_equal(collect(batches.epoch(1))[0], expected)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_later_epoch_ends_an_earlier_one_aloud(kind):
    batches = loader(kind, table(200))
    first = batches.epoch(0)
    next(first)
    second = batches.epoch(1)
    next(second)
    with pytest.raises(RuntimeError, match="later epoch"):
        next(first)
    assert len(list(second)) == batches.num_batches - 1
    third = batches.epoch(2)
    next(third)
    batches.close()
    with pytest.raises(RuntimeError, match="close"):
        next(third)


def test_an_error_in_the_thread_is_raised_at_the_consumer(monkeypatch):
    batches = loader("torch", table())
    pixels_of = type(batches)._pixels

    def fails_in_the_third_batch(self, batch, pool):
        if 16 in batch.index:
            raise MemoryError("no memory for the batch")
        return pixels_of(self, batch, pool)

    monkeypatch.setattr(type(batches), "_pixels", fails_in_the_third_batch)
    given: list[int] = []
    with pytest.raises(MemoryError, match="no memory for the batch"):
        given.extend(len(index) for _, index in batches.epoch(0))
    assert given == [8, 8]
    assert "fastnoise-prefetch" not in {thread.name for thread in threading.enumerate()}


INTERRUPTED = """
import sys, time
import numpy as np
from fastnoise.data import Augmentation, ImageTable, make_loader

data = ImageTable(np.zeros(4096, int), images=np.zeros((4096, 32, 32, 3), np.uint8))
loader = make_loader(
    sys.argv[1], data, batch_size=64, mean=(0.5,) * 3, std=(0.5,) * 3, device="cpu", augmentation=Augmentation(4, True)
)
slow = sys.argv[2]
if slow == "producer":
    pixels = type(loader)._pixels
    type(loader)._pixels = lambda *arguments: time.sleep(0.5) or pixels(*arguments)
print("ready", flush=True)
for epoch in range(10**6):
    for images, index in loader.epoch(epoch):
        if slow == "consumer":
            time.sleep(0.5)
"""


@pytest.mark.parametrize(
    ("kind", "slow"),
    [
        pytest.param("dali", "consumer", marks=needs_dali),
        pytest.param("dali", "neither", marks=needs_dali),
        ("torch", "consumer"),
        ("torch", "producer"),
        ("resident", "neither"),
    ],
)
def test_an_interrupt_ends_the_process(kind, slow):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, kind, slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.7)
        # Python drops an interrupt that arrives inside a finaliser, whatever runs there: press again, as a person does.
        for _ in range(5):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=8)
                break
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert errors.splitlines()[-1].startswith("KeyboardInterrupt")


# Image files


def smooth_image(height: int, width: int, seed: int = 0) -> Image.Image:
    """Coloured and without detail that a JPEG would lose."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def folder_of(
    folder: Path, count: int, size=(20, 24), suffixes=(".png", ".jpg", ".bmp", ".webp", ".tif")
) -> ImageTable:
    files = []
    for i in range(count):
        files.append(str(folder / f"{i:03d}{suffixes[i % len(suffixes)]}"))
        smooth_image(*size, seed=i).save(files[-1])
    return ImageTable(np.zeros(count, int), files=files)


def decoded(data: ImageTable) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in data.files])


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_files_are_decoded_and_augmented_like_arrays(kind, tmp_path):
    data = folder_of(tmp_path, 23)
    settings = {"augmentation": AUGMENTATION, "shuffle": True, "seed": 3}
    arrays = ImageTable(data.labels, images=decoded(data))
    given, index = collect(loader(kind, data, **settings).epoch(0))
    expected, expected_index = collect(loader("torch", arrays, **settings).epoch(0))
    assert np.array_equal(index, expected_index)
    # JPEG decoders may differ by a level or two; these two do not, nor for the other formats.
    assert np.abs(pixels(given).astype(int) - pixels(expected)).max() <= 2


@pytest.mark.parametrize("kind", FILE_KINDS)
@pytest.mark.parametrize("size", [16, 40])
def test_files_are_resized(kind, size, tmp_path):
    data = folder_of(tmp_path, 6, size=(20, 24))
    given = pixels(collect(loader(kind, data, image_size=size).epoch(0))[0]).astype(int)
    expected = [Image.open(file).resize((size, size), Image.Resampling.BILINEAR) for file in data.files]
    difference = np.abs(given - np.stack([np.asarray(image) for image in expected]))
    # DALI keeps fractions between its two passes, Pillow rounds.
    assert difference.max() <= 2
    assert difference.mean() < 0.5


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_files_of_several_sizes(kind, tmp_path):
    first, second = folder_of(tmp_path, 3, size=(20, 24)), tmp_path / "second"
    second.mkdir()
    files = (*first.files, *folder_of(second, 3, size=(30, 10)).files)
    data = ImageTable(np.zeros(6, int), files=files)
    images, _ = collect(loader(kind, data).epoch(0))
    assert images.shape == (6, 3, 224, 224)


def write_png16(path: Path, pixels16: np.ndarray) -> None:
    """16 bits a channel in RGB, which Pillow reads but does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    height, width, _ = pixels16.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels16)
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([16, 2, 0, 0, 0])
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_images_of_other_modes_become_rgb(kind, tmp_path):
    colour = smooth_image(20, 24)
    grey = colour.convert("L")
    alpha = colour.convert("RGBA")
    alpha.putalpha(grey)
    wide = np.random.default_rng(0).integers(0, 65536, (20, 24, 3))
    expected = {}
    for name, image in {
        "grey.png": grey,
        "grey.jpg": grey,
        "alpha.png": alpha,
        "greyalpha.png": grey.convert("LA"),
        "palette.png": colour.convert("P"),
        "bits.png": colour.convert("1"),
        "cmyk.jpg": colour.convert("CMYK"),
    }.items():
        image.save(tmp_path / name)
        expected[name] = np.asarray(Image.open(tmp_path / name).convert("RGB"))
    turned = colour.getexif()
    turned[0x112] = 6  # a camera held upright
    colour.save(tmp_path / "turned.png", exif=turned)
    colour.save(tmp_path / "turned.jpg", exif=turned, quality=95)
    expected["turned.png"] = np.asarray(colour)
    expected["turned.jpg"] = np.asarray(Image.open(tmp_path / "turned.jpg"))
    Image.fromarray(wide[:, :, 0].astype(np.uint16)).save(tmp_path / "grey16.png")
    expected["grey16.png"] = np.rint(wide[:, :, :1] / 257).repeat(3, axis=2)
    write_png16(tmp_path / "wide.png", wide)
    expected["wide.png"] = np.rint(wide / 257)
    files = tuple(str(tmp_path / name) for name in expected)
    data = ImageTable(np.zeros(len(expected), int), files=files, exif=False)
    given = pixels(collect(loader(kind, data).epoch(0))[0])
    difference = {
        name: np.abs(image - expected[name].astype(int)).max() for name, image in zip(expected, given, strict=True)
    }
    # Pillow keeps the upper byte of 16-bit colour, which is a level less than rounding now and then.
    assert max(difference.values()) <= 1, difference


@pytest.mark.parametrize("kind", FILE_KINDS)
@pytest.mark.parametrize("damage", ["truncated.png", "truncated.jpg", "missing.png", "text.jpg"])
def test_a_file_that_cannot_be_decoded_is_named(kind, damage, tmp_path):
    data = folder_of(tmp_path, 40, suffixes=(".png",))
    path = tmp_path / damage
    smooth_image(20, 24).save(path)
    whole = path.read_bytes()
    files = [*data.files[:27], str(path), *data.files[27:]]
    broken = loader(kind, ImageTable(np.zeros(41, int), files=files), augmentation=Augmentation(4, True, 3), views=2)
    if damage == "missing.png":
        path.unlink()
    else:
        path.write_bytes(b"not an image" if damage == "text.jpg" else whole[: len(whole) // 2])
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            list(broken.epoch(0))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    assert collect(broken.epoch(0))[1].tolist() == list(range(41))


# CUDA


def test_normalising_is_the_same_for_arrays_and_tensors():
    """The torch loader normalises arrays on the CPU and tensors on other devices."""
    batch = table(4).images.astype(np.float32)
    mean, scale = np.tile(np.float32([100, 120, 140]), 32), np.tile(np.float32([0.01, 0.02, 0.03]), 32)
    tensor = torch.from_numpy(batch.copy())
    given = normalise(tensor, torch.from_numpy(mean), torch.from_numpy(scale))
    assert np.array_equal(given.numpy(), normalise(batch.copy(), mean, scale))
    np.testing.assert_allclose(given[..., 2].numpy(), (batch[..., 2] - 140) * 0.03, rtol=1e-6)


@needs_dali
@pytest.mark.parametrize("from_files", [False, True], ids=["arrays", "files"])
def test_the_graph_for_cuda_can_be_made_without_a_device(from_files, tmp_path):
    """DALI checks the operators' arguments and types, and places each on its device, when it writes the graph down."""
    from fastnoise.data.dali import Source, build_pipeline

    data = folder_of(tmp_path, 3) if from_files else table(3)
    spec = loader("torch", data, augmentation=Augmentation(4, True, 8), views=2).spec
    graph = build_pipeline(Source(spec), spec, batch_size=3, gpu=True, device_id=None).serialize()
    assert (b"mixed" in graph) == from_files
    assert graph.count(b"gpu") > build_pipeline(
        Source(spec), spec, batch_size=3, gpu=False, device_id=None
    ).serialize().count(b"gpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("from_files", [False, True], ids=["arrays", "files"])
def test_cuda_gives_what_the_cpu_gives(kind, from_files, tmp_path):
    if kind == "resident" and from_files:
        pytest.skip("the resident loader takes arrays only")
    data = folder_of(tmp_path, 50, suffixes=(".png", ".bmp")) if from_files else table(50)
    settings = {"augmentation": Augmentation(4, True, 8), "shuffle": True, "seed": 3, "views": 2}
    on_cpu = list(loader("torch", data, **settings).epoch(1))
    batches = loader(kind, data, device="cuda", **settings)
    with torch.cuda.stream(torch.cuda.Stream()):
        held = []
        for images, index in batches.epoch(1):
            assert (images.device.type, index.device.type) == ("cuda", "cuda")
            assert images.is_contiguous(memory_format=torch.channels_last)
            held.append((images, images.clone(), index))
        batches.close()
        for (images, copy, index), (expected, expected_index) in zip(held, on_cpu, strict=True):
            assert torch.equal(images, copy)
            assert torch.equal(index.cpu(), expected_index)
            torch.testing.assert_close(images.cpu(), expected, rtol=0, atol=0 if kind == "resident" else 1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cuda_rounds_to_half_types_as_the_cpu_does(kind, dtype):
    settings = {"augmentation": AUGMENTATION, "dtype": dtype}
    on_cuda = loader(kind, table(50), device="cuda", **settings).epoch(1)
    for (images, _), (expected, _) in zip(on_cuda, loader("torch", table(50), **settings).epoch(1), strict=True):
        assert images.dtype == dtype
        atol = 0 if kind == "resident" else 0.02  # a last place of bfloat16 at 2
        torch.testing.assert_close(images.cpu(), expected, rtol=0, atol=atol)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_cuda_batches_wait_for_nothing_on_the_host(kind):
    batches = loader(kind, table(200), device="cuda", augmentation=Augmentation(4, True, 8), shuffle=True, views=2)
    list(batches.epoch(0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        counts = [len(index) for _, index in batches.epoch(1)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum(counts) == 200


@needs_dali
def test_copies_out_of_dali_are_what_its_views_are(monkeypatch):
    """What CUDA takes, tried on the CPU."""
    from fastnoise.data import dali

    settings = {"augmentation": Augmentation(4, True, 8), "shuffle": True, "views": 2}
    expected = list(loader("dali", table(20), **settings).epoch(1))

    monkeypatch.setattr(dali.DaliLoader, "_viewed", dali.DaliLoader._copied)
    found = list(loader("dali", table(20), **settings).epoch(1))
    assert len(found) == len(expected) > 1
    for ours, views in zip(found, expected, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, views, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_graphs_are_captured_while_a_loader_runs(kind):
    """No thread of a loader may synchronise the device, or free what it handed out by doing so."""
    batches = loader(kind, table(200), device="cuda", augmentation=Augmentation(4, True, 8), shuffle=True)
    for epoch in range(5):
        for images, _ in batches.epoch(epoch):
            still = images.clone()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                twice = still * 2
            graph.replay()
            assert torch.equal(twice, 2 * images)
