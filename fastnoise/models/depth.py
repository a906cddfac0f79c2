"""The order of a network's layers from the images to the heads."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from torch import nn

from ..errors import ConfigError
from .resnet import BasicBlock, PreActBlock

_HEAD = "the heads that follow"
"""A name that no parameter has."""


def _blocks() -> tuple[type[nn.Module], ...]:
    """Blocks that lie one after another in the networks that have them."""
    from torchvision.models import resnet, vision_transformer  # which take a second to import

    return BasicBlock, PreActBlock, resnet.BasicBlock, resnet.Bottleneck, vision_transformer.EncoderBlock


class _WithHead:
    """What timm asks a network for, with a head at its end."""

    def __init__(self, network: nn.Module):
        self.network = network

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter | None]]:
        yield from self.network.named_parameters()
        yield _HEAD, None


def last_stage(backbone: nn.Module) -> list[nn.Module]:
    """The layers with weights of a backbone's last stage, in their order.

    These are the blocks at the end that are as wide as the last one, and what follows them: a ResNet's fourth stage. If
    all blocks are so wide, as in a transformer, it is the last one alone. Where no blocks are known, each layer with
    weights is one, with the normalisation after it. A block is as wide as the widest output of its layers.
    """
    layers = [(name, module) for name, module in backbone.named_modules() if list(module.parameters(recurse=False))]
    depths = _depths_of(backbone, layers)
    widths: dict[int, int] = {}
    for depth, (_, layer) in zip(depths, layers, strict=True):
        wide = [weight.shape[0] for weight in layer.parameters(recurse=False) if weight.dim() > 1]
        widths[depth] = max([widths.get(depth, 0), *wide])
    rising = sorted(widths)
    while rising and not widths[rising[-1]]:  # a norm at the end
        rising.pop()
    if not rising:
        return []
    first = last = rising[-1]
    for depth in reversed(rising):
        if widths[depth] not in (0, widths[last]):
            break
        first = depth
    if first <= min(1, last) < last:
        first = last
    return [layer for depth, (_, layer) in zip(depths, layers, strict=True) if depth >= first]


def _depths_of(backbone: nn.Module, layers: list[tuple[str, nn.Module]]) -> list[int]:
    """The depth of each layer as `layer_depths` has it, or else the number of layers with a matrix up to it."""
    try:
        found, _ = layer_depths(backbone)
    except ConfigError:
        matrices = [any(weight.dim() > 1 for weight in layer.parameters(recurse=False)) for _, layer in layers]
        return list(accumulate(matrices))
    names = [next(iter(layer.named_parameters(name, recurse=False)))[0] for name, layer in layers]
    return [found[name] for name in names]


def layer_depths(backbone: nn.Module) -> tuple[dict[str, int], int]:
    """The depth of each parameter of a backbone, by name, and the depth of the heads that follow.

    The stem, with class tokens and positions, has depth 0; the blocks have 1, 2 and so on; what follows the last block
    belongs to it. Networks of timm have the depths that timm gives them (`group_matcher`, as in its `--layer-decay`).

    ConfigError if the order of the layers is not known.
    """
    network = getattr(backbone, "network", backbone)
    prefix = "" if network is backbone else "network."
    matcher = getattr(network, "group_matcher", None)
    if matcher is not None:
        from timm.models import group_parameters

        whole: Any = _WithHead(network)
        found = group_parameters(whole, matcher(coarse=False), reverse=True)
        last = found.pop(_HEAD)
        return {prefix + name: depth for name, depth in found.items()}, last
    blocks = [f"{name}." for name, module in network.named_modules() if isinstance(module, _blocks())]
    if not blocks:
        raise ConfigError(
            "--layer-decay: the order of this network's layers is not known; it is for fastnoise's and torchvision's "
            "ResNets, torchvision's vision transformers and timm's networks; drop the option, or give --backbone-rate"
        )
    depths, depth = {}, 0
    for name, _ in network.named_parameters():
        depth = next((number for number, block in enumerate(blocks, 1) if name.startswith(block)), depth)
        depths[prefix + name] = depth
    return depths, len(blocks) + 1
