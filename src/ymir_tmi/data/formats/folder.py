"""Pictures without annotations: folders, globs, single files, and lists of paths or classes in a text file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ymir_tmi.data.formats.reading import Reading, make_index, read_text
from ymir_tmi.data.pictures import PictureFinder, is_picture
from ymir_tmi.errors import DataError


def read_pictures(paths: Sequence[str]) -> Reading:
    """Return an index of pictures that have no annotations and no classes."""
    nothing = {"boxes": np.zeros((0, 4), np.float32), "areas": np.zeros(0, np.float32)}
    return Reading(make_index((), paths, np.zeros(len(paths)), (), nothing), annotated=False)


def read_list(path: Path, finder: PictureFinder) -> list[str]:
    """Return the pictures that a text file names, one a line, also without their suffix; blank lines do not count.

    Raises:
        DataError: the file cannot be read, is no text, or names no picture.
    """
    lines = read_text(path, "this list of pictures").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError("this list names no pictures", where=path)
    return [finder.find(name) if is_picture(name) else finder.find_stem(name, name) for name in names]


def read_classes(path: Path) -> list[str]:
    """Return the classes that a text file names, one a line; blank lines do not count.

    Raises:
        DataError: the file cannot be read, is no text, names no class, or names one twice.
    """
    lines = read_text(path, "this list of classes").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError("this list names no classes", where=path, fix="Write one class a line, or remove the file.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"this list names the class '{twice}' twice", where=path)
    return names
