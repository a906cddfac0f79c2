"""What every benchmark writes beside its figures, and how rows of figures are kept."""

import csv
import datetime
import io
from collections.abc import Sequence
from pathlib import Path

from fastnoise.errors import DataError
from fastnoise.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]

RESULTS = Path(__file__).parent / "results"

Row = dict[str, str]


def stamp() -> Row:
    """Machine, GPU, versions, commit and date of the figures measured now."""
    from fastnoise.engine import describe_environment  # imports torch, which readers of records do without
    from fastnoise.engine.environment import machine

    environment = describe_environment()
    return {
        "machine": machine(environment),
        "gpu": environment["gpus"][0]["name"] if environment["gpus"] else "none",
        "torch": environment["packages"]["torch"],
        "triton": environment["packages"]["triton"] or "none",
        "commit": environment["commit"] or "",
        "date": datetime.date.today().isoformat(),
    }


def read(path: Path) -> list[Row]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def append(path: Path, rows: Sequence[Row], key: Sequence[str] = ()) -> None:
    """Append rows; one that agrees with an earlier row in every column of `key` takes its place.

    Raises DataError where the file's columns are others.
    """
    columns = list(rows[0])
    kept = read(path) if path.exists() else []
    if kept and list(kept[0]) != columns:
        raise DataError(f"{path} has the columns {', '.join(kept[0])}, the new rows {', '.join(columns)}; move it away")
    if key:
        new = {tuple(row[name] for name in key) for row in rows}
        kept = [row for row in kept if tuple(row[name] for name in key) not in new]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*kept, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda stream: stream.write(text.getvalue().encode()), DataError)
