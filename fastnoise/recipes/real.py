"""The settings of published data sets of image files: of each set for all methods, and of single methods on it.

The numbers are those of the papers' code if nothing else is said; what stays different, `deviations` lists. `base`
begins with SETS, a method's recipe adds its options, and PAIRS replaces what is particular to both together.
"""

from collections.abc import Mapping
from typing import Any

from ..config import RunConfig
from ..data.names import family

RESNET50, RESNET50_V1 = "torchvision:resnet50", "torchvision:resnet50,weights=V1"
INCEPTION = "timm:inception_resnet_v2"
PYTORCH = {"init": "pytorch"}
"""Convolutions begin as PyTorch draws them by default: in the code of ELR, DivideMix, GCE, NAL, SELC and PLC."""

# FaMUS' and later code for 32 pixels.
_CNWL: Mapping[str, Any] = {
    "model": "preact_resnet18_bn_stem",
    "batch_size": 64,
    "learning_rate": 0.02,
    "weight_decay": 5e-4,
    "epochs": 300,
    "schedule": "multistep:200,250,gamma=0.1",
    **PYTORCH,
}

# Ours: the course of ResNet-50 on ImageNet.
_IMAGENET: Mapping[str, Any] = {
    "model": RESNET50,
    "batch_size": 256,
    "optimizer": "sgd:momentum=0.9,nesterov",
    "learning_rate": 0.1,
    "weight_decay": 1e-4,
    "epochs": 90,
    "schedule": "multistep:30,60,gamma=0.1",
}

SETS: Mapping[str, Mapping[str, Any]] = {
    # NAL's and SELC's code; PLC's has the same.
    "animal10n": {
        "model": "vgg19_bn",
        "dropout": 0.5,
        "batch_size": 128,
        "optimizer": "sgd:momentum=0",
        "learning_rate": 0.1,
        "weight_decay": 1e-3,
        "epochs": 100,
        "schedule": "multistep:50,75,gamma=0.2",
        "drop_last": True,
        **PYTORCH,
    },
    # SELC's code, with the 2,000 balanced batches of 64 that NAL's has too.
    "clothing1m": {
        "model": RESNET50_V1,
        "batch_size": 64,
        "epoch_batches": 2000,
        "balance": "subset",
        "learning_rate": 0.01,
        "weight_decay": 1e-3,
        "epochs": 40,
        "schedule": "multistep:10,20,gamma=0.1",
    },
    # SELC's code.
    "mini_webvision": {
        "model": INCEPTION,
        "batch_size": 32,
        "learning_rate": 0.01,
        "weight_decay": 5e-4,
        "epochs": 100,
        "schedule": "multistep:40,80,gamma=0.1",
        "drop_last": True,
    },
    "webvision": _IMAGENET,
    "imagenet": _IMAGENET,
    # PLC's code.
    "food101n": {
        "model": RESNET50_V1,
        "batch_size": 32,
        "learning_rate": 0.005,
        "weight_decay": 1e-3,
        "epochs": 30,
        "schedule": "multistep:10,20,gamma=0.1",
    },
    # HSA-NRL's code, by the authors of the data set.
    "chaoyang": {
        "model": "torchvision:resnet34",
        "batch_size": 96,
        "optimizer": "adam",
        "learning_rate": 5e-4,
        "weight_decay": 0.0,
        "epochs": 80,
        "schedule": "linear:30",
        "normalisation": "none",
    },
    # Ours, but for the network, which SWCE's paper names.
    "chest_xray": {
        "model": "torchvision:resnet18",
        "batch_size": 64,
        "optimizer": "adam",
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "epochs": 30,
        "schedule": "cosine",
    },
    # Ours: as on CIFAR-100.
    "tiny_imagenet": {
        "model": "preact_resnet18_bn_stem",
        "batch_size": 128,
        "learning_rate": 0.02,
        "weight_decay": 5e-4,
        "epochs": 150,
        "schedule": "multistep:80,120,gamma=0.1",
        **PYTORCH,
    },
    "red_mini_imagenet": _CNWL,
    "blue_mini_imagenet": _CNWL,
}
"""Data set -> fields of all methods: network, batch and course."""

MEDICAL = ("chest_xray", "chaoyang")
"""The medical sets of SWCE's paper."""

_SWCE = {"model": "torchvision:resnet18", "optimizer": "adamw", "learning_rate": 1e-4, "weight_decay": 0.03}
_SWCE |= {"batch_size": 64, "epochs": 30, "schedule": "constant", "selection_threshold": 0.25, "gamma": 2.0}

