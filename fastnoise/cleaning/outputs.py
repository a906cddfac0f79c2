"""The files that a cleaning writes. Each appears whole or not at all."""

import csv
import os
import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.members import Member
from ..data.names import FOLDER, LIST, family
from ..errors import CheckpointError
from ..files import PARTIAL, csv_text, write_text
from .pool import Judged
from .verdict import Verdict

LABELS = "labels.csv"
SUSPECTS = "suspects.csv"
TRANSITION = "transition.csv"
CORRECTED_LIST = "corrected.csv"
CORRECTED_FOLDER = "corrected"

COLUMNS = ("file", "given", "suggested", "probability", "suspected", "split", "margin")


def write_outputs(folder: Path, dataset: str, judged: Judged, verdict: Verdict) -> Path:
    """Write labels.csv, suspects.csv, transition.csv and the corrected data set, in the form in which it came.

    labels.csv has a row for each image, in the order of the data set; suspects.csv has the rows of the suspected
    labels, the most probable first. Classes are written by name. The margin is `Verdict.margins`. corrected.csv holds
    the corrected labels; a data set of class folders also is corrected as a tree of links to its files, corrected/,
    which `--dataset folder:` takes.

    Returns:
        The corrected data set's path.
    """
    rows = list(_rows(judged, verdict))
    write_text(folder / LABELS, csv_text(COLUMNS, rows))
    suspected = np.flatnonzero(verdict.suspected)
    order = suspected[np.argsort(-verdict.probability[suspected], kind="stable")]
    write_text(folder / SUSPECTS, csv_text(COLUMNS, [rows[place] for place in order]))
    classes = judged.data.class_names
    tables = (verdict.transition, verdict.transition_low, verdict.transition_high)
    write_text(
        folder / TRANSITION,
        csv_text(
            ("true", "given", "share", "low", "high"),
            (
                (classes[true], classes[label], *(_number(table[true, label]) for table in tables))
                for true in range(len(classes))
                for label in range(len(classes))
            ),
        ),
    )
    return write_corrected(folder, dataset, judged, verdict.corrected(judged.given))


def write_corrected(folder: Path, dataset: str, judged: Judged, labels: NDArray[np.int64]) -> Path:
    """Write the corrected data set with the labels [N], as `write_outputs` says, and return its path.

    corrected.csv has the columns file (or index, of images without names), path if they are files, label, clean_label
    if some right classes are known (-1 of the others), and split if the data set has several parts. `--dataset list:`
    takes it for files and for members of tar files, and `--labels` with the data set that was judged. For these further
    lines say -1 of the images whose labels are unknown.
    """
    table, classes = judged.data.train, judged.data.class_names
    columns: dict[str, list[str]] = {"file" if table.files or table.names else "index": list(judged.names)}
    # What Parquet holds lies unpacked in a cache, into which no list should point.
    paths = [] if family(dataset) == "hf" else [_absolute(file) for file in table.files]
    if paths and all(map(_is_text, paths)):
        columns["path"] = paths
    columns["label"] = [classes[label] for label in labels.tolist()]
    if (judged.known >= 0).any():
        columns["clean_label"] = [classes[label] if label >= 0 else "-1" for label in judged.known.tolist()]
    if len(set(judged.splits.tolist())) > 1:
        columns["split"] = judged.splits.tolist()
    if "path" not in columns:
        for name, split in judged.left_out.items():
            for column, cells in columns.items():
                cells.append({"file": name, "index": name, "split": split}.get(column, "-1"))
    write_text(folder / CORRECTED_LIST, csv_text(columns, zip(*columns.values(), strict=True)))
    if not dataset.startswith(FOLDER):
        return folder / CORRECTED_LIST
    _link_tree(folder / CORRECTED_FOLDER, judged, labels.tolist())
    return folder / CORRECTED_FOLDER


