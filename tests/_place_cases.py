"""Runs the resident loader's CUDA path with resizing and rotation on CPU tensors, as `_augment_cases.py` does.

Reads cases as JSON from stdin and writes how far each is from the torch loader, in levels of 255.
"""

import json
import sys
from typing import Any

import numpy as np
import torch
from _interpret import save_work
from fastnoise.kernels import augment as kernels

from fastnoise.data import Augmentation, ImageTable, make_loader, resident

STD = 1 / 255


def differences(spec: str, shape: list[int], views: int, at_once: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    table = ImageTable(np.zeros(5, int), images=rng.integers(0, 256, (5, *shape), dtype=np.uint8))
    read = Augmentation.parse_evaluation if "center_crop" in spec else Augmentation.parse
    settings = {"batch_size": 2, "mean": (0.0,) * shape[2], "std": (STD,) * shape[2], "device": "cpu"}
    settings |= {"seed": 3, "augmentation": read(spec), "shuffle": True, "views": views}
    kernel, reference = (make_loader(kind, table, **settings) for kind in ("resident", "torch"))
    kernel._images = torch.from_numpy(table.images)
    numbers = kernel.spec.size[0] * kernel.spec.size[1] * shape[2]
    shrunk = 8 if kernel.spec.plan.augmentation.jitter else 1
    resident.PART_BYTES = shrunk * at_once * kernels.bytes_of(views * 2, numbers, torch.float32)
    given = list(kernel._on_device(kernel.spec.plan.batches(2)))
    expected = list(reference.epoch(2))
    same = [
        torch.equal(one[1], other[1]) and one[0].stride() == other[0].stride()
        for one, other in zip(given, expected, strict=True)
    ]
    far = torch.cat([(one - other).abs().flatten() for (one, _), (other, _) in zip(given, expected, strict=True)])
    return {"same": all(same), "batches": len(given), "most": float(far.max()), "mean": float(far.mean())}


if __name__ == "__main__":
    save_work()
    json.dump([differences(*case) for case in json.load(sys.stdin)], sys.stdout)
