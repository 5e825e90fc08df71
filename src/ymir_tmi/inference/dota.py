"""From recorded rows to the files that DOTA's server takes for Task 1, oriented boxes.

There is one file a class, `Task1_<class>.txt`, with a line a detection: name of the picture without its suffix, score,
and x and y of the four corners in turn (https://captain-whu.github.io/DOTA/tasks.html).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePath

import numpy as np

from ymir_tmi.errors import DataError
from ymir_tmi.files.atomic import atomic_files
from ymir_tmi.geometry.outlines import outlines
from ymir_tmi.pool.consumer import Row


def picture_names(names: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """Return what DOTA's files call each picture.

    Raises:
        DataError: two pictures would have the same name, or a class has a name that cannot be part of a file's.
    """
    paths: dict[str, str] = {}
    for name in names:
        stem = PurePath(name).stem
        if stem in paths:
            raise DataError(
                f"'{paths[stem]}' and '{name}' are the same picture in DOTA's files, which hold no folders",
                fix="Rename one of them, or leave out the format dota.",
            )
        paths[stem] = name
    for name in class_names:
        if "/" in name or "\\" in name:
            raise DataError(
                f"'Task1_{name}.txt' cannot be the name of a file", fix="Rename the class by --classes NAME=NEW."
            )
    return list(paths)


def write_dota(folder: Path, pictures: Sequence[str], class_names: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a file for each class, empty where nothing was found; upright boxes are written by their corners too.

    Args:
        folder: the folder of the files; it may exist.
        pictures: what `picture_names` returns.
        class_names: the names of the rows' labels.
        rows: those of `DetectionRecorder`, in the order of the pictures.
    """
    with atomic_files(folder) as temporary, ExitStack() as open_files:
        files = [
            open_files.enter_context((temporary / f"Task1_{name}.txt").open("w", encoding="utf-8"))
            for name in class_names
        ]
        for picture, row in zip(pictures, rows, strict=True):
            if "error" not in row:
                for corners, score, label in zip(_corners(row), row["scores"], row["labels"], strict=True):
                    numbers = " ".join(f"{number:.9g}" for number in (score, *corners))
                    files[label].write(f"{picture} {numbers}\n")


def _corners(row: Row) -> list[list[float]]:
    """Return x and y of the four corners of each box."""
    if not row["boxes"]:
        return []
    corners: list[list[float]] = outlines(np.array(row["boxes"])).reshape(-1, 8).tolist()
    return corners
