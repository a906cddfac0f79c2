"""Recipes give the configurations of version 0.1.0, by a table made with it, but for the changes listed here."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fastnoise.recipes import recipe
from fastnoise.recipes.base import UNKNOWN_RATE
from fastnoise.words import train_config

TABLE = json.loads((Path(__file__).parent / "recipes_of_0_1_0.json").read_text())
"""noises: the columns; common: fields and their usual values; changes: sets of fields with other values; table: for a
method, with its variant, and a data set the place in `changes` for each noise. Fields that were None are left out."""

NEW: dict[str, dict[str, Any]] = {
    "apl": {"variant": "paper"},
    "bootstrap": {"beta": "auto", "variant": "paper"},
    "coteaching": {"variant": "paper"},
    "elr": {"update_from": 1},
    "focal": {"variant": "paper"},
    "forward": {"variant": "paper"},
    "selc": {"update_from": "auto"},
    "selc_plus": {"update_from": "auto"},
}
"""Methods' options that came later, and what was None, and so not in the table, and is now written auto."""

ADDED: dict[str, Any] = {
    "exif_orientation": True,
    "skip_unreadable": False,
    "val_split": "given",
    "normalisation": "dataset",
    "init": "network",
    "balance": "none",
    "patience": 0,
    "log": "none",
    "gradients": False,
    "freeze": "none",
    "backbone_rate": 1.0,
    "layer_decay": 1.0,
    "target_dtype": "float32",
    "target_place": "device",
    "batch_norm": "local",
    "save_tables_every": 1,
    "recipe": "published",
    "average_weights": "none",
    "eval_mirror": False,
    "grow_size": "none",
    "fused_norm": "auto",
    "fused_head": "auto",
    "optimizer_kernel": "auto",
    "steps_per_graph": "auto",
}
"""Options that came later, with the values that do what 0.1.0 did."""

TABLE["common"]["loader_threads"] = "auto"  # was 2, which auto is on a CPU; it changes no result

CIFAR = ("cifar10", "cifar10n", "cifar100", "cifar100n")
CIFAR10, CIFAR100 = CIFAR[:2], CIFAR[2:]


class Change(NamedTuple):
    """Fields that recipes have set since 0.1.0 to other values, and where these come from."""

    names: tuple[str, ...]
    """Methods, with their variant if the table has one."""
    datasets: tuple[str, ...]
    fields: Mapping[str, Any]
    source: str
    noises: tuple[str, ...] = ()
    """Kinds of noise; () for all."""


PMD = {"model": "preact_resnet18_bn_stem", "learning_rate": 0.1, "weight_decay": 5e-4, "batch_size": 128}
PMD |= {"epochs": 150, "schedule": "multistep:61,121,gamma=0.2"}
COTEACHING = {"model": "cnn9_dropout2d_always", "variant": "code", "normalisation": "none", "drop_last": True}
COTEACHING |= {"epochs": 199, "schedule": "linear:79"}
ADAM = {"optimizer": "adam", "learning_rate": 1e-3, "batch_size": 128, "dropout": 0.25, "forget_epochs": 10}
CNN4 = {"model": "cnn4", "batch_size": 128, "epochs": 50}
APL_MNIST = CNN4 | {"alpha": 1.0, "beta": 10.0, "learning_rate": 0.01, "weight_decay": 0.01, "clip_norm": 5.0}
APL_MNIST |= {"optimizer": "sgd:momentum=0.9,nesterov", "schedule": "cosine:min=0.001"}
SCE_MNIST = CNN4 | {"alpha": 0.01, "beta": 1.0, "learning_rate": 0.1, "schedule": "multistep:11,31,gamma=0.1"}
SCE_MNIST |= {"normalisation": "none"}
STUDY = {"dropout": 0.5, "batch_size": 128, "epochs": 14, "optimizer": "adam", "learning_rate": 1e-3}
SELC_PMD = "SELC's train_cifar_with_SELC_PMD_noise.py"

PYTORCH = {"init": "pytorch"}
LIKE_CE = ("apl", "bootstrap", "ce", "focal", "gce", "label_smoothing", "mae", "mixup", "sce", "sce paper", "sce code")
AUTHORS = ("dividemix", "elr", "elr_plus", "nal", "nal paper", "nal code", "plc", "selc", "selc_plus")

