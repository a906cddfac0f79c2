"""Runs the resident loader's CUDA path on CPU tensors: reads cases as JSON from stdin, writes what differs of each.

A process of its own, started with TRITON_INTERPRET=1, because Triton reads that when it is imported.
"""

import json
import sys
from typing import Any

import numpy as np
import torch
from _interpret import save_work
from fastnoise.kernels import augment as kernels

from fastnoise.data import Augmentation, ImageTable, make_loader, resident

MEAN, STD = (0.4914, 0.4822, 0.4465, 0.45), (0.2023, 0.1994, 0.2010, 0.21)


def differences(
    shape: list[int], augmentation: list | None, views: int, dtype: str, repeat: bool, at_once: int
) -> dict[str, Any]:
    """What differs of an epoch from its second batch on, made `at_once` batches a launch."""
    rng = np.random.default_rng(1)
    channels = shape[2]
    table = ImageTable(np.zeros(21, int), images=rng.integers(0, 256, (21, *shape), dtype=np.uint8))
    kernel, core, reference = (
        make_loader(
            kind,
            table,
            batch_size=5,
            mean=MEAN[:channels],
            std=STD[:channels],
            device="cpu",
            seed=3,
            augmentation=None if augmentation is None else Augmentation(*augmentation),
            shuffle=True,
            views=views,
            dtype=getattr(torch, wanted),
        )
        for kind, wanted in (("resident", dtype), ("resident", "float32"), ("torch", "float32"))
    )
    order = rng.integers(0, 21, 33) if repeat else None
    kernel._images = torch.from_numpy(table.images)
    numbers = shape[0] * shape[1] * shape[2]
    resident.PART_BYTES = at_once * kernels.bytes_of(views * 5, numbers, kernel.spec.dtype)
    launches: list[int] = []
    launch = kernels.launch
    kernels.launch = lambda *inputs, **words: (
        launches.append(words["last"] - words["first"]) or launch(*inputs, **words)
    )
    given = list(kernel._on_device(kernel.spec.plan.batches(2, 1, order)))
    kernels.launch = launch
    found: dict[str, Any] = {"batches": len(given), "form": 0, "index": 0, "values": 0, "reference": 0}
    found["launches"] = launches
    found["unaligned"] = sum(images.data_ptr() % 16 + index.data_ptr() % 16 for images, index in given)
    for (images, index), (expected, expected_index), (slow, _) in zip(
        given, core.epoch(2, 1, order), reference.epoch(2, 1, order), strict=True
    ):
        form = (images.shape, images.stride(), images.dtype)
        found["form"] += form != (expected.shape, expected.stride(), getattr(torch, dtype))
        found["index"] += not torch.equal(index, expected_index)
        found["reference"] += int(
            (expected.contiguous().view(torch.int32) != slow.contiguous().view(torch.int32)).sum()
        )
        if dtype == "bfloat16":
            # The interpreter cuts bits off where a GPU rounds.
            cut = (expected.contiguous().view(torch.int32) >> 16).to(torch.int16)
            found["values"] += int((images.contiguous().view(torch.int16) != cut).sum())
        else:
            bits = {"float32": torch.int32, "float16": torch.int16}[dtype]
            rounded = expected.to(images.dtype).contiguous().view(bits)
            found["values"] += int((images.contiguous().view(bits) != rounded).sum())
    return found


if __name__ == "__main__":
    save_work()
    json.dump([differences(*case) for case in json.load(sys.stdin)], sys.stdout)
