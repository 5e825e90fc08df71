"""Data sets as YMIR hands them out: a list of pictures and their annotations, TAB between them.

An annotation is one of

* a COCO file, the same one for all pictures and also for those of other lists;
* XML, as Pascal VOC has it, but that the first pixel has the number 0; see `formats.voc`;
* *det-ark*: one object a line, `class, xmin, ymin, xmax, ymax, quality, angle`, of which the last two may be missing.
  The last pixel is inside the box, and the first has the number 0: x1 = xmin, x2 = xmax + 1. Where there is an angle,
  these are the corners of the box before it is turned about its centre, in radians, clockwise on the screen. Boxes
  whose angles are all 0 are upright.

See docs/specs/ymir.md, section 4.
"""

from __future__ import annotations

import dataclasses
import os
from array import array
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from ymir_tmi.data.classes import align_classes
from ymir_tmi.data.formats.coco import read_coco
from ymir_tmi.data.formats.reading import Reading, Rejections, is_coordinate, make_index, read_lines, read_text
from ymir_tmi.data.formats.voc import read_voc
from ymir_tmi.data.formats.ymir_folder import class_names_beside
from ymir_tmi.data.index import CROWD, DatasetIndex, Strings
from ymir_tmi.data.pictures import PictureFinder, picture_sizes
from ymir_tmi.data.rotated import box_columns
from ymir_tmi.errors import DataError

_MOST_CLASSES = 1 << 16  # where the classes have no names


def read_ymir(path: Path, finder: PictureFinder, class_names: Sequence[str] | None) -> Reading:
    """Read a list of pictures and annotations.

    Annotations lie where the list says, as seen from where it is or from its folder `annotations`; a picture without
    one has no objects. A list that was moved together with what it names is read as well. Without `class_names` the
    classes are those of the task whose folder the list lies in, else those of det-ark are called by their numbers.

    Boxes and masks are those of pictures as they are stored, whose width and height EXIF has not swapped.

    A COCO file has only those classes that occur. In it, `iscrowd` means nothing of an object with run lengths: the
    platform writes it of all that came with such.

    Raises:
        DataError: the list cannot be read or has other columns, an annotation is not there, or is none of the three
            kinds, or not all are of one kind; or there is not one COCO file.
    """
    rows = _moved(path, read_rows(path))
    names_beside = class_names_beside(path) if class_names is None else None
    class_names = names_beside if class_names is None else class_names
    pictures = [finder.find_stem(picture, Path(picture).stem) for picture, _ in rows]
    files = [_find_annotation(path, annotation) if annotation else None for _, annotation in rows]
    kinds = {file.suffix.lower() for file in files if file}
    if kinds <= {".txt"}:
        reading = _read_ark(pictures, files, class_names)
    elif kinds == {".xml"}:
        annotated = [(file, picture) for file, picture in zip(files, pictures, strict=True) if file]
        if len(annotated) < len(rows):
            raise DataError("some of these pictures have an XML file and some have none", where=path)
        reading = read_voc([file for file, _ in annotated], finder, [picture for _, picture in annotated])
    elif kinds == {".json"}:
        reading = _read_coco(path, pictures, files, class_names)
    else:
        raise DataError(
            f"the annotations are not all .txt, all .xml or all .json, but {', '.join(sorted(kinds))}", where=path
        )
    index, declares = reading.index, reading.declares_classes
    if names_beside is not None:
        index, declares = align_classes(index, names_beside, where=path), True
    return Reading(index, declares, reading.rejections, finder.missing, finder.folders)


def read_rows(path: Path) -> list[tuple[str, str]]:
    """Return picture and annotation of each line of a list, "" where there is none; the names may hold spaces.

    Raises:
        DataError: the list cannot be read, is no text, or has other columns.
    """
    lines = read_text(path, "this list of pictures").split("\n")  # names may hold what `splitlines` takes for an end
    rows = [line.rstrip("\r").split("\t") for line in lines if line.strip()]
    if any(len(row) > 2 or not row[0] for row in rows):
        raise DataError("this is not a list of pictures and annotations with one TAB in each line", where=path)
    return [(row[0], row[1] if len(row) == 2 else "") for row in rows]


