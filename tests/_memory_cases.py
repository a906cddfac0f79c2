"""Trains one method on many samples of many classes, in a process of its own, and says what memory that took.

Takes the method's words of the command line as JSON, N, C and a folder. Prints a line of JSON: `peak`, the largest
resident set in bytes; `start`, that before training; `buffers`, the method's registered buffers in bytes.

The images come as arrays and the network is code of a user's, this file: no part of fastnoise is replaced.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

import fastnoise
from fastnoise.data import ImageDataset
from fastnoise.recipes import recipe

SIDE = 8


class Linear(nn.Module):
    """Logits of the pixels."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.layer = nn.Linear(3 * SIDE**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images.flatten(1))
        return logits


def make_dataset(num_samples: int, num_classes: int) -> ImageDataset:
    """A pattern of 8x8 pixels for each class, under noise."""
    random = np.random.default_rng(0)
    patterns = random.integers(60, 196, (num_classes, SIDE, SIDE, 3))

    def samples(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % num_classes
        images = np.empty((count, SIDE, SIDE, 3), np.uint8)
        for first in range(0, count, 10_000):
            part = patterns[labels[first : first + 10_000]]
            images[first : first + 10_000] = part + random.integers(-60, 60, part.shape)
        return images, labels

    images, labels = samples(num_samples)
    test_images, test_labels = samples(num_classes)
    return ImageDataset.from_arrays(images, labels, test_images=test_images, test_labels=test_labels)


def memory(name: str) -> int:
    """A size of this process, in bytes: VmHWM, the largest resident set, or VmRSS, the present one. The system's
    ru_maxrss would count that of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def main(words: str, num_samples: str, num_classes: str, folder: str) -> None:
    torch.set_num_threads(1)
    options = json.loads(words)
    dataset = make_dataset(int(num_samples), int(num_classes))
    config = recipe(options.pop("method"), dataset.name, "symmetric:0.3").replace(
        {
            "model": f"{__file__}:Linear", "epochs": 2, "batch_size": 256, "loader": "torch", "device": "cpu",
            "run_dir": folder, "save_every": 1, "learning_rate": 0.02, "weight_decay": 1e-3, "crop_padding": 0,
            "flip": False, **options,
        }
    )  # fmt: skip
    start = memory("VmRSS")
    with open(os.devnull, "w") as nowhere:
        fastnoise.train(config, dataset=dataset, console=Console(file=nowhere))
    peak = memory("VmHWM")
    method = torch.load(Path(folder) / "checkpoint.pt", weights_only=True, mmap=True)["method"]
    buffers = sum(tensor.nbytes for tensor in method.values())
    print(json.dumps({"peak": peak, "start": start, "buffers": buffers}))


if __name__ == "__main__":
    main(*sys.argv[1:])
