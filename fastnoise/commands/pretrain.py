"""fastnoise pretrain: SimCLR on a data set's images, and the encoder in a file."""

from pathlib import Path
from typing import Any

from .product import Product

HELP = """Train an encoder by SimCLR and write its backbone to FILE, for fastnoise train --encoder FILE.

The test accuracy is that of a linear classifier on the features, which is trained beside the encoder on the given
labels (--noise, none by default). The encoder never sees the labels. --resume RUN continues a run. Example:
  fastnoise pretrain --dataset cifar10 --out encoder.pt
  fastnoise train --method swce --dataset cifar10 --noise idn:0.3 --encoder encoder.pt
"""


def write_encoder(path: Path, summary: dict[str, Any]) -> None:
    """Write the encoder of a finished run, whose summary `fastnoise.engine.train` gave, to `path`."""
    import torch

    from ..engine import RunFolder
    from ..methods.simclr import backbone_of
    from ..models.encoder import save_encoder

    state = RunFolder.open(Path(summary["run_dir"])).read_checkpoint(torch.device("cpu"))
    assert state is not None
    save_encoder(path, backbone_of(state["networks"]), **summary["network"])
    print(f"encoder: {path}")


PRETRAIN = Product("pretrain", "simclr", "encoder", "encoder.pt", HELP, write_encoder)
