"""fastnoise pretrain: SimCLR on a data set's images, and the encoder in a file."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from . import train

METHOD = "simclr"
HELP = """usage: fastnoise pretrain --out FILE [OPTIONS]

Trains an encoder by SimCLR and writes its backbone to FILE. Use it with fastnoise
train --encoder FILE. It takes the options of fastnoise train --method simclr --help;
--resume RUN continues a run. The test accuracy is that of a linear classifier on the
features, which is trained beside the encoder on the given labels (--noise, none by
default). The encoder never sees the labels. Example:
  fastnoise pretrain --dataset cifar10 --out encoder.pt
  fastnoise train --method swce --dataset cifar10 --noise idn:0.3 --encoder encoder.pt

options:
  --out FILE   the encoder to write
"""


def run(arguments: Sequence[str]) -> int:
    """Train and write the encoder; returns 0, or 130 or 143 when stopped by a signal. FastnoiseError in one line."""
    if any(word in ("-h", "--help") for word in arguments):
        print(HELP, end="")
        return 0
    out, words = split_out(arguments)
    code = train.run(words, lambda summary: write_encoder(out, summary))
    if code:
        print(
            "fastnoise: to write the encoder too, continue by fastnoise pretrain --resume with the same --out",
            file=sys.stderr,
        )
    return code


def split_out(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """The file after --out, and the words of the run: its method and, unless they say otherwise, no label noise.

    ConfigError without a file that can be written.
    """
    words, out = list(arguments), None
    while (place := next((i for i, word in enumerate(words) if word.partition("=")[0] == "--out"), None)) is not None:
        word = words.pop(place)
        out = word.partition("=")[2] if "=" in word else words.pop(place) if place < len(words) else None
    if not out or out.startswith("--"):
        raise ConfigError("fastnoise pretrain needs --out FILE for the encoder, as in --out encoder.pt")
    path = Path(out).expanduser().absolute()
    if not path.parent.is_dir():
        raise ConfigError(f"--out {out}: no such folder; create it")
    if path.is_dir():
        raise ConfigError(f"--out {out} is a folder; name a file in it")
    if any(word.partition("=")[0] == "--method" for word in words):
        raise ConfigError(f"fastnoise pretrain always takes method {METHOD}; drop --method")
    given = {word.partition("=")[0] for word in words}
    noise = [] if given & {"--noise", "--labels", "--config", "--resume"} else ["--noise", "none"]
    return path, ["--method", METHOD, *noise, *words]


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