CHANGES = (
    Change(LIKE_CE, CIFAR, PYTORCH, "Truncated-Loss, models/resnet.py: no initialisation of its own"),
    Change(
        AUTHORS, CIFAR, PYTORCH, "the networks in the code of ELR, DivideMix, NAL, SELC and PLC have none of their own"
    ),
    Change(("nal code",), CIFAR100, {"update_from": 60}, "NAL's train_cifar.py: es is 60 by default"),
    Change(
        ("elr_plus", "dividemix"),
        CIFAR,
        {"model": "preact_resnet18_bn_stem"},
        "PreResNet.py in the code of ELR+ and of DivideMix: 11,171,274 parameters",
    ),
    Change(("elr",), CIFAR, {"val_split": "clean"}, "ELR's cifar10.py: train_val_split, then noise in each"),
    Change(("elr_plus",), CIFAR, {"val_split": "clean"}, "ELR_plus/data_loader/cifar10.py"),
    Change(("coteaching",), CIFAR10, COTEACHING, "co-teaching's main.py and model.py"),
    Change(("coteaching",), CIFAR100, COTEACHING | {"schedule": "linear:99"}, "co-teaching's main.py and model.py"),
    Change(("coteaching",), ("mnist",), COTEACHING | ADAM, "co-teaching's main.py and model.py"),
    Change(("apl",), ("mnist",), APL_MNIST, "APL, configs/mnist/sym/nce+mae.yaml"),
    Change(("sce", "sce paper", "sce code"), ("mnist",), SCE_MNIST, "SCE's train_models.py, util.py and models.py"),
    Change(
        ("ce",), ("mnist",), STUDY | {"schedule": "constant"}, "Khanal and Kanan 2021, section 4", ("heterogeneous",)
    ),
    Change(("plc",), CIFAR100, {"normalisation": "cifar10"}, "PLC's cifar/train.py: one Normalize for both sets"),
    Change(
        ("gce",), CIFAR10, {"update_from": 40}, "Truncated-Loss, main.py: --start_prune 40, before epochs 40, 50, ..."
    ),
    Change(("gce",), CIFAR100, {"update_from": 80}, "Truncated-Loss, README: --start_prune 80 for CIFAR-100"),
    Change(("apl",), CIFAR, {"clip_norm": 5.0}, "APL, configs/*.yaml: grad_bound 5"),
    Change(
        ("apl",),
        CIFAR100,
        {"augment": "crop,pad=4,flip,rotate:20", "crop_padding": 0, "flip": False},
        "APL, dataset.py: RandomCrop, RandomHorizontalFlip, RandomRotation(20) for CIFAR-100",
    ),
    Change(("plc",), CIFAR, {"model": "resnet34"}, "PLC's networks/preact_resnet.py: BasicBlock, [3, 4, 6, 3]"),
    Change(("selc",), CIFAR, PMD | {"update_from": 41}, SELC_PMD, ("pmd",)),
    Change(("selc_plus",), CIFAR, PMD | {"update_from": 41, "epochs": 300}, SELC_PMD, ("pmd",)),
    Change(("nal", "nal paper", "nal code"), CIFAR, PMD, "NAL, section 5: batch 128; else as SELC's code", ("pmd",)),
)


def _differences(name: str, dataset: str) -> list[str]:
    method, _, variant = name.partition(" ")
    found = []
    for noise, place in zip(TABLE["noises"], TABLE["table"][name][dataset], strict=True):
        before: dict[str, Any] = {"method": method, "dataset": dataset, "noise": noise}
        before |= ADDED | NEW.get(method, {}) | TABLE["common"] | TABLE["changes"][place]
        if (method, dataset, noise) == ("coteaching", "folder:images", "none"):
            before["forget_rate"] = UNKNOWN_RATE  # was 0: nobody knows how many of a user's own labels are wrong
        for change in CHANGES:
            kinds = change.noises or (noise.partition(":")[0],)
            if name in change.names and dataset in change.datasets and noise.partition(":")[0] in kinds:
                assert any(before.get(key) != value for key, value in change.fields.items()), change
                before |= change.fields
        config: Any = recipe(method, dataset, noise, variant or None)  # type: ignore[arg-type]
        now = {key: value for key, value in config.flat().items() if value is not None}
        found += [
            f"{name} {dataset} {noise}: {key} was {before.get(key)!r} and is {now.get(key)!r}"
            for key in sorted(before.keys() | now.keys())
            if json.dumps(before.get(key)) != json.dumps(now.get(key))
        ]
    return found


@pytest.mark.parametrize("name", TABLE["table"])
def test_configurations_are_those_of_0_1_0_and_the_changes(name: str) -> None:
    differences = [line for dataset in TABLE["table"][name] for line in _differences(name, dataset)]
    assert not differences, "\n".join(differences)


def test_every_change_is_of_recipes_in_the_table() -> None:
    for change in CHANGES:
        for name in change.names:
            assert set(change.datasets) <= set(TABLE["table"][name])


def test_every_recipe_is_in_the_table() -> None:
    from fastnoise.methods import METHODS

    later = {"plain", "multitask", "posteriors", "c2d", "swce_dividemix", "jocor", "cores", "gjs", "disc", "volminnet"}
    assert {name.partition(" ")[0] for name in TABLE["table"]} == set(METHODS) - later


@pytest.mark.parametrize("study", ["mnist", "mnist_pair"])
def test_tables_on_mnist_train_all_methods_as_0_1_0_did(study: str) -> None:
    """The README's figures were made with these configurations, also of methods whose recipes are others now."""
    from fastnoise.benchmarks.methods import EQUAL, METHODS, STUDIES

    for method in set(METHODS) & set(TABLE["table"]):
        config, _ = train_config(shlex.split(f"--method {method} {STUDIES[study]} {EQUAL.get(method, '')}"))
        place = TABLE["table"][method]["mnist"][TABLE["noises"].index(config.noise.noise)]
        before = TABLE["common"] | TABLE["changes"][place] | ADDED | NEW.get(method, {})
        for key, value in config.flat().items():
            if key in before and key != "data_root":
                assert value == before[key], (method, key)
