"""Networks of timm and torchvision without their heads, and the weights that they begin with."""

import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from ..errors import ConfigError, alternatives, said
from .heads import Backbone
from .names import LibraryModel, require_weights
from .norm import COUNTER

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of pixels scaled to 0..1."""

RGB = 3
_HEADS = ("fc", "classifier", "heads", "head")
"""Parts of torchvision's networks whose last linear layer is the classifier."""
_HALF: Statistics = ((0.5,) * RGB, (0.5,) * RGB)
_NO_AUXILIARIES = {"aux_logits": False, "init_weights": True}
_ARGUMENTS: dict[str, dict[str, Any]] = {"googlenet": _NO_AUXILIARIES, "inception_v3": _NO_AUXILIARIES}
"""What torchvision's networks are built with to give one answer in training too."""
_AUXILIARIES = ("AuxLogits", "aux1", "aux2")
"""Parts of them that a file of weights may hold all the same."""
_WRAPPERS = ("_orig_mod.", "module.")
"""What torch.compile and DistributedDataParallel put before names."""


class LibraryBackbone(Backbone):
    """A network of timm or torchvision without its head: images [B, channels, H, W] -> features [B, num_features].

    Args:
        network: gives the features.
        num_features: their number.
        notes: what there is to say of the weights that it begins with.
    """

    def __init__(self, network: nn.Module, num_features: int, notes: tuple[str, ...] = ()):
        super().__init__()
        self.network, self.num_features, self.notes = network, num_features, notes

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images)
        return features


class _Parts(NamedTuple):
    """A network without its head, and what its weights are read by."""

    network: nn.Module
    num_features: int
    first: tuple[str, ...]
    """Names of the convolutions that take the images."""
    heads: tuple[str, ...]
    """Names of what was left out of it."""
    fitted: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None
    """Brings weights of an older form or another image size into the network's form."""


def library_backbone(
    model: LibraryModel, channels: int, image_size: tuple[int, int], width: float, dropout: float, weights: bool
) -> LibraryBackbone:
    """Build a network of timm or torchvision without its head.

    Args:
        model: the network.
        channels: of the images. For others than 3 the first convolution has weights that are summed (1 channel) or
            repeated, as timm does it.
        image_size: (H, W). Transformers of a fixed size are built for it.
        width: 1; these networks have the width that their name says.
        dropout: in [0, 1), before the classifier; of timm's networks alone.
        weights: whether it begins with the weights that `model` names. Without it the weights are drawn.

    ConfigError in one line if the package, the network, its weights or the file are unknown, cannot be had or do not
    fit.
    """
    if width != 1:
        raise ConfigError(f"--width {width}: {model.bare} has the width that its name says; drop the option")
    check_library_model(model)
    if weights:
        require_weights(model)
    made = (_timm if model.library == "timm" else _torchvision)(model, channels, image_size, dropout)
    if not weights or model.weights is None:
        return LibraryBackbone(made.network, made.num_features)
    state = _downloaded(model) if model.file is None else _read(model)
    left_out = _load(made, state, model)
    note = f"weights: {model.weights} of {model.bare}, {len(state)} tensors"
    if left_out:
        shown = ", ".join(left_out[:4]) + (f" and {len(left_out) - 4} more" if len(left_out) > 4 else "")
        note += f"; left out, as parts of another head: {shown}"
    return LibraryBackbone(made.network, made.num_features, (note,))


def normalisation(name: str) -> Statistics | None:
    """Mean and standard deviation that a network's weights were trained with, of 3 channels.

    None if it begins with no weights of a package or file, or if nobody knows. Weights in a file count as trained like
    those of the package for the same name.
    """
    model = LibraryModel.parse(name)
    if model is None or model.weights is None:
        return None
    check_library_model(model)
    if model.library == "timm":
        config = _timm_config(model)
        return None if config is None else (tuple(config.mean), tuple(config.std))
    if model.name in _ARGUMENTS:
        return _HALF  # their own code turns ImageNet's statistics into these
    found = _torchvision_weights(model)
    if found is None:
        return None
    transform = found.transforms()
    return tuple(transform.mean), tuple(transform.std)


