"""From a network's name to the network."""

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import lazy, own
from ..errors import ConfigError
from .heads import Backbone, LogitsNetwork, Network
from .names import MODELS, LibraryModel, check_model


def create_model(
    name: str,
    *,
    num_classes: int,
    channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    width: float = 1.0,
    attention: bool = False,
    features: bool = False,
    dropout: float = 0.0,
    init: Literal["network", "pytorch"] = "network",
    head: Callable[[int], nn.Module] | None = None,
    weights: bool = True,
) -> Network:
    """Build a network by name, in channels_last memory format.

    Args:
        name: one of MODELS; timm:NAME or torchvision:NAME, perhaps with weights (`LibraryModel`); or FILE.py:NAME of a
            class or function that makes an `nn.Module` (fastnoise/extend.md).
        num_classes: C, the columns of the logits; at least 2 without a `head`.
        channels: of the images.
        image_size: (H, W). Up to 64 pixels the ResNets with basic blocks have the CIFAR stem.
        width: factor on the channels of every layer.
        attention: adds NAL's attention branch (Lu et al. 2022, section 3.1).
        features: whether the network must give features. A user's network may give only logits.
        dropout: in [0, 1), of the fully connected layers of lenet5 and vgg19_bn, after the pooling of cnn9 and its
            variants, or before the classifier of a network of timm. 0: as the network has it by itself, which is 0.5
            for vgg19_bn and 0 for all others of fastnoise.
        init: how convolutions draw their weights: as the network says, or all as PyTorch does by default.
        head: makes the layer that replaces the linear layer on the features (`Network`). A user's network that gives
            only logits contains its own head.
        weights: whether a network of timm or torchvision begins with the weights that its name gives. The classifier
            and the attention branch are always drawn.

    Returns:
        A network that maps images [B, channels, H, W] to `Outputs`.

    Raises:
        ConfigError: the name is unknown, the images are too small for the network, the width leaves no channels, or the
            network has no dropout. For a user's network: it is not an `nn.Module`, its output has another shape, or it
            gives no features although they are needed, or `init` is "pytorch": its weights are its own. For a network
            of another package: the package is missing, or the weights cannot be had or do not fit.
    """
    check_model(name)
    if head is None and num_classes < 2:
        raise ConfigError(f"a classifier needs at least 2 classes, not {num_classes}")
    library = None if own.is_own(name) else LibraryModel.parse(name)
    if (own.is_own(name) or library is not None) and init != "network":
        raise ConfigError(f"--init {init}: {name} draws its own weights; drop the option, or write --init network")
    if own.is_own(name):
        network: Network = _own(name, num_classes, channels, image_size, width, dropout, attention, features, head)
    elif library is not None:
        network = Network(
            _library(library, channels, image_size, width, dropout, weights), num_classes, attention, head
        )
    else:
        backbone = _backbone(name, channels, image_size, width, dropout)
        if init == "pytorch":
            for layer in backbone.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.reset_parameters()
        network = Network(backbone, num_classes, attention, head)
    return network.to(memory_format=torch.channels_last)


def _builder(name: str) -> Callable[..., Backbone]:
    builder: Callable[..., Backbone] = lazy.named(MODELS[name])
    return builder


def _has_dropout(name: str) -> bool:
    return "dropout" in inspect.signature(_builder(name)).parameters


def _backbone(name: str, channels: int, image_size: tuple[int, int], width: float, dropout: float) -> Backbone:
    if not 0 < width < math.inf:
        raise ConfigError(f"--width {width} is not a factor for numbers of channels; give a positive number")
    if round(6 * width) < 1:
        raise ConfigError(f"--width {width} leaves layers with no channels; give a larger one")
    builder = _builder(name)
    smallest = getattr(builder, "smallest", 1)
    if min(image_size) < smallest:
        raise ConfigError(
            f"{name} takes images of at least {smallest}x{smallest}, not {image_size[0]}x{image_size[1]}; "
            "choose another --model"
        )
    if not dropout:
        return builder(channels, image_size, width)
    if not _has_dropout(name):
        known = ", ".join(filter(_has_dropout, MODELS))
        raise ConfigError(f"--dropout {dropout}: {name} has no dropout; drop the option, or take one of: {known}")
    return builder(channels, image_size, width, dropout)


def _library(
    model: LibraryModel, channels: int, image_size: tuple[int, int], width: float, dropout: float, weights: bool
) -> Backbone:
    """A network of another package, tried out on two images."""
    from .pretrained import library_backbone  # which takes time to import, and few networks need

    backbone = library_backbone(model, channels, image_size, width, dropout, weights)
    found = _tried(backbone, model.flag, (2, channels, *image_size))
    if not isinstance(found, Tensor) or tuple(found.shape) != (2, backbone.num_features):
        form = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(f"{model.flag} gives {form}, not features [B, {backbone.num_features}]; take another network")
    return backbone


def _own(
    name: str,
    num_classes: int,
    channels: int,
    image_size: tuple[int, int],
    width: float,
    dropout: float,
    attention: bool,
    needs_features: bool,
    head: Callable[[int], nn.Module] | None,
) -> Network:
    """A user's network, tried out on two images."""
    flag = f"--model {name}"
    build = own.load(name, "model")
    optional = {"width": (width, width != 1), "dropout": (dropout, dropout != 0)}
    taken = own.parameters(build, flag)
    for key, (value, given) in optional.items():
        if given and taken is not None and key not in taken:
            raise ConfigError(f"--{key} {value}: {name} has no parameter {key!r}; add one, or drop the option")
    module = own.call(
        build,
        flag,
        num_classes=num_classes,
        channels=channels,
        image_size=image_size,
        width=width,
        dropout=dropout,
    )
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{flag} gives {type(module).__name__}; it must give a torch.nn.Module")
    features = getattr(module, "num_features", None)
    found = _tried(module, flag, (2, channels, *image_size))
    columns = num_classes if features is None else features
    if not isinstance(found, Tensor) or tuple(found.shape) != (2, columns) or not found.is_floating_point():
        form = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        wanted = (
            f"logits [B, {num_classes}]; if the network gives features, set self.num_features to their number"
            if features is None
            else f"features [B, {features}], as its num_features says"
        )
        raise ConfigError(f"{flag}: images [2, {channels}, {image_size[0]}, {image_size[1]}] give {form}, not {wanted}")
    if features is not None:
        return Network(module, num_classes, attention, head)  # type: ignore[arg-type]
    if attention or needs_features:
        raise ConfigError(
            f"{flag} gives only logits, and this --method or --encoder needs features, as --freeze backbone, "
            "--backbone-rate and --layer-decay do: leave the last layer out of the network, and set self.num_features "
            "to the number of outputs that it then has"
        )
    return LogitsNetwork(module)


def _tried(module: nn.Module, flag: str, shape: tuple[int, ...]) -> Any:
    """The network's answer for black images in evaluation mode. Its weights and buffers do not change."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return module(torch.zeros(shape).to(memory_format=torch.channels_last))
    except Exception as error:  # whatever the user's code raises
        raise ConfigError(
            f"{flag} fails on images {list(shape)} with {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}"
        ) from error
    finally:
        module.train(training)
