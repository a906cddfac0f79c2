"""The suspected labels of a run with their pictures, as far as its images can be found."""

import csv
import os
from pathlib import Path

import numpy as np

from .. import own
from ..data import load_dataset
from ..data.facts import FACTS
from ..data.names import DATASETS, FOLDER, LIST, WRITTEN, family
from ..errors import FastnoiseError
from .gallery import Picture, Suspect, gallery, in_parallel, picture_of_file, pictures_of
from .html import Html, element, join, plain
from .stored import StoredRun

TITLE = "Suspected labels"

MOST = 120
"""Suspects on the page of a run, the most suspected ones."""


def suspects_of(run: StoredRun) -> Html | None:
    """The pictures of the training samples whose labels the method suspects, the most suspected ones first; or a line
    that says why there are none. None for a run without estimates.

    Images are read from where the run's configuration says that they lie. No code that it names is run, nothing is
    downloaded, and of a class folder nothing beside it is read.
    """
    found = run.corrected
    if not found or not found["suspected"].any():
        return None
    suspected = np.flatnonzero(found["suspected"])
    chosen = suspected[np.argsort(found["confidence"][suspected], kind="stable")][:MOST]
    names = _names(run)
    positions = found["position"][chosen].tolist()
    files = [names.get(place, "") for place in positions]
    pictures = _pictures(run, positions, files)
    if isinstance(pictures, str):
        return element("p", f"The pictures of the {len(suspected)} suspected labels are not shown: {pictures}")
    classes = run.whole_names
    if len(classes) != run.num_classes:
        classes = tuple(map(str, range(run.num_classes)))
    shown = [
        Suspect(
            file or f"position {place}",
            classes[given],
            classes[corrected],
            1 - float(confidence),
            picture,
        )
        for file, place, given, corrected, confidence, picture in zip(
            files,
            positions,
            *(found[name][chosen].tolist() for name in ("given", "corrected", "confidence")),
            pictures,
            strict=True,
        )
    ]
    more = f" The page shows the {len(shown)} most suspected ones." if len(shown) < len(suspected) else ""
    words = "label is suspected" if len(suspected) == 1 else "labels are suspected"
    line = f"{len(suspected)} {words}, by the method's confidence in the given class; it is given as \u201cwrong\u201d."
    return join([element("p", line + more), gallery(shown)])


def _names(run: StoredRun) -> dict[int, str]:
    """The names of samples by their positions, as corrected.csv has them; what cannot be read has none."""
    try:
        with open(run.path / "corrected.csv", newline="", encoding="utf-8", errors="replace") as stream:
            rows = [(row.get("position"), row.get("name")) for row in csv.DictReader(stream)]
        return {int(place): name for place, name in rows if place and name}
    except (OSError, ValueError, csv.Error):
        return {}


def _pictures(run: StoredRun, positions: list[int], files: list[str]) -> list[Picture] | str:
    """The pictures, or why there are none."""
    name = str(run.config.get("dataset", ""))
    if name.startswith((FOLDER, LIST)) and not own.is_own(name):
        return _of_files(name, files, run.config.get("exif_orientation") is not False)
    if family(name) not in DATASETS or (family(name) in WRITTEN and family(name) not in FACTS):
        return f"the data set {plain(own.short(name))} is none whose images fastnoise finds by itself."
    try:
        table = load_dataset(name, Path(str(run.config.get("data_root", "data"))), download=False).train
    except FastnoiseError as error:
        return f"{plain(' '.join(str(error).split()))}."
    if max(positions) >= len(table):
        return f"the data set {plain(name)} has changed since the run was trained."
    return pictures_of(table, positions)


def _of_files(name: str, files: list[str], exif: bool) -> list[Picture] | str:
    """The pictures of files that are named relative to a class folder, or to the folder of a list."""
    path = Path(name.partition(":")[2])
    root = path if name.startswith(FOLDER) else path.parent
    paths = [os.path.join(root, file) if file else "" for file in files]  # a list may name files from the root on
    if name.startswith(FOLDER):
        paths = [path if _within(path, root) else "" for path in paths]
    if not any(map(os.path.isfile, paths)):
        return f"no image is found in {plain(root)}. If the data has moved, say where: dataset in config.toml."
    return in_parallel(lambda path: picture_of_file(path, exif) if path else Picture(""), paths)


def _within(path: str, root: Path) -> bool:
    return Path(os.path.normpath(path)).is_relative_to(os.path.normpath(root))
