"""What methods reached on labels of which the probe found this and that: our own sweeps, and what follows from them."""

import csv
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .findings import Findings

PATH = Path(__file__).with_name("table.csv")

NEAR = 1.5
"""Distance to the nearest setting of the table beyond which the choice is a guess, and is said to be one."""

WIDTH = 0.1
"""Width of the kernel by which settings count, in units of `place`. Of 0.1, 0.15, 0.2, 0.25, 0.35 and 0.5 it loses
least over two tests together: each setting left out of the table, and each seed by a table of the other seed."""

CAUTION = 0.5
"""How much of the standard deviation of a method's loss, over the settings that count, is added to its mean."""


PRICE = 0.1
"""Points that each doubling of the training time must be worth."""


@dataclass(frozen=True)
class Arm:
    """A method with options that differ from its recipe's."""

    method: str
    options: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Arm":
        """Read METHOD[,OPTION=NUMBER...]."""
        method, *pairs = text.split(",")
        split = (pair.partition("=") for pair in pairs)
        return cls(method, tuple((name, float(value)) for name, _, value in split))

    def __str__(self) -> str:
        return ",".join([self.method, *(f"{name}={value:g}" for name, value in self.options)])

    def words(self) -> list[str]:
        """The words of `fastnoise train` that ask for it."""
        flags = [word for name, value in self.options for word in (f"--{name.replace('_', '-')}", f"{value:g}")]
        return ["--method", self.method, *flags]

    def changes(self) -> dict[str, float]:
        """Its options by flat names."""
        return dict(self.options)


def place(found: Findings) -> NDArray[np.float64]:
    """Where a setting lies among the others: [D], in units in which settings a few tenths apart are much alike."""
    spread = 1 / max(1, found.classes - 1)
    pairwise = max(0.0, (found.concentration - spread) / (1 - spread)) if found.classes > 2 else 0.0
    wrong = min(1.0, found.rate / 0.1)  # how labels are wrong says little if few are
    return np.array(
        [
            found.rate / 0.4,
            wrong * pairwise,
            wrong * min(2.0, 0.0 if math.isnan(found.instance) else max(0.0, found.instance) / 3),
            2 * (1 - min(1.0, max(0.0, found.learnt))),
            0.25 * math.log2(found.images / found.classes / 100),
        ]
    )


@dataclass(frozen=True)
class Row:
    """One setting of the table."""

    setting: str
    kind: str
    """images or features: methods with strong views need images."""
    found: Findings
    accuracy: dict[str, float]
    """Arm -> the mean test accuracy of the last epoch, in per cent."""
    cost: dict[str, float]
    """Arm -> seconds of training, as times those of cross-entropy."""


@dataclass(frozen=True)
class Expected:
    """An arm with what the table says of it for a setting."""

    arm: str
    below: float
    """Points of accuracy that it is expected to end below the best arm."""
    spread: float
    """The standard deviation of that over the settings that count."""
    cost: float
    """Times the training time of cross-entropy."""

    @property
    def risk(self) -> float:
        """What arms are ordered by."""
        return self.below + CAUTION * self.spread + PRICE * math.log2(max(1.0, self.cost))


class MethodTable:
    """Settings with what arms reached in each of them.

    Args:
        rows: the settings.
    """

    def __init__(self, rows: Sequence[Row]):
        self.rows = list(rows)

    @classmethod
    def read(cls, path: Path = PATH) -> "MethodTable":
        """Read a table that `write` wrote; DataError if it is damaged."""
        found: dict[str, Row] = {}
        try:
            with open(path, newline="", encoding="utf-8") as stream:
                for line in csv.DictReader(stream):
                    setting = line["setting"]
                    row = found.setdefault(setting, Row(setting, line["kind"], Findings.read(line), {}, {}))
                    row.accuracy[line["arm"]] = float(line["accuracy"])
                    row.cost[line["arm"]] = float(line["cost"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged ({type(error).__name__}); install fastnoise again") from error
        return cls(list(found.values()))

    def write(self, path: Path) -> None:
        """Write a line for each setting and arm."""
        with open(path, "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["setting", "kind", *(field.name for field in fields(Findings)), "arm", "accuracy", "cost"])
            for row in self.rows:
                for arm, accuracy in row.accuracy.items():
                    numbers = (f"{accuracy:.2f}", f"{row.cost[arm]:.2f}")
                    writer.writerow([row.setting, row.kind, *row.found.row().values(), arm, *numbers])

    def arms(self, kind: str) -> list[str]:
        """The arms that have run on data of a kind."""
        found = {arm: None for row in self.rows if row.kind == kind for arm in row.accuracy}
        return list(found)

    def nearest(self, found: Findings, kind: str) -> tuple[str, float]:
        """The setting that is most alike, and its distance (in units of `place`)."""
        rows = [row for row in self.rows if row.kind == kind]
        distances = [float(np.linalg.norm(place(row.found) - place(found))) for row in rows]
        best = int(np.argmin(distances))
        return rows[best].setting, distances[best]

    def expected(self, found: Findings, kind: str, arms: Iterable[str] | None = None) -> list[Expected]:
        """The arms in the order in which the table recommends them.

        Each setting counts by a Gaussian of its distance. An arm is judged by the mean of the points that it was below
        the best arm of each setting, and by their spread: one that fails now and then is no good choice.

        Args:
            found: of the labels at hand.
            kind: images or features.
            arms: that can be had; None: all.
        """
        rows = [row for row in self.rows if row.kind == kind]
        here = place(found)
        squares = np.array([np.square(place(row.found) - here).sum() for row in rows])
        weights = np.exp(-(squares - squares.min()) / (2 * WIDTH**2))
        ranked = []
        for arm in self.arms(kind) if arms is None else arms:
            tried = np.array([arm in row.accuracy for row in rows])
            if not tried.any():
                continue
            below = np.array([max(row.accuracy.values()) - row.accuracy.get(arm, 0) for row in rows])[tried]
            share = weights[tried] / max(weights[tried].sum(), 1e-300)
            mean = float(share @ below)
            spread = math.sqrt(float(share @ np.square(below - mean)))
            cost = float(np.median([row.cost[arm] for row, has in zip(rows, tried, strict=True) if has]))
            ranked.append(Expected(arm, mean, spread, cost))
        return sorted(ranked, key=lambda each: each.risk)


@functools.cache
def shipped() -> MethodTable:
    """The table that comes with fastnoise."""
    return MethodTable.read()


def merged(settings: Mapping[str, Sequence[Row]]) -> MethodTable:
    """A row for each setting, with means over its seeds; of the findings too."""
    rows = []
    for setting, seeds in settings.items():
        means = {field.name: np.mean([getattr(row.found, field.name) for row in seeds]) for field in fields(Findings)}
        arms = [arm for arm in seeds[0].accuracy if all(arm in row.accuracy for row in seeds)]
        rows.append(
            Row(
                setting,
                seeds[0].kind,
                Findings.read(means),
                {arm: float(np.mean([row.accuracy[arm] for row in seeds])) for arm in arms},
                {arm: float(np.mean([row.cost[arm] for row in seeds])) for arm in arms},
            )
        )
    return MethodTable(rows)
