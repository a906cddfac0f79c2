"""The resident loader's kernel without a GPU (interpreted, and compiled ahead of time), and its C++ counterpart."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from _interpret import interpret

from fastnoise import _C

FULL = [4, True, 5]
CASES = [
    *product([[13, 11, 3], [32, 32, 3]], [FULL, None], [1, 3], ["float32"], [True], [2, 100]),
    *product(
        [[9, 9, 1], [20, 24, 4]], [FULL, [2, False, 0], [0, True, 0], [0, False, 3]], [1], ["float32"], [False], [1]
    ),
    *product([[7, 30, 3]], [FULL, [40, True, 60]], [2], ["float32", "float16", "bfloat16"], [False], [3]),
]


@pytest.fixture(scope="module")
def interpreted() -> list[dict[str, int]]:
    pytest.importorskip("triton", reason="needs triton")
    return interpret("_augment_cases.py", CASES)


@pytest.mark.parametrize("number", range(len(CASES)), ids=["-".join(map(str, case)) for case in CASES])
def test_kernel_core_and_reference_give_the_same_bits(interpreted: list[dict[str, int]], number: int) -> None:
    *_, repeat, at_once = CASES[number]
    # Of an epoch of 21 samples, or of an order of 33, in batches of 5, the first batch is left out.
    launches = {2: [10, 10, 5, 3], 100: [25, 3], 1: [5, 5, 5, 1], 3: [15, 1]}[at_once]
    found = dict(interpreted[number])
    assert found.pop("launches") == launches
    assert found.pop("batches") == (6 if repeat else 4)
    assert found == {"form": 0, "index": 0, "values": 0, "reference": 0, "unaligned": 0}


# Consecutive numbers that a thread can store at once, up to 16 bytes: all it has where images are aligned.
SHAPES = {(32, 32, 3): 8, (28, 28, 1): 8, (8, 8, 1): 2, (224, 224, 3): 8, (33, 35, 3): 1}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_compiles_ahead_of_time(shape: tuple[int, int, int], dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton")
    from _ahead import ARCHITECTURES, compile_ahead, spilled
    from fastnoise.kernels import augment

    types = {"images_NHWC": "*u8", "index_M": "*i64", "mean_C": "*fp32", "scale_C": "*fp32", "out": f"*{dtype}"}
    types |= dict.fromkeys(("first", "batch", "rows", "units", "length"), "i32")
    block, num_warps = augment.geometry(shape[0] * shape[1] * shape[2])
    for arch, cutout in product(ARCHITECTURES, (None, 0, 8)):  # None: no augmentation at all
        drawn = {} if cutout is None else {"draws_VMD": "*i32"}
        constants = dict(zip("HWCD", (*shape, 5 if drawn else 0), strict=True)) | {
            "CUTOUT": cutout or 0,
            "BLOCK": block,
            "UNIT": augment.ALIGNMENT // (4 if dtype == "fp32" else 2),
        }
        kernel = compile_ahead(augment.augment_images, types | drawn, constants, arch, num_warps)
        ptx = kernel.asm["ptx"]
        stores = {
            int(lanes or 1) * int(bits) // 8 for lanes, bits in re.findall(r"st\.global\S*?(?:\.v(\d))?\.b(\d+)", ptx)
        }
        assert stores == {min(16, SHAPES[shape] * (4 if dtype == "fp32" else 2))}
        assert "bar.sync" not in ptx, "the numbers change threads between load and store"
        assert "fma.rn" not in ptx, "a product fused with a sum rounds otherwise than the reference"
        if dtype != "fp32":
            assert re.search(rf"cvt\.rn\S*\.{dtype.replace('fp', 'f')}", ptx), "conversion rounds to nearest"
        assert spilled(kernel, tmp_path) == {"STACK": 0, "LOCAL": 0}


def core(**changes: object) -> np.ndarray:
    """A valid call of the C++ core with some arguments changed; returns what it wrote."""
    rng = np.random.default_rng(0)
    arguments = {
        "images": rng.integers(0, 256, (9, 6, 5, 3), dtype=np.uint8),
        "index": np.array([8, 0, 8, 3]),
        "draws": rng.integers(-9, 9, (8, 5), dtype=np.int32),
        "mean": np.float32([1, 2, 3]),
        "scale": np.float32([0.1, 0.2, 0.3]),
        "out": np.full((8, 6, 5, 3), np.nan, np.float32),
        "cutout": 3,
        "threads": 1,
    } | changes
    _C.augment(**arguments)
    return arguments["out"]


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": np.zeros((9, 6, 5, 3), np.int8)}, "images must be uint8"),
        ({"images": np.zeros((9, 6, 5), np.uint8)}, "images must be uint8 [N, H, W, C]"),
        ({"images": np.zeros((9, 6, 5, 6), np.uint8)[..., ::2]}, "images must be contiguous"),
        ({"images": np.zeros((9, 6, 5, 4), np.uint8)}, "mean and scale must be [C]"),
        ({"images": np.zeros((9, 5, 6, 3), np.uint8)}, "out must have the images' size"),
        ({"images": np.zeros((0, 6, 5, 3), np.uint8)}, "outside [0, 0)"),
        ({"index": np.array([8, 0, 8, 9])}, "index holds 9, outside [0, 9)"),
        ({"index": np.array([8, 0, 8, -1])}, "index holds -1"),
        ({"index": np.array([8, 0, 8, 3], np.int32)}, "index must be int64"),
        ({"index": np.array([8, 0, 8])}, "whole number of images for each index"),
        ({"index": np.array([], np.int64)}, "whole number of images for each index"),
        ({"index": np.array([8, 0, 8, 3], ">i8")}, "native byte order"),
        ({"draws": np.zeros((8, 5), np.int64)}, "draws must be int32 [R, 5]"),
        ({"draws": np.zeros((7, 5), np.int32)}, "draws must be int32 [R, 5]"),
        ({"draws": np.zeros((8, 6), np.int32)}, "draws must be int32 [R, 5]"),
        ({"draws": None}, "0 without draws"),
        ({"mean": np.float64([1, 2, 3])}, "mean must be float32"),
        ({"scale": np.float32([1])}, "mean and scale must be [C]"),
        ({"out": np.zeros((8, 6, 5, 3))}, "out must be float32"),
        ({"out": np.zeros((8, 3, 6, 5), np.float32).transpose(0, 2, 3, 1)}, "out must be contiguous"),
        ({"out": frozen(np.zeros((8, 6, 5, 3), np.float32))}, "not writeable"),
        ({"cutout": -1}, "cutout"),
        ({"cutout": 2**31}, "cutout"),
    ],
)
def test_the_core_refuses_what_it_cannot_read(changes: dict[str, object], words: str) -> None:
    with pytest.raises((ValueError, TypeError, IndexError)) as caught:
        core(**changes)
    assert words in str(caught.value)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_change_nothing(threads: int) -> None:
    rng = np.random.default_rng(2)
    size = (700, 40, 40, 3)  # enough for several threads
    arguments = {
        "images": rng.integers(0, 256, (5, *size[1:]), dtype=np.uint8),
        "index": rng.integers(0, 5, 700),
        "draws": rng.integers(-6, 6, (700, 5), dtype=np.int32),
    }
    first, second = (core(**arguments, out=np.full(size, np.nan, np.float32), threads=n) for n in (1, threads))
    assert np.array_equal(first, second)


def test_the_core_takes_any_draw() -> None:
    """Far outside the image there are zeros before, and nothing after, normalisation."""
    extreme = np.iinfo(np.int32)
    for value in (extreme.min, extreme.min + 1, -6, 6, extreme.max - 1, extreme.max):
        draws = np.full((8, 5), value, np.int32)
        padding = (np.float32(0) - np.float32([1, 2, 3])) * np.float32([0.1, 0.2, 0.3])
        assert np.array_equal(core(draws=draws), np.broadcast_to(padding, (8, 6, 5, 3)))
    everything = np.zeros((8, 5), np.int32)
    assert not core(draws=everything, cutout=2**31 - 1).any()
    empty = {"index": np.array([], np.int64), "draws": np.empty((0, 5), np.int32)}
    assert core(**empty, out=np.empty((0, 6, 5, 3), np.float32)).size == 0
