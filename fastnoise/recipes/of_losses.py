"""The published options of a loss alone, out of the recipe of its method: what `FusedLoss.recipe` hands on."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from ..data.facts import FACTS
from ..errors import ConfigError, nearest
from ..noise.spec import parse
from . import recipe

CLASSES: Mapping[str, int] = dict(
    sorted(
        {
            **{name: len(facts.class_names) for name, facts in FACTS.items() if facts.class_names},
            **dict.fromkeys(("cifar10", "cifar10n", "digits", "mnist"), 10),
            "mini_webvision": 50,
            **dict.fromkeys(("cifar100", "cifar100n"), 100),
            "food101n": 101,
            "tiny_imagenet": 200,
            **dict.fromkeys(("imagenet", "webvision"), 1000),
        }.items()
    )
)
"""Data sets of one label per image that recipes know by name -> the number of classes."""

OF_METHOD: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "APLLoss": (
        "apl",
        {name: name for name in ("active", "passive", "alpha", "beta", "gamma", "mae", "variant")},
    ),
    "BootstrapLoss": ("bootstrap", {"kind": "kind", "beta": "beta", "variant": "variant"}),
    "CrossEntropyLoss": ("ce", {}),
    "ELRLoss": ("elr", {"strength": "strength", "momentum": "momentum"}),
    "ELRPlusLoss": ("elr_plus", {"strength": "strength", "momentum": "momentum", "target": "target"}),
    "FocalLoss": ("focal", {"gamma": "gamma", "variant": "variant"}),
    "ForwardLoss": ("forward", {"variant": "variant"}),
    "GJSLoss": ("gjs", {"pi": "pi"}),
    "GCELoss": ("gce", {"q": "q"}),  # the method's k prunes samples between epochs; the loss does not truncate
    "MAELoss": ("mae", {"form": "mae"}),
    "NALLoss": ("nal", {name: name for name in ("strength", "momentum", "variant", "reverse", "gate")}),
    "SCELoss": ("sce", {"alpha": "alpha", "beta": "beta", "variant": "variant"}),
    "SELCLoss": ("selc", {"momentum": "momentum"}),
    "SOPLoss": ("sop", {"rate_u": "rate_u", "rate_v": "rate_v"}),  # sop_plus sets its balance
    "SWCELoss": ("swce_loss", {"weight": "weight"}),
}
"""Class of a loss -> its method, and argument of the class -> option of the method. NCELoss and NFLLoss are parts of
APLLoss, and no method trains with one of them alone. Method gjs trains with JSLoss if it has one view; its recipe has
two."""


def loss_options(names: Sequence[str], dataset: str, noise: str | None, variant: str | None) -> dict[str, Any]:
    """The arguments of a loss's class that the recipe of its method sets, and the `num_classes` of the data set.

    Args:
        names: of the class and its bases, nearest first; the first with a method counts.
        dataset: one of CLASSES.
        noise: a noise spec, or None for the recipe's own.
        variant: "paper" or "code", or None for the recipe's own.

    Raises:
        ConfigError: there is no recipe for the class or the data set, with those that there are; or `noise` or
            `variant` is unknown.
    """
    found = next((name for name in names if name in OF_METHOD), None)
    if found is None:
        raise ConfigError(
            f"{names[0]}.recipe: no method trains with this loss alone; {nearest(names[0], [*OF_METHOD])}"
        )
    if dataset not in CLASSES:
        raise ConfigError(f"{names[0]}.recipe: unknown data set {dataset!r}; {nearest(str(dataset), [*CLASSES])}")
    if variant not in (None, "paper", "code"):
        raise ConfigError(f"{names[0]}.recipe: variant is {variant!r}; give 'paper' or 'code'")
    method, arguments = OF_METHOD[found]
    try:
        if noise is not None:
            parse(noise)
        options = recipe(method, dataset, noise, cast(Literal["paper", "code"] | None, variant)).method
    except ConfigError as error:
        raise ConfigError(f"{names[0]}.recipe: {error}") from None
    given = {argument: getattr(options, option) for argument, option in arguments.items()}
    return {"num_classes": CLASSES[dataset], **{k: None if v == options.AUTO else v for k, v in given.items()}}