PAIRS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    # NAL: the authors' code; its targets begin to change in variant code alone (`UPDATES`).
    ("nal", "animal10n"): {"strength": 0.5, "momentum": 0.9},
    ("nal", "clothing1m"): {
        "model": RESNET50,
        "strength": 50.0,
        "reverse": 0.1,
        "learning_rate": 0.02,
        "epochs": 400,
        "schedule": "cosine_restarts:10,min=0.0001",
    },
    ("nal", "mini_webvision"): {
        "strength": 50.0,
        "reverse": 0.1,
        "learning_rate": 0.02,
        "epochs": 500,
        "schedule": "cosine_restarts:10,min=0.001",
    },
    # SELC: the last epoch of plain cross-entropy is one before `update_from`.
    ("selc", "animal10n"): {"update_from": 41},
    ("selc", "clothing1m"): {"update_from": 6, "momentum": 0.8},
    ("selc", "mini_webvision"): {"update_from": 41},
    # ELR: the paper says no more of these runs than their networks; the settings are those of ELR+'s configurations,
    # with the options that it shares with ELR.
    ("elr", "clothing1m"): {
        "strength": 3.0,
        "momentum": 0.7,
        "learning_rate": 0.002,
        "epochs": 15,
        "epoch_batches": 3000,
        "schedule": "multistep:7,gamma=0.1",
    },
    ("elr", "mini_webvision"): {
        "strength": 3.0,
        "momentum": 0.7,
        "learning_rate": 0.02,
        "schedule": "multistep:50,gamma=0.1",
    },
    ("elr_plus", "clothing1m"): {
        "strength": 3.0,
        "momentum": 0.7,
        "mixup_alpha": 1.0,
        "average_momentum": 0.9999,
        "average_ramp": 10_000,
        "learning_rate": 0.002,
        "epochs": 15,
        "epoch_batches": 3000,
        "schedule": "multistep:7,gamma=0.1",
    },
    ("elr_plus", "mini_webvision"): {
        "strength": 3.0,
        "momentum": 0.7,
        "mixup_alpha": 1.5,
        "average_momentum": 0.997,
        "average_ramp": 40_000,
        "learning_rate": 0.02,
        "schedule": "multistep:50,gamma=0.1",
    },
    # DivideMix: batches of 32 for each of the four parts; 1,000 of them are drawn of Clothing1M.
    ("dividemix", "clothing1m"): {
        "batch_size": 4 * 32,
        "epoch_batches": 1000,
        "warm_up": 1,
        "mixup_alpha": 0.5,
        "unlabelled_strength": 0.0,
        "learning_rate": 0.002,
        "epochs": 80,
        "schedule": "multistep:40,gamma=0.1",
    },
    ("dividemix", "mini_webvision"): {
        "batch_size": 4 * 32,
        "warm_up": 1,
        "mixup_alpha": 0.5,
        "unlabelled_strength": 0.0,
        "epochs": 80,
        "schedule": "multistep:40,gamma=0.1",
    },
    **{("dividemix", f"{colour}_mini_imagenet"): {"batch_size": 4 * 64, "warm_up": 30} for colour in ("red", "blue")},
    # Beside DivideMix's: AugDesc changes strong views by ImageNet's policy; C2D pretrains for 20 epochs before its 120.
    ("augdesc", "clothing1m"): {"augment": "resize:256,crop:224,flip,autoaugment:imagenet"},
    ("c2d", "clothing1m"): {"warm_up": 5, "clean_threshold": 0.7, "epochs": 20 + 120},
    # PLC: the authors' code.
    ("plc", "animal10n"): {"warm_up": 40, "window": 10},
    ("plc", "clothing1m"): {
        "batch_size": 32,
        "epoch_batches": None,
        "balance": "none",
        "warm_up": 1,
        "threshold": 0.7,
        "learning_rate": 1e-3,
        "epochs": 15,
        "schedule": "multistep:6,11,gamma=0.5",
    },
    ("plc", "food101n"): {"warm_up": 4, "window": 4, "threshold": 0.1, "threshold_step": 0.05},
    # SWCE: the threshold of the medical sets is the paper's; network, rate and decay are those of its other sets.
    ("swce", "clothing1m"): {"epoch_batches": None, "balance": "none"},  # it orders its epochs itself
    **{("swce", name): _SWCE for name in MEDICAL},
}
"""(method, data set) -> fields and options of this pair alone."""

UPDATES: Mapping[str, tuple[int, int]] = {"animal10n": (40, 1), "clothing1m": (60, 10), "mini_webvision": (200, 10)}
"""Data set -> the first epoch in which the authors' code of NAL updates targets, and each how many-th after it does."""


def settled(config: RunConfig) -> RunConfig:
    """A recipe's configuration with what is particular to its method on its data set."""
    changes = PAIRS.get((config.method.method, family(config.data.dataset)))
    return config if changes is None else config.replace(changes)