def apply_decisions(folder: Path, dataset: str, judged: Judged) -> Path:
    """Write the corrected data set of a finished cleaning anew, with what is known since; returns its path.

    The labels are those that are known, else what labels.csv suggests for suspected ones, else the given ones.

    CheckpointError if labels.csv is damaged or of other images.
    """
    path = folder / LABELS
    numbers = {name: label for label, name in enumerate(judged.data.class_names)}
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            found = {
                row["file"]: numbers[row["suggested" if row["suspected"] == "1" else "given"]]
                for row in csv.DictReader(stream)
            }
        labels = np.array([found[name] for name in judged.names])
    except (OSError, ValueError, KeyError, csv.Error) as error:
        reason = "has no line for" if isinstance(error, KeyError) else f"is damaged ({type(error).__name__}):"
        raise CheckpointError(f"{path} {reason} {' '.join(str(error).split())}; clean again") from error
    return write_corrected(folder, dataset, judged, np.where(judged.known >= 0, judged.known, labels))


def _absolute(file: str) -> str:
    """A file's path from the root; a member's, whose name stays as the tar file has it."""
    return str(file) if isinstance(file, Member) else os.path.abspath(file)


def words_for(corrected: Path, dataset: str) -> str:
    """The options of `fastnoise train` that take a corrected data set, of `dataset`, which `write_corrected` wrote."""
    if corrected.name == CORRECTED_FOLDER:
        return f"--dataset {shlex.quote(FOLDER + str(corrected))}"
    with open(corrected, newline="", encoding="utf-8") as stream:
        listed = "path" in next(csv.reader(stream))
    if listed:
        return f"--dataset {shlex.quote(LIST + str(corrected))}"
    return f"--dataset {shlex.quote(dataset)} --noise none --labels {shlex.quote(str(corrected))}"


def _is_text(path: str) -> bool:
    """Whether a path is UTF-8."""
    try:
        return bool(path.encode())
    except UnicodeEncodeError:
        return False


def _rows(judged: Judged, verdict: Verdict) -> Iterable[tuple[str, ...]]:
    classes = judged.data.class_names
    columns = (judged.names, judged.given, verdict.suggested, verdict.probability, verdict.suspected, judged.splits)
    for name, given, suggested, probability, suspected, split, margin in zip(*columns, verdict.margins, strict=True):
        row = (name, classes[given], classes[suggested], _number(probability), str(int(suspected)), str(split))
        yield (*row, _number(margin))


def _number(value: float) -> str:
    """Six digits; empty where there is none."""
    return "" if np.isnan(value) else f"{value:.6g}"


def _link_tree(target: Path, judged: Judged, corrected: Sequence[int]) -> None:
    """Links to the files in folders of their corrected classes, below folders of their parts if there are several.

    The names of links are those of the files; if two of a class have one name, a number is added.
    CheckpointError if the system makes no links.
    """
    partial = target.with_name(target.name + PARTIAL)
    old = target.with_name(target.name + ".old")
    several = len(set(judged.splits.tolist())) > 1
    try:
        for path in (partial, old):
            if path.exists():
                shutil.rmtree(path)
        classes = judged.data.class_names
        for split in sorted(set(judged.splits.tolist())):
            for name in classes:
                (partial / split if several else partial).joinpath(name).mkdir(parents=True, exist_ok=True)
        taken: set[Path] = set()
        for file, label, split in zip(judged.data.train.files, corrected, judged.splits.tolist(), strict=True):
            source = Path(os.path.abspath(file))
            folder = (partial / split if several else partial) / classes[label]
            link = folder / source.name
            number = 2
            while link in taken:
                link = folder / f"{source.stem}-{number}{source.suffix}"
                number += 1
            taken.add(link)
            link.symlink_to(source)
        if target.exists():
            os.rename(target, old)
        os.rename(partial, target)
        if old.exists():
            shutil.rmtree(old)
    except OSError as error:
        raise CheckpointError(f"cannot write {target}: {error.strerror}; free space or check permissions") from error
