"""A set for regression of real images: digits turned by known angles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import affine_grid, grid_sample

from ..errors import ConfigError, DataError
from .names import read_options
from .table import ImageDataset, ImageTable

_AT_ONCE = 1000


def load_rotated(name: str, root: Path | None, download: bool) -> ImageDataset:
    """Images of `of`=digits or mnist, each turned by an angle uniform in [-limit, limit] degrees that `seed` draws.

    Training and test images keep the order that they have in the data set. ConfigError for a data set that isn't
    there, or whose images are no squares.
    """
    from .datasets import load_dataset

    options = read_options(name)
    of, limit, seed = str(options["of"]), float(options["limit"]), int(options["seed"])
    if not 0 < limit <= 180:
        raise ConfigError(f"--dataset {name}: limit={limit:g} must lie in (0, 180] degrees")
    source = load_dataset(of, root, download=download)
    tables = []
    for part, table in enumerate((source.train, source.test)):
        if table.images is None or table.size[0] != table.size[1]:
            raise DataError(f"--dataset {name}: the images of {of} must be squares in memory")
        degrees = np.random.default_rng([seed, part]).uniform(-limit, limit, len(table))
        tables.append(ImageTable(degrees, rotate(table.images, degrees), form="values"))
    return replace(
        source,
        name=name,
        train=tables[0],
        test=tables[1],
        class_names=("angle",),
        human_labels={},
        task="regression",
        scale=(limit,),
    )


def rotate(images: NDArray[np.uint8], degrees: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Each image uint8 [N, H, W, C], H = W, turned counterclockwise about its centre by its angle [N], bilinearly.

    What comes from outside of an image is 0.
    """
    turned = np.empty_like(images)
    radians = torch.from_numpy(np.deg2rad(degrees)).float()
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros(len(radians))
    # Where the pixel at (x, y) comes from, with y pointing down.
    source = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    for first in range(0, len(images), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        batch = torch.from_numpy(images[part]).permute(0, 3, 1, 2).float()
        grid = affine_grid(source[part], list(batch.shape), align_corners=False)
        values = grid_sample(batch, grid, align_corners=False).round().clamp(0, 255)
        turned[part] = values.to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return turned