def check_library_model(model: LibraryModel) -> None:
    """ConfigError unless the package has a network of this name, with the nearest of its names."""
    if model.library == "timm":
        timm = _import_timm(model)
        if timm.is_model(model.name.partition(".")[0]) and (
            "." not in model.name or model.name in timm.list_pretrained(f"{model.name.partition('.')[0]}.*")
        ):
            return
        names = timm.list_models()
        if "." in model.name:
            names += timm.list_pretrained()
    else:
        names = torchvision.models.list_models(module=torchvision.models)
        if model.name in names:
            return
    near = get_close_matches(model.name, names, n=3, cutoff=0.5)
    hint = f"did you mean {alternatives(near)}? " if near else ""
    raise ConfigError(
        f"{model.flag}: {model.library} has no network {model.name!r}; {hint}{model.library}"
        f"{'' if model.library == 'timm' else '.models'}.list_models() lists all {len(names)}"
    )


def adapted(weight: Tensor, channels: int) -> Tensor:
    """Weights [K, 3, h, w] of a first convolution for images of `channels` channels, as timm adapts them.

    For 1 channel they are summed: a grey image gives what it gave as three equal channels. For others they are repeated
    and multiplied by 3 / channels.
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeats = -(-channels // RGB)
    return weight.repeat(1, repeats, 1, 1)[:, :channels] * (RGB / channels)


# -- networks ------------------------------------------------------------------------------------------------


def _import_timm(model: LibraryModel) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"{model.flag}: the package timm cannot be imported ({error}): pip install 'fastnoise[models]'"
        ) from error
    return timm


def _timm_config(model: LibraryModel) -> Any:
    """timm's description of the weights for a name, or None."""
    return _import_timm(model).models.get_pretrained_cfg(model.name)


def _timm(model: LibraryModel, channels: int, image_size: tuple[int, int], dropout: float) -> _Parts:
    timm, config = _import_timm(model), _timm_config(model)
    options: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    if dropout:
        options["drop_rate"] = dropout
    try:
        network = timm.create_model(model.name, num_classes=0, in_chans=channels, **options)
    except Exception as error:  # whatever the code of over a thousand networks raises
        size = "x".join(map(str, image_size))
        raise ConfigError(
            f"{model.flag} cannot be built for images of {channels} x {size}: {type(error).__name__}: "
            f"{said(error, 300)}"
        ) from error
    found = network.pretrained_cfg
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)  # timm's own name for it
    return _Parts(
        network,
        getattr(network, "head_hidden_size", network.num_features),
        _several(found.get("first_conv")),
        _several(found.get("classifier")),
        None if convert is None else lambda state: dict(convert(state, network)),
    )


