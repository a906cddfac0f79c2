"""Recipes give the configurations of version 0.1.0: every method, data set and noise, by a table made with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastnoise.recipes import recipe
from fastnoise.recipes.base import UNKNOWN_RATE

TABLE = json.loads((Path(__file__).parent / "recipes_of_0_1_0.json").read_text())
"""noises: the columns; common: fields and their usual values; changes: sets of fields with other values; table: for a
method, with its variant, and a data set the place in `changes` for each noise. Fields that were None are left out."""

NEW = {"selc": {"update_from": "auto"}, "selc_plus": {"update_from": "auto"}, "bootstrap": {"beta": "auto"}}
"""Differences on purpose: what was None, and so not in the table, is now written auto."""

ADDED = {"exif_orientation": True, "skip_unreadable": False, "balance": "none", "patience": 0, "log": "none"}
"""Options that came later, which have no meaning for the data sets of the table."""


def _differences(name: str, dataset: str) -> list[str]:
    method, _, variant = name.partition(" ")
    found = []
    for noise, place in zip(TABLE["noises"], TABLE["table"][name][dataset], strict=True):
        before: dict[str, Any] = {"method": method, "dataset": dataset, "noise": noise}
        before |= ADDED | NEW.get(method, {}) | TABLE["common"] | TABLE["changes"][place]
        if (method, dataset, noise) == ("coteaching", "folder:images", "none"):
            before["forget_rate"] = UNKNOWN_RATE  # was 0: nobody knows how many of a user's own labels are wrong
        config: Any = recipe(method, dataset, noise, variant or None)  # type: ignore[arg-type]
        now = {key: value for key, value in config.flat().items() if value is not None}
        found += [
            f"{name} {dataset} {noise}: {key} was {before.get(key)!r} and is {now.get(key)!r}"
            for key in sorted(before.keys() | now.keys())
            if json.dumps(before.get(key)) != json.dumps(now.get(key))
        ]
    return found


@pytest.mark.parametrize("name", TABLE["table"])
def test_configurations_are_those_of_0_1_0(name: str) -> None:
    differences = [line for dataset in TABLE["table"][name] for line in _differences(name, dataset)]
    assert not differences, "\n".join(differences)


def test_every_recipe_is_in_the_table() -> None:
    from fastnoise.methods import METHODS

    later = {"plain", "multitask"}
    assert {name.partition(" ")[0] for name in TABLE["table"]} == set(METHODS) - later
