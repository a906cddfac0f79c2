"""Networks by name, without importing any: a network is its file and a line here."""

from .. import own
from ..errors import ConfigError, nearest

MODELS: dict[str, str] = {
    "small_cnn": "fastnoise.models.small:SmallCNN",
    "lenet5": "fastnoise.models.small:LeNet5",
    "cnn4": "fastnoise.models.small:CNN4",
    "cnn9": "fastnoise.models.cnn9:CNN9",
    "cnn9_dropout2d": "fastnoise.models.cnn9:CNN9Dropout2d",
    "cnn9_dropout2d_always": "fastnoise.models.cnn9:CNN9Dropout2dAlways",
    "resnet18": "fastnoise.models.resnet:resnet18",
    "resnet18_mish": "fastnoise.models.resnet:resnet18_mish",
    "resnet34": "fastnoise.models.resnet:resnet34",
    "preact_resnet18": "fastnoise.models.resnet:preact_resnet18",
    "preact_resnet18_bn_stem": "fastnoise.models.resnet:preact_resnet18_bn_stem",
    "preact_resnet34": "fastnoise.models.resnet:preact_resnet34",
    "resnet50": "fastnoise.models.resnet:ResNet50",
    "linear": "fastnoise.models.features:Linear",
    "mlp": "fastnoise.models.features:MLP",
}
"""Name -> MODULE:NAME of a function or class `(channels, image_size, width) -> Backbone`. If the network has dropout it
also has a parameter `dropout`. Its attribute `smallest` is the smallest side of an image that it takes, by default
1."""

DROPOUT_FORMS = ("cnn9", "cnn9_dropout2d", "cnn9_dropout2d_always")
"""Networks that differ in what dropout drops and when, and in nothing else."""

ON_FEATURES = ("linear", "mlp")
"""Networks for frozen features, beside those of the user's own."""

FORMS: tuple[str, ...] = (*MODELS, "FILE.py:NAME")
"""The forms in which a network can be written."""


def require_head(name: str, dataset: str) -> None:
    """ConfigError for a network that needs pictures, and the data set has frozen features."""
    if name not in ON_FEATURES and not own.is_own(name):
        raise ConfigError(
            f"--model {name} is for images, and {dataset} has features; take {', '.join(ON_FEATURES)} or FILE.py:NAME"
        )


def check_model(name: str) -> None:
    """ConfigError for an unknown network, with the nearest and all valid names, or for a FILE.py that can't be used."""
    if own.is_own(name):
        own.load(name, "model")
    elif name not in MODELS:
        raise ConfigError(f"unknown model {name!r}; {nearest(name, list(FORMS))}")
