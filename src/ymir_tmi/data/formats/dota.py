"""DOTA's text format for rotated boxes (https://captain-whu.github.io/DOTA/dataset.html): one object a line, in pixels.

imagesource:GoogleEarth                                such lines may stand at the top
gsd:0.146343
x1 y1 x2 y2 x3 y3 x4 y4 class difficult                four corners in any order; the last number may be left out
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ymir_tmi.data.formats.reading import Reading, Rejections, is_coordinate, make_index, read_lines
from ymir_tmi.data.formats.writing import Sizes, write_label_folder
from ymir_tmi.data.formats.yolo import find_labels
from ymir_tmi.data.index import DIFFICULT, DatasetIndex
from ymir_tmi.data.rotated import rectangles, rotated_columns
from ymir_tmi.errors import DataError
from ymir_tmi.geometry.outlines import outlines

LABEL_FOLDERS = ("labelTxt", "annfiles")
"""Names of the folder beside `images`: that of DOTA itself, and that of pictures cut up by mmrotate."""

_HEADERS = ("imagesource:", "gsd:")


def find_dota_labels(pictures: Sequence[str]) -> list[str | None]:
    """Return the label file of each picture, or None where there is none."""
    return find_labels(pictures, LABEL_FOLDERS)


def read_dota(pictures: Sequence[str], labels: Sequence[str | None]) -> Reading:
    """Read label files.

    Pictures without one have no objects. The classes are the names of the objects, sorted. The box of an object is the
    smallest rectangle around its corners. What is `difficult` to see (1) becomes `DIFFICULT`; 2, which an object has
    that was cut by the border of a patch, and other numbers mean nothing.

    Rejected are lines that are not eight finite numbers, a class and, maybe, a whole number.

    Args:
        pictures: N picture files.
        labels: N label files, or None.
    """
    objects = _Objects()
    counts = [objects.read(label) if label else 0 for label in labels]
    names = sorted(set(objects.names))
    numbers = {name: label for label, name in enumerate(names)}
    index = make_index(
        names,
        pictures,
        counts,
        [numbers[name] for name in objects.names],
        rotated_columns(rectangles(np.array(objects.corners))),
        flags=objects.flags,
    )
    return Reading(index, False, objects.rejections)


def write_dota(splits: Mapping[str, DatasetIndex], folder: Path, *, copy: bool = False) -> None:
    """Write a DOTA folder: `images/SPLIT`, `labelTxt/SPLIT`, and `data.yaml` with the splits and the classes.

    Corners are rounded to 1/10000 pixel. Regions with many objects (`CROWD`) become difficult objects.

    Args:
        splits: an index with rotated boxes for each split, all with the same classes.
        folder: where to; it must not exist, or be empty.
        copy: whether pictures are copied, or linked to.

    Raises:
        DataError: the folder exists, a picture occurs twice in a split, or is of another size than the annotation
            states, or a class has a name of several words.
        ImageError: the size of a picture cannot be read.
    """
    names = next(iter(splits.values())).class_names
    for name in names:
        if len(name.split()) != 1:
            fix = f"Rename it: --classes '{name}={'-'.join(name.split()) or 'name'}', and name the other classes too."
            raise DataError(f"the class '{name}' is not one word; in DOTA blanks separate what a line holds", fix=fix)
    write_label_folder(splits, folder, "labelTxt", _lines, copy=copy)


def _lines(index: DatasetIndex, rows: slice, _: Sizes) -> list[str]:
    assert index.rotated is not None
    corners = outlines(index.rotated[rows]).reshape(-1, 8).round(4).tolist()
    return [
        " ".join([*(f"{number:.10g}" for number in numbers), index.class_names[label], str(int(flags != 0))])
        for numbers, label, flags in zip(corners, index.labels[rows], index.flags[rows], strict=True)
    ]


class _Objects:
    """The objects of all label files."""

    def __init__(self) -> None:
        self.rejections = Rejections()
        self.names: list[str] = []
        self.corners = array("d")  # eight of each
        self.flags = array("B")

    def read(self, path: str) -> int:
        """Add the objects of one file; return how many."""
        before = len(self.names)
        read_lines(path, self.rejections, self._add)
        return len(self.names) - before

    def _add(self, line: str) -> None:
        """Add the object of a line that is no header, or raise ValueError with what is wrong."""
        if line.lower().startswith(_HEADERS):
            return
        words = line.split()
        if len(words) not in (9, 10):
            raise ValueError("a line is the x and y of four corners, a class of one word, and 0 or 1 for difficult")
        try:
            corners = [float(word) for word in words[:8]]
        except ValueError:
            raise ValueError("the first eight words are not all numbers") from None
        if not all(map(is_coordinate, corners)):
            raise ValueError("a corner is not finite, or beyond any picture")
        difficult = words[9] if len(words) == 10 else "0"
        if not difficult.isdecimal():
            raise ValueError("what follows the class is not 0 or 1")
        self.names.append(words[8])
        self.corners.extend(corners)
        self.flags.append(int(DIFFICULT) if int(difficult) == 1 else 0)
