"""Recipes give the configurations of version 0.1.0, by a table made with it, but for the changes listed here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fastnoise.recipes import recipe

TABLE = json.loads((Path(__file__).parent / "recipes_of_0_1_0.json").read_text())
"""noises: the columns; common: fields and their usual values; changes: sets of fields with other values; table: for a
method, with its variant, and a data set the place in `changes` for each noise. Fields that were None are left out."""

NEW = {"selc": {"update_from": "auto"}, "selc_plus": {"update_from": "auto"}, "bootstrap": {"beta": "auto"}}
"""Differences on purpose: what was None, and so not in the table, is now written auto."""

ADDED: dict[str, Any] = {"exif_orientation": True, "skip_unreadable": False}
"""Options that came later, with the values that do what 0.1.0 did."""

CIFAR = ("cifar10", "cifar10n", "cifar100", "cifar100n")
CIFAR10, CIFAR100 = CIFAR[:2], CIFAR[2:]


class Change(NamedTuple):
    """Fields that recipes have set since 0.1.0 to other values, and where these come from."""

    names: tuple[str, ...]
    """Methods, with their variant if the table has one."""
    datasets: tuple[str, ...]
    fields: Mapping[str, Any]
    source: str


CHANGES = (
    Change(("nal code",), CIFAR100, {"update_from": 60}, "NAL's train_cifar.py: es is 60 by default"),
)


def _differences(name: str, dataset: str) -> list[str]:
    method, _, variant = name.partition(" ")
    found = []
    for noise, place in zip(TABLE["noises"], TABLE["table"][name][dataset], strict=True):
        before: dict[str, Any] = {"method": method, "dataset": dataset, "noise": noise}
        before |= ADDED | NEW.get(method, {}) | TABLE["common"] | TABLE["changes"][place]
        for change in CHANGES:
            if name in change.names and dataset in change.datasets:
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

    later = {"plain", "multitask"}
    assert {name.partition(" ")[0] for name in TABLE["table"]} == set(METHODS) - later
