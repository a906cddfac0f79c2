"""The resident loader's resizing and rotation on a GPU, without one: interpreted, and compiled ahead of time."""

from pathlib import Path

import numpy as np
import pytest
from _interpret import interpret
from PIL import Image

from fastnoise import _C
from fastnoise.data.on_device import rotations

CASES = [
    ("resize:24,crop:16,flip", [20, 28, 3], 1, 2),
    ("random_resized_crop:16,flip,cutout:5", [20, 28, 3], 2, 1),
    ("random_resized_crop:24x12,scale=0.2-1,crop:18,pad=5", [33, 21, 1], 1, 100),
    ("resize:9x7", [33, 40, 3], 1, 1),
    ("resize:12,center_crop:16", [24, 30, 3], 1, 2),
    ("crop:14,pad=2,flip", [16, 16, 4], 2, 2),
    ("crop,pad=4,flip,rotate:20", [32, 32, 3], 1, 2),
    ("rotate:180", [13, 20, 1], 2, 1),
    ("crop,pad=2,flip,rotate:30,jitter=0.6,cutout:4", [12, 12, 3], 2, 2),
    ("jitter:1", [9, 8, 1], 1, 2),
]


@pytest.fixture(scope="module")
def interpreted() -> list[dict[str, float]]:
    pytest.importorskip("triton", reason="needs triton")
    return interpret("_place_cases.py", CASES)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case[0] for case in CASES])
def test_kernel_gives_the_torch_loader_s_pixels(interpreted: list[dict[str, float]], number: int) -> None:
    found, spec = interpreted[number], CASES[number][0]
    assert found["same"]
    assert found["batches"] == 3
    resizes = "resize" in spec
    assert found["most"] <= (1 if resizes else 0) + 1e-3
    assert found["mean"] < 0.3


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (224, 224, 3)], ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_compiles_ahead_of_time(shape: tuple[int, int, int], turned: bool, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton")
    from _ahead import ARCHITECTURES, compile_ahead, spilled
    from fastnoise.kernels import augment, place

    types = {"images_NHWC": "*u8", "index_R": "*i64", "places_R8": "*i32", "flip_R": "*i32", "out": "*u8"}
    types |= {"turn_R6": "*i32"} if turned else {}
    block, num_warps = augment.geometry(shape[0] * shape[1] * shape[2])
    constants = {"H": 256, "W": 300, "C": shape[2], "HEIGHT": shape[0], "WIDTH": shape[1], "BLOCK": block}
    for arch in ARCHITECTURES:
        kernel = compile_ahead(place.place_images, types, constants, arch, num_warps)
        assert spilled(kernel, tmp_path) == {"STACK": 0, "LOCAL": 0}


@pytest.mark.parametrize("size", [(32, 32), (13, 20), (40, 7)])
def test_rotations_find_the_pixels_of_pillow(size: tuple[int, int]) -> None:
    height, width = size
    pixels = np.arange(1, height * width + 1, dtype=np.int32).reshape(size)
    angles = np.random.default_rng(0).uniform(-180, 180, 40)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    for angle, (a, b, c, d, e, f) in zip(angles, rotations(angles, size).tolist(), strict=True):
        column, row = (c + a * x + b * y) >> 16, (f + d * x + e * y) >> 16
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found = np.where(inside, pixels[row.clip(0, height - 1), column.clip(0, width - 1)], 0)
        assert np.array_equal(found, np.asarray(Image.fromarray(pixels).rotate(angle)))


def resampled(**changes: object) -> np.ndarray:
    """A valid call of the C++ core with some arguments changed; returns what it wrote."""
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
    places = np.array([[1, 0, 4, 5, 8, 10, -1, 2]] * 2, np.int32)
    arguments = {"images": images, "index": np.array([2, 0]), "places": places}
    arguments |= {"out": np.zeros((2, 7, 4, 3), np.uint8), "threads": 1, **changes}
    _C.resample(**arguments)
    return arguments["out"]


def test_the_core_gives_the_same_whatever_the_threads() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 90, 80, 3), dtype=np.uint8)
    places = np.tile(np.int32([[5, 3, 70, 71, 120, 110, -4, 7]]), (30, 1))
    words = {"images": images, "index": np.arange(30), "places": places}
    one, many = (resampled(**words, out=np.empty((30, 100, 90, 3), np.uint8), threads=threads) for threads in (1, 5))
    assert np.array_equal(one, many)
    assert not one[:, :4].any()
    assert one[:, 4:].any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": np.zeros((3, 6, 5), np.uint8)}, "images must be uint8"),
        ({"index": np.array([0, 3])}, "index holds 3"),
        ({"index": np.array([0, -1])}, "index holds -1"),
        ({"index": np.arange(3)}, "whole number"),
        ({"places": np.zeros((2, 7), np.int32)}, "places must be int32"),
        ({"places": np.zeros((1, 8), np.int32)}, "places must be int32"),
        ({"places": np.array([[3, 0, 4, 5, 8, 10, 0, 0]] * 2, np.int32)}, "name parts of the images"),
        ({"places": np.array([[0, -1, 4, 5, 8, 10, 0, 0]] * 2, np.int32)}, "name parts of the images"),
        ({"places": np.array([[0, 0, 4, 5, 0, 10, 0, 0]] * 2, np.int32)}, "name parts of the images"),
        ({"out": np.zeros((2, 7, 4, 1), np.uint8)}, "the images' channels"),
        ({"out": np.zeros((2, 7, 4, 3), np.float32)}, "out must be uint8"),
    ],
)
def test_the_core_refuses_what_it_cannot_read(changes: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises((ValueError, TypeError, IndexError), match=words):
        resampled(**changes)