def _moved(path: Path, rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the rows as they are where the list lies now, if it was moved with its folder since it was written."""
    first = PurePath(rows[0][0]) if rows else PurePath()
    if not first.is_absolute() or os.path.lexists(first):
        return rows
    ends = (PurePath(*first.parts[start:]) for start in range(2, len(first.parts)))
    end = next((end for end in ends if (path.parent / end).exists()), None)
    if end is None:
        return rows
    old, new = str(first).removesuffix(str(end)), f"{path.parent.absolute()}{os.sep}"
    return [(_swap(picture, old, new), _swap(annotation, old, new)) for picture, annotation in rows]


def _swap(name: str, old: str, new: str) -> str:
    return new + name.removeprefix(old) if name.startswith(old) else name


def _find_annotation(path: Path, name: str) -> Path:
    for place in (path.parent / name, path.parent / "annotations" / Path(name).name):
        if place.is_file():
            return place
    raise DataError(f"the annotation '{name}' is neither there nor in the folder 'annotations' beside", where=path)


def _read_ark(pictures: Sequence[str], files: Sequence[Path | None], class_names: Sequence[str] | None) -> Reading:
    objects = _Objects(_MOST_CLASSES if class_names is None else len(class_names))
    counts = [objects.read(str(file)) if file else 0 for file in files]
    labels, angles = np.array(objects.labels, np.int32), np.array(objects.angles)
    if class_names is None:
        class_names = [str(label) for label in range(labels.max(initial=-1) + 1)]
    boxes = box_columns(np.array(objects.boxes).reshape(-1, 4), angles if angles.any() else None)
    sizes, _ = picture_sizes(pictures, stored=True)
    index = make_index(class_names, pictures, counts, labels, boxes, sizes=sizes)
    return Reading(index, rejections=objects.rejections)


def _read_coco(
    path: Path, pictures: Sequence[str], files: Sequence[Path | None], class_names: Sequence[str] | None
) -> Reading:
    """Return the images of a COCO file that a list names, in the order of the list."""
    different = dict.fromkeys(files)
    file = next(iter(different))
    if file is None or len(different) > 1:
        names = ", ".join(other.name if other else "none" for other in different)
        raise DataError(f"these pictures have not all the same COCO file, but {names}", where=path)
    reading = read_coco(file, PictureFinder([file.parent]))
    rows = {Path(reading.index.paths[row]).name: row for row in range(len(reading.index))}
    listed = [(picture, rows.get(Path(picture).name)) for picture in pictures]
    for picture, row in listed:
        if row is None:
            reading.rejections.add(file, None, f"the image {Path(picture).name} is not in 'images'")
    found = [(picture, row) for picture, row in listed if row is not None]
    index = reading.index.take([row for _, row in found])
    is_mask = np.array([text.startswith("{") for text in _segments(index)], np.bool_)
    flags = index.flags & ~np.where(is_mask, CROWD, np.uint8(0))
    boxes = (index.boxes[:, 2:] - index.boxes[:, :2]).prod(axis=1)
    index = dataclasses.replace(
        index,
        paths=Strings.pack(picture for picture, _ in found),
        flags=flags,
        areas=np.where(index.areas > 0, index.areas, boxes),  # 0 is that of polygons that came without one
    )
    return Reading(_by_place(index, class_names), rejections=reading.rejections)


def _by_place(index: DatasetIndex, class_names: Sequence[str] | None) -> DatasetIndex:
    """Call the classes by their places in `class_names`, which ids are, where that does not know their names."""
    if class_names is None or set(index.class_names) <= set(class_names):
        return index
    if any(not 0 <= key < len(class_names) for key in index.category_ids):
        return index
    return dataclasses.replace(index, class_names=tuple(class_names[key] for key in index.category_ids))


def _segments(index: DatasetIndex) -> list[str]:
    count = len(index.boxes)
    return [""] * count if index.segments is None else [index.segments[row] for row in range(count)]


class _Objects:
    """The objects of all det-ark files, as numbers in plain arrays."""

    def __init__(self, num_classes: int) -> None:
        self.rejections = Rejections()
        self.labels = array("q")
        self.boxes = array("d")  # x1, y1, x2, y2 before the turn
        self.angles = array("d")
        self._num_classes = num_classes

    def read(self, path: str) -> int:
        """Add the objects of one file; return how many."""
        before = len(self.labels)
        read_lines(path, self.rejections, self._add)
        return len(self.labels) - before

    def _add(self, line: str) -> None:
        """Add an object, or raise ValueError with what is wrong."""
        try:
            label, x1, y1, x2, y2, *rest = map(float, line.split(","))
        except ValueError:
            raise ValueError("a line is class, xmin, ymin, xmax, ymax, and maybe quality and angle") from None
        if not (0 <= label < self._num_classes and label.is_integer()):
            raise ValueError(f"the class is not one of 0 to {self._num_classes - 1}")
        angle = rest[1] if len(rest) > 1 else 0.0
        if len(rest) > 2 or not all(map(is_coordinate, (x1, y1, x2, y2, angle))):
            raise ValueError("there are too many numbers, or one is not finite or beyond any picture")
        if x2 < x1 - 1 or y2 < y1 - 1:
            raise ValueError("xmax or ymax is below xmin or ymin")
        self.labels.append(int(label))
        self.boxes.extend((x1, y1, x2 + 1, y2 + 1))
        self.angles.append(angle)
