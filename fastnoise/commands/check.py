"""fastnoise check: decode every image file of a data set once, and say what is wrong with them."""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from numpy.typing import NDArray

from ..data import names as data_names
from ..errors import ConfigError, DataError
from ..helptext import REQUIRED
from ..texts import counted, printable

if TYPE_CHECKING:
    from ..data.folder import FileSet


@dataclass(frozen=True)
class CheckCommand:
    """Decode every image file of a data set once, and list those that cannot be read and those that are there twice.

    What is learnt is kept in a cache beside the data, so that training and later checks read only files that are new or
    have changed. It exits with 1 if a file cannot be read. Examples:
      fastnoise check folder:photos
      fastnoise check list:labels.csv --out findings.csv
    """

    dataset: Annotated[str | None, REQUIRED, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = None
    """folder:PATH or list:FILE.csv."""
    out: str | None = None
    """CSV file to which all findings are written: kind, group, name, label, part and reason, a line for each image."""
    show: int = 20
    """How many groups of each kind of duplicates are printed."""
    loader_threads: int = 0
    """CPU threads that decode image files. 0: one per core."""


@dataclass(frozen=True)
class _Finding:
    """Images that share something: a reason why they cannot be read, their content, or their looks."""

    kind: str
    positions: NDArray[np.int64]
    reason: str = ""


def run(command: CheckCommand) -> int:
    """Print what was found; 1 if a file cannot be read, else 0. FastnoiseError in one line."""
    from ..data.datasets import find_files
    from ..data.scan import scan

    name = command.dataset
    if name is None:
        raise ConfigError("give a data set of files, as in fastnoise check folder:photos")
    if data_names.family(name) not in data_names.CHECKED or name in (data_names.FOLDER, data_names.LIST):
        hint = (
            f"; write folder:{name}" if Path(name).is_dir() else f"; write list:{name}" if Path(name).is_file() else ""
        )
        raise ConfigError(f"fastnoise check is for image files, folder:PATH or list:FILE.csv, not {name!r}{hint}")
    if command.show < 0 or command.loader_threads < 0:
        raise ConfigError("--show and --loader-threads must be 0 or more")
    out = None if command.out is None else Path(command.out)
    if out is not None and not out.absolute().parent.is_dir():
        raise DataError(f"--out {out}: no such folder; create it")
    began = time.monotonic()
    files = find_files(name)
    known = scan(files.found, files.cache, command.loader_threads or None)
    seconds = time.monotonic() - began
    count = len(files.labels)
    print(
        f"{printable(files.name)}: {counted(count, 'image')}, {known.read} read now in {seconds:.1f} s, "
        f"{count - known.read} known before"
    )
    for line in _contents(files):
        print(line)
    for note in (*files.notes, *known.notes(files.found.names)):
        print(note)
    good = np.ones(count, bool)
    good[list(known.errors)] = False
    sizes = Counter(zip(known.width[good].tolist(), known.height[good].tolist(), strict=True))
    if sizes:
        common = ", ".join(f"{width}x{height} {number}" for (width, height), number in sizes.most_common(5))
        print(f"sizes: {common}{f' and {len(sizes) - 5} more' if len(sizes) > 5 else ''}")
    findings = _findings(files, known.digest, known.likeness, np.flatnonzero(good), known.errors)
    _print(files, findings, command.show)
    if known.cache is not None:
        print(f"cache: {printable(str(known.cache))}")
    if out is not None:
        _write(out, files, findings)
        print(f"written: {out}")
    return 1 if known.errors else 0


def _contents(files: "FileSet") -> list[str]:
    """How many images each part and each class has."""
    parts = Counter(files.parts)
    lines = ["parts: " + ", ".join(f"{part} {count}" for part, count in parts.items())]
    counts = np.bincount(files.labels, minlength=len(files.class_names))
    pairs = [f"{printable(name)} {count}" for name, count in zip(files.class_names, counts.tolist(), strict=True)]
    more = f" and {len(pairs) - 20} more" if len(pairs) > 20 else ""
    return [*lines, f"classes: {', '.join(pairs[:20])}{more}"]


def _findings(
    files: "FileSet",
    digest: NDArray[np.uint8],
    likeness: NDArray[np.uint8],
    good: NDArray[np.int64],
    errors: dict[int, str],
) -> list[_Finding]:
    from ..data.duplicates import alike, same_content

    found = [_Finding("unreadable", np.array([place]), errors[place]) for place in sorted(errors)]
    parts = np.array(files.parts)
    for kind, groups in (
        ("duplicates", same_content(digest, good)),
        ("near-duplicates", alike(digest, likeness, good)),
    ):
        for group in groups:
            if len(set(files.labels[group].tolist())) > 1:
                found.append(_Finding(f"{kind} with different labels", group))
            elif len(set(parts[group].tolist())) > 1:
                found.append(_Finding(f"{kind} in different parts", group))
            else:
                found.append(_Finding(kind, group))
    return found


_KINDS = {
    "duplicates with different labels": "exact duplicates with different labels",
    "duplicates in different parts": "exact duplicates in different parts, as training and test",
    "duplicates": "exact duplicates with one label",
    "near-duplicates with different labels": "near-duplicates with different labels",
    "near-duplicates in different parts": "near-duplicates in different parts, as training and test",
    "near-duplicates": "near-duplicates with one label",
}


def _print(files: "FileSet", findings: list[_Finding], show: int) -> None:
    bad = [finding for finding in findings if finding.kind == "unreadable"]
    print(f"unreadable: {len(bad)}")
    for finding in bad:
        print(f"  {printable(files.names(finding.positions)[0])}: {printable(finding.reason)}")
    for kind, words in _KINDS.items():
        groups = [finding.positions for finding in findings if finding.kind == kind]
        if not groups and kind != "duplicates with different labels":
            continue
        print(f"{words}: {counted(len(groups), 'group')}")
        for group in groups[:show]:
            names = files.names(group)
            labels = [files.class_names[label] for label in files.labels[group].tolist()]
            members = [f"{printable(name)} ({printable(label)})" for name, label in zip(names, labels, strict=True)]
            print(f"  {', '.join(members[:10])}{f' and {len(members) - 10} more' if len(members) > 10 else ''}")
        if len(groups) > show:
            print(f"  and {len(groups) - show} more; --out FILE.csv lists all")


def _write(out: Path, files: "FileSet", findings: list[_Finding]) -> None:
    from ..files import csv_text, write_atomically

    rows = (
        (finding.kind, number, name, files.class_names[files.labels[place]], files.parts[place], finding.reason)
        for number, finding in enumerate(findings, 1)
        for place, name in zip(finding.positions.tolist(), files.names(finding.positions), strict=True)
    )
    content = csv_text(("kind", "group", "name", "label", "part", "reason"), rows).encode()
    write_atomically(out, lambda stream: stream.write(content), DataError)
