"""fastnoise posteriors: a network's probabilities while it learns from clean labels, for PMD noise."""

from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..errors import ConfigError
from ..texts import counted
from .product import Product

HELP = """Train a network on clean labels and write its probabilities of the training images to FILE, for PMD noise.

The labels are the data set's, the true ones where they are known. The probabilities are those of the last epoch (numpy,
float32 [N, C]). PMD noise and the score variant of idn are drawn from them. --resume RUN continues a run. Example:
  fastnoise posteriors --dataset cifar10 --out posteriors.npy
  fastnoise train --method plc --dataset cifar10 --noise pmd:0.35,posteriors=posteriors.npy
"""


def whole_set(config: RunConfig) -> None:
    """ConfigError if some training images are held out: noise needs the posteriors of all."""
    if config.data.val_fraction:
        raise ConfigError(
            f"--val-fraction {config.data.val_fraction:g}: images that are held out get no posteriors; drop it"
        )


def write_posteriors(path: Path, summary: dict[str, Any]) -> None:
    """Write the probabilities of a finished run, whose summary `fastnoise.engine.train` gave, to `path`."""
    import numpy as np
    import torch

    from ..engine import RunFolder
    from ..files import write_atomically

    state = RunFolder.open(Path(summary["run_dir"])).read_checkpoint(torch.device("cpu"))
    assert state is not None
    probs = state["method"]["probs"].numpy()
    write_atomically(path, lambda file: np.save(file, probs))
    print(f"posteriors of {counted(len(probs), 'image')}: {path}")


POSTERIORS = Product("posteriors", "posteriors", "posteriors", "posteriors.npy", HELP, write_posteriors, whole_set)
