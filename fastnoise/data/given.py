"""Image files as a user names them: single files, folders and lists. Imports no torch."""

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from .folder import images_in
from .names import LIST, TAR
from .shards import images_of
from .sheets import FILES, read_sheet
from .tar import find_members

LISTS = (".csv", ".tsv", ".txt")
"""Endings of files that are lists without saying so."""


def given_files(words: Sequence[str]) -> tuple[list[str], int]:
    """The image files that words name, and how many files of folders are no images and are left out.

    A word is an image file; a folder, whose images are taken with those of the folders in it, in the order of their
    paths, as `images_in` finds them; or a list, `list:FILE` or FILE.csv, FILE.tsv, FILE.txt: a column `path` or `file`
    (`sheets.FILES`), else a path in each line, relative to the list's folder, which may lead into a tar file; or tar
    shards, `tar:SHARDS` (`shards.shards_of`) or FILE.tar, whose images need no labels here.

    DataError for what does not exist, for a folder or shards without images, and for lists as `read_sheet` says.
    """
    files: list[str] = []
    left_out = 0
    for word in words:
        if word.startswith(LIST) or (word.lower().endswith(LISTS) and not os.path.isdir(word)):
            files += _listed(word.removeprefix(LIST))
        elif word.startswith(TAR) or (word.lower().endswith(".tar") and os.path.isfile(word)):
            members, others_inside = images_of(word if word.startswith(TAR) else TAR + word)
            files += members
            left_out += others_inside
        elif os.path.isdir(word):
            others: list[str] = []
            images = images_in(Path(word), "", others).names
            if not images:
                raise DataError(f"{word} holds no images of a format that is read, and nor do the folders in it")
            files += [os.path.join(word, name) for name in images]
            left_out += len(others)
        elif os.path.isfile(word):
            files.append(word)
        else:
            there = "is no regular file" if os.path.lexists(word) else "no such file or folder"
            raise DataError(f"{word}: {there}; give image files, folders or lists of them")
    if not files:
        raise DataError("no images are given; give image files, folders or lists of them")
    return files, left_out


def _listed(path: str) -> list[str]:
    """The files in a list, which all exist."""
    sheet = read_sheet(path, headless=lambda fields: not any(field.strip().lower() in FILES for field in fields))
    column = sheet.find(*FILES)
    if column is None and len(sheet.rows[0]) > 1:
        raise DataError(f"{path}: no column 'path' or 'file'; name the columns in the first line")
    here = Path(path).parent
    files = [str(here / text.strip()) for text in sheet.column(0 if column is None else column)]
    absent = [row for row, file in enumerate(files) if not os.path.isfile(file)]
    members = find_members([files[row] for row in absent])
    for place, row in enumerate(absent):
        if members.offsets[place] < 0:
            raise sheet.error(row, f"{files[row]}: no such file")
        files[row] = members[place]
    return files
