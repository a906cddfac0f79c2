"""Pretrained backbones in files, from which the networks of another run start."""

from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..files import write_atomically
from .heads import Network

FORMAT = "fastnoise encoder 1"


def save_encoder(path: Path, weights: dict[str, torch.Tensor], **shape: Any) -> None:
    """Write a backbone's state_dict with what it was built from (model, width, channels, image_size)."""
    content = {"format": FORMAT, "shape": shape, "backbone": weights}
    write_atomically(path, lambda stream: torch.save(content, stream))


def load_encoder(path: Path, network: Network, **shape: Any) -> None:
    """Load the weights of an encoder file into the network's backbone, without executing code from the file.

    Args:
        path: written by `save_encoder`.
        network: on any device.
        shape: what the network was built from, by the names that `save_encoder` got.

    Raises:
        CheckpointError: there is no such file, it is not an encoder file, or it holds the encoder of another network.
    """
    flag = f"--encoder {path}"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{flag}: no such file; make one with fastnoise pretrain --out {path.name}") from None
    except Exception as error:  # torch.load raises whatever its zip reader and unpickler meet
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(f"{flag} is truncated or not an encoder ({reason}); make it again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{flag} holds no encoder; give a file that fastnoise pretrain wrote")
    for name, wanted in shape.items():
        found = content["shape"].get(name)
        if found != wanted:
            raise CheckpointError(f"{flag} was made with {name} {found}, and this run has {name} {wanted}")
    try:
        network.backbone.load_state_dict(content["backbone"])
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{flag} does not fit the network: {reason}") from error