def _several(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _torchvision(model: LibraryModel, channels: int, image_size: tuple[int, int], dropout: float) -> _Parts:
    if dropout:
        raise ConfigError(f"--dropout {dropout}: {model.bare} has the dropout of its package; drop the option")
    options = dict(_ARGUMENTS.get(model.name, {}))
    if model.name.startswith("vit_"):
        if image_size[0] != image_size[1]:
            raise ConfigError(f"{model.flag} takes square images, not {image_size[0]}x{image_size[1]}")
        options["image_size"] = image_size[0]
    elif model.name.startswith("maxvit"):
        options["input_size"] = image_size
    try:
        network = torchvision.models.get_model(model.name, weights=None, **options)
    except Exception as error:  # as for timm
        size = "x".join(map(str, image_size))
        raise ConfigError(
            f"{model.flag} cannot be built for images of {size}: {type(error).__name__}: {said(error, 300)}"
        ) from error
    layers = [(name, layer) for name, layer in network.named_modules() if name.partition(".")[0] in _HEADS]
    linear = [(name, layer) for name, layer in layers if isinstance(layer, nn.Linear)]
    if linear:
        head, layer = linear[-1]
        features = layer.in_features
    else:  # squeezenet's classifier is a convolution
        head, conv = next((name, layer) for name, layer in layers if isinstance(layer, nn.Conv2d))
        features = conv.in_channels
    network.set_submodule(head, nn.Identity())
    first, before = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    if channels != RGB:
        network.set_submodule(first, _first_convolution(before, channels))
    fitted = None
    if model.name.startswith("vit_"):
        patch, side = network.patch_size, image_size[0]

        def fitted(state: dict[str, Tensor]) -> dict[str, Tensor]:
            return dict(interpolate_embeddings(side, patch, dict(state)))

    return _Parts(network, features, (first,), (head, *_AUXILIARIES), fitted)


def _first_convolution(layer: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A first convolution for images of `channels` channels, with weights made from those for 3."""
    made = nn.Conv2d(
        channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        stride=layer.stride,  # type: ignore[arg-type]
        padding=layer.padding,  # type: ignore[arg-type]
        bias=layer.bias is not None,
        device=layer.weight.device,
    )
    with torch.no_grad():
        made.weight.copy_(adapted(layer.weight, channels))
        if made.bias is not None and layer.bias is not None:
            made.bias.copy_(layer.bias)
    return made


# -- weights -------------------------------------------------------------------------------------------------


def _torchvision_weights(model: LibraryModel) -> Any:
    """torchvision's weights that a word names; those of DEFAULT for a file. None if it has none for the network."""
    known = torchvision.models.get_model_weights(model.name)
    if not len(known):
        if model.file is None:
            raise ConfigError(f"{model.flag}: torchvision has no weights for {model.name}; give weights=FILE")
        return None
    if model.weights in ("V1", "V2"):
        name = f"IMAGENET1K_{model.weights}"
        if name not in known.__members__:
            raise ConfigError(
                f"{model.flag}: torchvision has no {name} for {model.name}; it has "
                f"{alternatives(list(known.__members__))}"
            )
        return known[name]
    return known.DEFAULT


def _downloaded(model: LibraryModel) -> dict[str, Tensor]:
    """The weights that a package downloads, or has in its cache."""
    try:
        if model.library == "torchvision":
            found: Mapping[str, Tensor] = _torchvision_weights(model).get_state_dict(progress=False, check_hash=True)
        else:
            found = _import_timm(model).create_model(model.name, pretrained=True).state_dict()
    except ConfigError:
        raise
    except Exception as error:  # of networks, servers and disks
        raise ConfigError(
            f"{model.flag}: {model.library} could not load these weights ({type(error).__name__}: {said(error, 300)}); "
            "on a machine without a network give weights=FILE"
        ) from error
    return dict(found)


def _read(model: LibraryModel) -> dict[str, Tensor]:
    """The tensors of a safetensors or PyTorch file, without executing code from it."""
    path = model.file
    assert path is not None
    try:
        content: Any = _tensors(path)
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{model.flag}: the file is truncated or no safetensors file ({said(error, 300)})") from error
    except Exception as error:  # torch.load raises whatever its zip reader and unpickler meet
        kind = type(error).__name__  # a KeyError says no more than its key
        raise ConfigError(
            f"{model.flag}: the file is damaged or no file of tensors alone ({kind}: {said(error, 300)})"
        ) from error
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):  # as trainers wrap it
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(f"{model.flag}: the file has no tensors by name; give a state_dict")
    state: dict[str, Tensor] = {}
    for name, value in content.items():
        for wrapper in _WRAPPERS:
            name = name.removeprefix(wrapper)
        state[name] = value
    return state


def _tensors(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _load(made: _Parts, state: dict[str, Tensor], model: LibraryModel) -> tuple[str, ...]:
    """Load weights into a network without a head; returns the names of the head's. ConfigError if others differ."""
    left_out = tuple(name for name in state if name.startswith(tuple(f"{head}." for head in made.heads)))
    network = made.network
    wanted = network.state_dict()
    left_out = tuple(name for name in left_out if name not in wanted)
    kept = {name: value for name, value in state.items() if name not in left_out}
    if made.fitted is not None and _differences(kept, wanted, made.first):
        try:
            kept = made.fitted(kept)
        except Exception:  # of weights that are not this network's: what differs is said below
            kept = dict(kept)
    for name in (f"{layer}.weight" for layer in made.first):
        if name in kept and name in wanted and _is_of_colours(kept[name], wanted[name]):
            kept[name] = adapted(kept[name], wanted[name].shape[1])
    if found := _differences(kept, wanted):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ConfigError(f"{model.flag} does not fit the network: {'; '.join(found[:3])}{more}")
    network.load_state_dict(kept, strict=False)  # all but counters of batches are there
    return left_out


def _is_of_colours(given: Tensor, wanted: Tensor) -> bool:
    """Whether a first convolution's weights are for 3 channels, and the network's for another number."""
    return (
        given.dim() == wanted.dim() == 4
        and given.shape[1] == RGB != wanted.shape[1]
        and (given.shape[0], *given.shape[2:]) == (wanted.shape[0], *wanted.shape[2:])
    )


def _differences(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], first: tuple[str, ...] = ()) -> list[str]:
    """What of a file's tensors is missing, of another shape, or too much. Those of `first` may be of colours."""
    found = []
    for name, tensor in wanted.items():
        if name not in given:
            if not name.endswith(COUNTER):
                found.append(f"{name} is missing")
        elif given[name].shape != tensor.shape and not (
            name.removesuffix(".weight") in first and _is_of_colours(given[name], tensor)
        ):
            found.append(f"{name} is {list(given[name].shape)}, and the network has {list(tensor.shape)}")
    return found + [f"{name} is no tensor of the network" for name in given if name not in wanted]
