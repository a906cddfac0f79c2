"""Trains one method on many samples of many classes, in a process of its own, and says what memory that took.

Takes the method's words of the command line as JSON, N, C and a folder. Prints a line of JSON: `peak`, the largest
resident set in bytes; `start`, that before training; `buffers`, the method's registered buffers in bytes.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from fastnoise.data import ImageDataset, ImageTable
from fastnoise.engine import prepare, trainer
from fastnoise.models import Outputs
from fastnoise.recipes import recipe


class Linear(nn.Module):
    """Logits of the pixels."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, num_classes)

    def forward(self, images: Tensor) -> Outputs:
        return Outputs(self.layer(images.flatten(1)))


def make_dataset(num_samples: int, num_classes: int) -> ImageDataset:
    """A pattern of 8x8 pixels for each class, under noise."""
    random = np.random.default_rng(0)
    patterns = random.integers(60, 196, (num_classes, 8, 8, 3))

    def table(count: int) -> ImageTable:
        labels = np.arange(count) % num_classes
        images = np.empty((count, 8, 8, 3), np.uint8)
        for first in range(0, count, 10_000):
            part = patterns[labels[first : first + 10_000]]
            images[first : first + 10_000] = part + random.integers(-60, 60, part.shape)
        return ImageTable(labels, images=images)

    names = tuple(f"class{number}" for number in range(num_classes))
    return ImageDataset("patterns", table(num_samples), table(num_classes), names, (0.5,) * 3, (0.25,) * 3)


def memory(name: str) -> int:
    """A size of this process, in bytes: VmHWM, the largest resident set, or VmRSS, the present one. The system's
    ru_maxrss would count that of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def main(words: str, num_samples: str, num_classes: str, folder: str) -> None:
    torch.set_num_threads(1)
    options = json.loads(words)
    dataset = make_dataset(int(num_samples), int(num_classes))
    config = recipe(options.pop("method"), "digits", "symmetric:0.3").replace(
        {
            "epochs": 2, "batch_size": 256, "loader": "torch", "device": "cpu", "run_dir": folder, "save_every": 1,
            "learning_rate": 0.02, **options,
        }
    )  # fmt: skip
    prepare.load_images = lambda config: dataset
    trainer.create_model = lambda name, **rest: Linear(rest["num_classes"])  # type: ignore[assignment,return-value]
    methods = []
    create = trainer.create_method
    trainer.create_method = lambda *given, **named: methods.append(create(*given, **named)) or methods[-1]  # type: ignore[assignment,func-returns-value]
    start = memory("VmRSS")
    with open(os.devnull, "w") as nowhere:
        trainer.train(config, console=Console(file=nowhere))
    buffers = sum(buffer.nbytes for buffer in methods[0].buffers())
    print(json.dumps({"peak": memory("VmHWM"), "start": start, "buffers": buffers}))


if __name__ == "__main__":
    main(*sys.argv[1:])
