"""The output folder: lines of JSON that are whole as soon as they are there, and the merging of several folders.

records.jsonl     a line per figure, per step and per side that failed, appended by whoever knows it
tests-*.jsonl     a line per test that began and per test that ended, appended by tests/conftest.py
figures.json      what several folders hold, merged: benchmarks/results/gpu keeps this
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastnoise.errors import DataError
from fastnoise.files import write_text

from ..report import Figure

SCHEMA = "fastnoise-gpu-1"
LINES, MERGED = "records.jsonl", "figures.json"
STAMP = ("gpu", "machine", "torch", "triton", "python", "commit", "date")
"""What every figure carries beside its value."""

Line = dict[str, Any]


def append(path: Path, line: Line) -> None:
    """Add a line in one write, so that a process killed at any moment leaves whole lines, and at most one part of one.

    A part that an earlier process left is ended first.
    """
    text = (json.dumps(line) + "\n").encode()
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            text = b"\n" + text
        os.write(handle, text)
    finally:
        os.close(handle)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def figure_line(figure: Figure, stamp: Line, **where: Any) -> Line:
    """A figure with its stamp and where in the programmes it comes from."""
    return {"kind": "figure", **asdict(figure), **where, **stamp, "at": now()}


def lines_of(path: Path) -> list[Line]:
    """The whole lines of a file; parts of lines, which a killed process leaves, are passed over."""
    found = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            found.append(line)
    return found


@dataclass
class Found:
    """What folders hold. Of several figures of one key and card the latest counts, and likewise of steps and tests."""

    figures: dict[tuple[str, str], Line] = field(default_factory=dict)
    """(card, key) -> line."""
    steps: dict[tuple[str, str, int, str], Line] = field(default_factory=dict)
    """(card, programme, half, step) -> how it ended."""
    failures: dict[tuple[str, str], Line] = field(default_factory=dict)
    """(card, side) -> why it failed."""
    tests: dict[tuple[str, str], Line] = field(default_factory=dict)
    """(card, test) -> its outcome."""

    def cards(self) -> list[str]:
        """Cards in the order of their first line; "none" stands for a CPU."""
        tables: tuple[Iterable[tuple[Any, ...]], ...] = (self.figures, self.steps, self.failures, self.tests)
        return list(dict.fromkeys(key[0] for table in tables for key in table))

    def of(self, card: str) -> dict[str, Figure]:
        """A card's figures by key."""
        names = [item.name for item in fields(Figure)]
        return {key: Figure(**{name: line[name] for name in names}) for (owner, key), line in self.figures.items()
                if owner == card}  # fmt: skip

    def add(self, line: Line) -> None:
        kind, card = line.get("kind"), line.get("gpu", "unknown")
        if kind == "figure":
            _latest(self.figures, (card, line["key"]), line)
            self.failures.pop((card, line["key"]), None)
        elif kind == "step":
            _latest(self.steps, (card, line["programme"], line["half"], line["step"]), line)
        elif kind == "failure":
            _latest(self.failures, (card, line["side"]), line)
        elif kind == "test":
            _latest(self.tests, (card, line["test"]), line)


def _latest(table: dict[Any, Line], key: Any, line: Line) -> None:
    if key not in table or line["at"] >= table[key]["at"]:
        table[key] = line


def read(folder: Path, found: Found) -> None:
    """Add what a folder holds to `found`; DataError where it holds no records.

    A step or test has no stamp of its own: it takes that of the folder's latest `machine` line, which the worker
    writes as soon as torch is there.
    """
    paths = [folder / MERGED] if (folder / MERGED).exists() else []
    journals = sorted(folder.glob("*.jsonl"), key=lambda path: path.name != LINES)
    if not paths and not journals:
        raise DataError(f"{folder} holds neither {LINES} nor {MERGED}; give the --out of a programme")
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            lines = content["lines"] if content["schema"] == SCHEMA else None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}); take it from the repository again") from None
        if lines is None:
            raise DataError(f"{path} has the schema {content['schema']!r}, not {SCHEMA!r}")
        for line in lines:
            found.add(line)
    stamp: Line = {}
    waiting: list[Line] = []
    for path in journals:
        for line in lines_of(path):
            try:
                if line.get("kind") == "machine":
                    stamp = {name: line[name] for name in STAMP}
                    for earlier in waiting:
                        found.add({**stamp, **earlier})
                    waiting.clear()
                elif line.get("kind") in ("step", "failure", "test") and not stamp:
                    waiting.append(line)
                else:
                    found.add({**stamp, **line})
            except (KeyError, TypeError) as error:
                raise DataError(f"{path} has a line that lacks {error}; it was not written by this command") from None
    for line in waiting:  # the worker never came up
        found.add({"gpu": "unknown", **line})


def write(folder: Path, found: Found) -> None:
    """Write `figures.json`, from which `read` restores `found`: one line for each of its lines."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = (found.figures, found.steps, found.failures, found.tests)
    lines = ",".join(f"\n{json.dumps(line)}" for table in tables for line in table.values())
    write_text(folder / MERGED, f'{{"schema": "{SCHEMA}", "lines": [{lines}\n]}}\n')
