"""Image files as a user names them: single files, folders and lists. Imports no torch."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import DataError
from .images import extensions
from .sheets import read_sheet

LIST = "list:"
"""How the name of a list of files begins."""
LISTS = (".csv", ".tsv", ".txt")
"""Endings of files that are lists without saying so."""


def given_files(words: Sequence[str]) -> tuple[list[str], int]:
    """The image files that words name, and how many files of folders are no images and are left out.

    A word is an image file; a folder, whose images are taken with those of the folders in it, in the order of their
    names and without hidden ones; or a list, `list:FILE` or FILE.csv, FILE.tsv, FILE.txt: a column `path` or `file`,
    else a path in each line, relative to the list's folder.

    DataError for what does not exist, for a folder without images, and for lists as `read_sheet` says.
    """
    files: list[str] = []
    left_out = 0
    for word in words:
        if word.startswith(LIST) or (word.lower().endswith(LISTS) and not os.path.isdir(word)):
            files += _listed(word.removeprefix(LIST))
        elif os.path.isdir(word):
            below = list(_below(word))
            images = [file for file in below if os.path.splitext(file)[1].lower() in extensions()]
            if not images:
                raise DataError(f"{word} holds no images of a format that is read, nor do the folders in it")
            files += images
            left_out += len(below) - len(images)
        elif os.path.isfile(word):
            files.append(word)
        else:
            there = "is no regular file" if os.path.lexists(word) else "no such file or folder"
            raise DataError(f"{word}: {there}; give image files, folders or lists of them")
    if not files:
        raise DataError("no images are given; give image files, folders or lists of them")
    return files, left_out


def _below(folder: str) -> Iterator[str]:
    """The files in a folder and in those in it that are not hidden, in the order of their names."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: {error.strerror}; change its permissions or remove it") from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(place, name) for name in sorted(names) if not name.startswith("."))


def _listed(path: str) -> list[str]:
    """The files in a list, which all exist."""
    header = ("path", "file")
    sheet = read_sheet(path, headless=lambda fields: not any(field.strip().lower() in header for field in fields))
    column = sheet.find(*header)
    if column is None and len(sheet.rows[0]) > 1:
        raise DataError(f"{path}: no column 'path' or 'file'; name the columns in the first line")
    here = Path(path).parent
    files = [str(here / text.strip()) for text in sheet.column(0 if column is None else column)]
    for row, file in enumerate(files):
        if not os.path.isfile(file):
            raise sheet.error(row, f"{file}: no such file")
    return files
