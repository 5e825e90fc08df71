"""YOLO's text format: beside every picture a file with one object a line, in fractions of the picture's size.

class centre_x centre_y width height         a box
class x1 y1 x2 y2 x3 y3 ...                  a polygon: its box is used, and the polygon is kept
class x1 y1 x2 y2 x3 y3 x4 y4                a rotated box, where all polygons of the data set have four corners
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.formats.reading import Reading, Rejections, make_index, read_lines
from ymir_tmi.data.formats.writing import Sizes, write_label_folder
from ymir_tmi.data.index import CROWD, DatasetIndex, Strings
from ymir_tmi.data.pictures import FolderListings, picture_sizes
from ymir_tmi.data.rotated import rectangles, rotated_columns, upright_rectangles
from ymir_tmi.data.segments import read_segments, segment_texts
from ymir_tmi.geometry.outlines import outlines
from ymir_tmi.geometry.ragged import offsets

# Boxes reach out of the picture, rotated ones by up to half their length; what lies beyond these is no fraction at all.
_LOWEST, _HIGHEST = -1.0, 2.0
_MOST_CLASSES = 1 << 16  # where the classes have no names

_Doubles = npt.NDArray[np.float64]


def find_labels(pictures: Sequence[str], beside: Sequence[str] = ("labels",)) -> list[str | None]:
    """Return the label file of each picture, or None where there is none.

    It lies in a folder called as one of `beside`, which stands beside the folder `images` in the picture's path, or
    else beside the picture.
    """
    listings = FolderListings()
    return [_find_label(picture, beside, listings) for picture in pictures]


def _find_label(picture: str, beside: Sequence[str], listings: FolderListings) -> str | None:
    folder, _, name = picture.rpartition("/")
    parts = folder.split("/")
    name = f"{os.path.splitext(name)[0]}.txt"  # noqa: PTH122, once for each of a million pictures
    for place in range(len(parts) - 1, -1, -1):
        if parts[place] == "images":
            for other in beside:
                labels = "/".join([*parts[:place], other, *parts[place + 1 :]])
                if name in listings.names(labels):
                    return f"{labels}/{name}"
            break
    return (f"{folder}/{name}" if folder else name) if name in listings.names(folder) else None


def read_yolo(pictures: Sequence[str], labels: Sequence[str | None], class_names: Sequence[str] | None) -> Reading:
    """Read label files.

    Pictures without one have no objects. The sizes of the pictures that have objects are read from their headers.
    Without `class_names` the classes are those of a `classes.txt` beside the label files or one folder up, or else are
    called by their numbers. Where every polygon has four corners, they are rotated boxes, and so are the boxes.

    Args:
        pictures: N picture files.
        labels: N label files, or None.
        class_names: K names.

    Rejected are lines that are not a class and 4, or 6, 8, 10, ... numbers; whose class is not a whole number from 0 to
    K - 1; or whose numbers are no fractions. So are all objects of a picture whose size cannot be read.
    """
    names = list(class_names) if class_names is not None else _listed_classes(labels)
    rows = _Rows(_MOST_CLASSES if names is None else len(names))
    counts = np.array([rows.read(label) if label else 0 for label in labels], np.int64)
    sizes = np.zeros((len(pictures), 2), np.int32)
    images = [image for image, count in enumerate(counts.tolist()) if count]
    sizes[images], errors = picture_sizes([pictures[image] for image in images])
    index = _index(pictures, sizes, counts, rows, names)
    for place, error in errors.items():
        image = images[place]
        what = f"{error.what}, so that the size of its {counts[image]} objects is unknown"
        rows.rejections.add(pictures[image], None, what)
    if errors:
        index = index.keep_annotations(sizes[index.image_of_box(), 0] > 0)
    return Reading(index, names is not None, rows.rejections)


def write_yolo(splits: Mapping[str, DatasetIndex], folder: Path, *, copy: bool = False) -> None:
    """Write a YOLO folder: `images/SPLIT`, `labels/SPLIT`, and `data.yaml` with the splits and the classes.

    Coordinates have nine digits. Rotated boxes are written by their corners. Regions with many objects (`CROWD`) are
    left out, since the format cannot mark them; so are segmentations, which `write_yolo_seg` writes in place of boxes.

    Args:
        splits: an index for each split, all with the same classes.
        folder: where to; it must not exist, or be empty.
        copy: whether pictures are copied, or linked to.

    Raises:
        DataError: the folder exists, a picture occurs twice in a split, or is of another size than the annotation
            states, or is turned by EXIF although its boxes are not.
        ImageError: the size of a picture cannot be read.
    """
    write_label_folder(splits, folder, "labels", _lines, copy=copy)


def write_yolo_seg(splits: Mapping[str, DatasetIndex], folder: Path, *, copy: bool = False) -> None:
    """Write a YOLO folder as `write_yolo` does, with a polygon for each object in place of its box.

    A line holds one polygon. Several parts of an object, and the holes in it, are joined to one where they are nearest
    to one another, by lines that are gone over there and back.

    Args:
        splits: an index for each split, all with the same classes, in which every object has a mask.
        folder: where to; it must not exist, or be empty.
        copy: whether pictures are copied, or linked to.

    Raises:
        DataError: as `write_yolo`, or a mask is wrong.
        ImageError: the size of a picture cannot be read.
    """
    write_label_folder(splits, folder, "labels", _polygon_lines, copy=copy)


def _polygon_lines(index: DatasetIndex, rows: slice, size: Sizes) -> list[str]:
    polygons = read_segments(segment_texts(index, rows), np.tile(size, (rows.stop - rows.start, 1)))
    lines = []
    for row in np.flatnonzero((index.flags[rows] & CROWD) == 0).tolist():
        line = polygons.joined(row).astype(np.float64) / size
        numbers = " ".join(f"{number:.9g}" for number in line.ravel())
        lines.append(f"{index.labels[rows][row]} {numbers}")
    return lines


def _lines(index: DatasetIndex, rows: slice, size: Sizes) -> list[str]:
    ordinary = (index.flags[rows] & CROWD) == 0
    fractions = _fractions(index, rows, size)[ordinary]
    return [
        " ".join([str(label), *(f"{number:.9g}" for number in numbers)])
        for label, numbers in zip(index.labels[rows][ordinary], fractions, strict=True)
    ]


def _fractions(index: DatasetIndex, rows: slice, size: npt.NDArray[np.int32]) -> _Doubles:
    """Return (n, 4) centre, width and height of some boxes, or (n, 8) the corners of rotated ones."""
    if index.rotated is not None:
        return (outlines(index.rotated[rows]) / size).reshape(-1, 8)
    corners = index.boxes[rows].astype(np.float64) / np.tile(size, 2)
    return np.hstack([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]])


def _listed_classes(labels: Sequence[str | None]) -> list[str] | None:
    first = next((Path(label) for label in labels if label), None)
    if first is not None:
        for folder in (first.parent, first.parent.parent):
            file = folder / "classes.txt"
            if file.is_file():
                return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    return None


class _Rows:
    """The objects of all label files, as numbers in plain arrays."""

    def __init__(self, num_classes: int) -> None:
        self.rejections = Rejections()
        self.labels = array("q")
        self.boxes = array("d")  # x1, y1, x2, y2 as fractions
        self.points = array("d")  # of all polygons, x and y in turns
        self.lengths = array("q")  # how many of these belong to each object, 0 for a box
        self._num_classes = num_classes

    def read(self, path: str) -> int:
        """Add the objects of one file; return how many."""
        before = len(self.labels)
        read_lines(path, self.rejections, self._add)
        return len(self.labels) - before

    def _add(self, line: str) -> None:
        """Add an object, or raise ValueError with what is wrong."""
        try:
            label, *numbers = map(float, line.split())
        except ValueError:
            raise ValueError("these are not all numbers") from None
        if not (0 <= label < self._num_classes and label.is_integer()):
            raise ValueError(f"the class is not one of 0 to {self._num_classes - 1}")
        if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
            raise ValueError("a line is a class with 4 numbers, or with the corners of a polygon")
        if not all(_LOWEST <= number <= _HIGHEST for number in numbers):
            raise ValueError("these are not fractions of the picture's size")
        if len(numbers) == 4:
            x, y, width, height = numbers
            if width < 0 or height < 0:
                raise ValueError("a width or height is negative")
            self.boxes.extend((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
            self.lengths.append(0)
        else:
            xs, ys = numbers[::2], numbers[1::2]
            self.boxes.extend((min(xs), min(ys), max(xs), max(ys)))
            self.points.extend(numbers)
            self.lengths.append(len(numbers))
        self.labels.append(int(label))


def _index(
    pictures: Sequence[str],
    sizes: npt.NDArray[np.int32],
    counts: npt.NDArray[np.int64],
    rows: _Rows,
    names: Sequence[str] | None,
) -> DatasetIndex:
    scales = np.repeat(sizes, counts, axis=0).astype(np.float64)
    boxes = np.array(rows.boxes).reshape(-1, 4) * np.tile(scales, 2)
    lengths = np.array(rows.lengths, np.int64)
    labels = np.array(rows.labels, np.int32)
    if names is None:
        names = [str(label) for label in range(labels.max(initial=-1) + 1)]
    points = np.array(rows.points).reshape(-1, 2) * np.repeat(scales, lengths // 2, axis=0)
    return make_index(names, pictures, counts, labels, _shapes(boxes, points, lengths), sizes=sizes)


def _shapes(boxes: _Doubles, points: _Doubles, lengths: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the columns of an index that hold boxes and polygons.

    Args:
        boxes: (M, 4) in pixels.
        points: (T / 2, 2) those of all polygons, in pixels.
        lengths: (M,) the coordinates of each polygon, together T; 0 is a box.
    """
    is_polygon = lengths > 0
    if is_polygon.any() and (lengths[is_polygon] == 8).all():
        rotated = upright_rectangles(boxes)
        rotated[is_polygon] = rectangles(points)
        return {**rotated_columns(rotated), "segments": _segments(points, lengths)}
    upright = boxes.astype(np.float32)
    areas = (upright[:, 2] - upright[:, 0]) * (upright[:, 3] - upright[:, 1])
    return {"boxes": upright, "areas": areas, "segments": _segments(points, lengths) if is_polygon.any() else None}


def _segments(points: _Doubles, lengths: npt.NDArray[np.int64]) -> Strings:
    """Return polygons as COCO writes them."""
    flat = points.ravel().round(3)
    polygons = (flat[start:end].tolist() for start, end in pairwise(offsets(lengths)))
    return Strings.pack(json.dumps([polygon]) if polygon else "" for polygon in polygons)
