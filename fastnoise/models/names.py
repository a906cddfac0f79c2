"""Networks by name, without importing any: a network is its file and a line here."""

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from .. import own
from ..errors import ConfigError, alternatives, nearest
from ..files import expanded

MODELS: dict[str, str] = {
    "small_cnn": "fastnoise.models.small:SmallCNN",
    "lenet5": "fastnoise.models.small:LeNet5",
    "cnn4": "fastnoise.models.small:CNN4",
    "cnn7": "fastnoise.models.small:CNN7",
    "cnn9": "fastnoise.models.cnn9:CNN9",
    "cnn9_dropout2d": "fastnoise.models.cnn9:CNN9Dropout2d",
    "cnn9_dropout2d_always": "fastnoise.models.cnn9:CNN9Dropout2dAlways",
    "resnet18": "fastnoise.models.resnet:resnet18",
    "resnet18_mish": "fastnoise.models.resnet:resnet18_mish",
    "resnet34": "fastnoise.models.resnet:resnet34",
    "preact_resnet18": "fastnoise.models.resnet:preact_resnet18",
    "preact_resnet18_bn_stem": "fastnoise.models.resnet:preact_resnet18_bn_stem",
    "preact_resnet34": "fastnoise.models.resnet:preact_resnet34",
    "resnet50": "fastnoise.models.resnet50:ResNet50",
    "vgg19_bn": "fastnoise.models.vgg:VGG19BN",
    "whitened_cnn6": "fastnoise.models.whitened:whitened_cnn6",
    "whitened_cnn9": "fastnoise.models.whitened:WhitenedCNN",
    "wrn28_10": "fastnoise.models.wide:wrn28_10",
    "linear": "fastnoise.models.features:Linear",
    "mlp": "fastnoise.models.features:MLP",
}
"""Name -> MODULE:NAME of a function or class `(channels, image_size, width) -> Backbone`. If the network has dropout it
also has a parameter `dropout`. Its attribute `smallest` is the smallest side of an image that it takes, by default
1."""

DROPOUT_FORMS = ("cnn9", "cnn9_dropout2d", "cnn9_dropout2d_always")
"""Networks that differ in what dropout drops and when, and in nothing else."""

FITTED = ("whitened_cnn6", "whitened_cnn9")
"""Networks whose first layer is made from the run's own images before training begins (`Backbone.fit`)."""

LIBRARIES: dict[str, tuple[str, ...]] = {"timm": ("DEFAULT",), "torchvision": ("DEFAULT", "V1", "V2")}
"""Packages whose networks can be named, as in timm:NAME -> the words for weights that the package downloads."""

ON_FEATURES = ("linear", "mlp")
"""Networks for frozen features, beside those of the user's own."""

FORMS: tuple[str, ...] = (*MODELS, *(f"{library}:NAME,weights=FILE" for library in LIBRARIES), "FILE.py:NAME")
"""The forms in which a network can be written."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class LibraryModel(NamedTuple):
    """A network of another package, as `timm:NAME,weights=FILE` spells it."""

    library: str
    """timm or torchvision."""
    name: str
    weights: str | None
    """A word of LIBRARIES, a file, or None: the network draws its weights."""

    @property
    def file(self) -> Path | None:
        """The file with the weights; None if they come from the package, or if there are none."""
        return None if self.weights is None or self.weights in LIBRARIES[self.library] else expanded(self.weights)

    @property
    def bare(self) -> str:
        """The network without its weights: what it is built from once its weights lie elsewhere."""
        return f"{self.library}:{self.name}"

    @property
    def flag(self) -> str:
        """The beginning of messages."""
        return f"--model {self.bare}" + ("" if self.weights is None else f",weights={self.weights}")

    @classmethod
    def parse(cls, text: str) -> "LibraryModel | None":
        """Read `timm:NAME`, `torchvision:NAME`, and either with `,weights=WORD` or `,weights=FILE`.

        None if the text names a network of another kind; ConfigError if it begins like one of these and goes wrong.
        """
        library, colon, rest = text.partition(":")
        if library not in LIBRARIES or not colon:
            return None
        name, comma, option = rest.partition(",")
        key, _, weights = option.partition("=")
        words = alternatives([*LIBRARIES[library], "a FILE"])
        if comma and (key.strip() != "weights" or not weights.strip()):
            raise ConfigError(f"--model {text}: after the name only weights={words} may follow, not {option!r}")
        if not _NAME.fullmatch(name):
            raise ConfigError(f"--model {text}: {name!r} is no name of a network; write {library}:NAME")
        if library == "timm" and weights in ("V1", "V2"):
            raise ConfigError(
                f"--model {text}: timm tells weights apart by a tag in the name, as in timm:resnet50.tv_in1k; give "
                f"weights=DEFAULT with such a name, or weights=FILE"
            )
        return cls(library, name, weights.strip() if comma else None)


def bare(name: str) -> str:
    """A network's name without the weights that it begins with."""
    found = LibraryModel.parse(name)
    return name if found is None else found.bare


def located(name: str) -> str:
    """The name with an absolute path, if it has one, which is valid in any folder."""
    found = LibraryModel.parse(name)
    if found is None:
        return own.located(name)
    return name if found.file is None else f"{found.bare},weights={found.file.absolute()}"


def identity(name: str) -> str:
    """The name with a file of weights replaced by its SHA-256 sum: the same wherever the file lies.

    ConfigError if the file cannot be read.
    """
    found = LibraryModel.parse(name)
    if found is None or found.file is None:
        return name
    require_weights(found)
    with open(found.file, "rb") as stream:
        return f"{found.bare},weights={hashlib.file_digest(stream, 'sha256').hexdigest()}"


def require_weights(model: str | LibraryModel) -> None:
    """ConfigError if a network is to begin with weights in a file and there is no such file."""
    found = LibraryModel.parse(model) if isinstance(model, str) else model
    if found is not None and found.file is not None and not found.file.is_file():
        words = alternatives([*LIBRARIES[found.library], "the path of a safetensors or PyTorch file"])
        raise ConfigError(f"{found.flag}: there is no file {found.file}; give {words}")


def require_head(name: str, dataset: str) -> None:
    """ConfigError for a network that needs pictures, and the data set has frozen features."""
    if name not in ON_FEATURES and not own.is_own(name):
        raise ConfigError(
            f"--model {name} is for images, and {dataset} has features; take {', '.join(ON_FEATURES)} or FILE.py:NAME"
        )


def check_model(name: str) -> None:
    """ConfigError for an unknown network, with the nearest and all valid names, or for a FILE.py that can't be used.

    Of a network of another package only the form is checked, and that the package is installed: `create_model` knows
    the names.
    """
    if own.is_own(name):
        own.load(name, "model")
    elif (library := LibraryModel.parse(name)) is not None:
        if library.library == "timm" and find_spec("timm") is None:
            raise ConfigError(f"{library.flag}: the package timm is not installed: pip install 'fastnoise[models]'")
    elif name not in MODELS:
        raise ConfigError(f"unknown model {name!r}; {nearest(name, list(FORMS))}")
