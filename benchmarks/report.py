"""One measured figure, the file that holds many of them, and the comparison of two files."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fastnoise.errors import DataError
from fastnoise.files import write_json

from . import record
from .timing import Spread

SCHEMA = "fastnoise-bench-1"


@dataclass(frozen=True)
class Figure:
    """A figure under a key that is its own, with the spread of its samples."""

    key: str
    """Part, workload and side, separated by slashes."""
    value: float
    """The median."""
    low: float
    """20th percentile of the samples."""
    high: float
    """80th percentile."""
    unit: str
    better: str
    """"higher" or "lower"."""
    samples: int
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, key: str, spread: Spread, unit: str, better: str, samples: int, **details: Any) -> "Figure":
        return cls(key, spread.median, spread.low, spread.high, unit, better, samples, details)

    def line(self) -> str:
        return f"{self.key:58} {short(self.value):>10} {self.unit:9} ({short(self.low)} to {short(self.high)})"


def short(value: float) -> str:
    """Three significant digits, thousands in full."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def write(path: Path, figures: Sequence[Figure], notes: Sequence[str] = ()) -> None:
    """Write figures with machine, versions, commit and date."""
    keys = [figure.key for figure in figures]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"keys measured twice: {', '.join(twice)}")
    rows = [asdict(figure) for figure in figures]
    write_json(path, {"schema": SCHEMA, **record.stamp(), "notes": list(notes), "rows": rows})


def read(path: Path) -> tuple[dict[str, Any], list[Figure]]:
    """The stamp and the figures of a file that `write` wrote; DataError in one line for any other."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give a file written by fastnoise bench --json") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); give a file written by fastnoise bench --json") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise DataError(f"{path} has the schema {schema!r}, not {SCHEMA!r}; measure again with fastnoise bench --json")
    try:
        figures = [Figure(**row) for row in content.pop("rows")]
        if not all(math.isfinite(figure.value + figure.low + figure.high) for figure in figures):
            raise TypeError("a figure is not a finite number")
    except (KeyError, TypeError) as error:
        names = ", ".join(item.name for item in fields(Figure))
        raise DataError(f"{path} is damaged ({error}); each row needs {names}") from None
    return content, figures


def compare(old: Sequence[Figure], new: Sequence[Figure]) -> list[str]:
    """A line per key: old, new and new / old; marked where either median lies outside the other's spread."""
    before, now = ({figure.key: figure for figure in figures} for figures in (old, new))
    lines = [f"{'key':58} {'old':>10} {'new':>10} {'new/old':>8}"]
    for key in [key for key in now if key in before]:
        first, second = before[key], now[key]
        ratio = second.value / first.value if first.value else math.nan
        apart = not first.low <= second.value <= first.high and not second.low <= first.value <= second.high
        gained = (second.value > first.value) == (second.better == "higher")
        mark = f"  {'better' if gained else 'WORSE'}, outside both spreads" if apart else ""
        lines.append(f"{key:58} {short(first.value):>10} {short(second.value):>10} {ratio:>8.3f}{mark}")
    for name, missing in (("old", before.keys() - now.keys()), ("new", now.keys() - before.keys())):
        if missing:
            lines.append(f"only in the {name} file: {', '.join(sorted(missing))}")
    return lines
