"""Pascal VOC's XML format (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/, development kit, section 2).

A corner of 1 is the first pixel and the last pixel is inside the box, so that a box of the whole of a 640 pixel wide
picture goes from 1 to 640: x1 = xmin - 1, x2 = xmax.

Two programs have rotated boxes in such files. roLabelImg writes `<robndbox>` with `cx`, `cy`, `w`, `h` and `angle`, and
`<bndbox>` for upright objects. YMIR writes `<rotate_angle>` into `<bndbox>`, which then holds the box before it is
turned about its centre; there the first pixel has the number 0: x1 = xmin, x2 = xmax + 1. So it has in YMIR's older
files, which have no angle. Either angle is in radians, clockwise on the screen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np

from ymir_tmi.data.formats.reading import Reading, Rejections, is_coordinate, make_index
from ymir_tmi.data.formats.writing import label_names, new_folder, stated_sizes
from ymir_tmi.data.index import DIFFICULT, DatasetIndex
from ymir_tmi.data.pictures import PictureFinder, common_names, place_picture
from ymir_tmi.data.rotated import box_columns
from ymir_tmi.errors import DataError, did_you_mean

_OBJECT = re.compile(rb"<object[\s>]")


class _Picture(NamedTuple):
    path: str
    size: tuple[int, int]
    objects: int


_Box = tuple[float, float, float, float]


class _Object(NamedTuple):
    name: str
    box: _Box  # x1, y1, x2, y2 before it is turned
    angle: float | None  # None is an upright box
    difficult: bool


def voc_files(folder: Path, split: str | None) -> list[Path]:
    """Return the annotation files of a VOC folder, or of a folder of XML files, sorted by name.

    A folder with `ImageSets/Main` has splits: the files that list the names of their pictures.

    Raises:
        DataError: the folder has splits, but not this one; or the split names no picture, or one without annotation.
    """
    annotations = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    files = {file.stem: file for file in sorted(annotations.glob("*.xml"))}
    lists = folder / "ImageSets" / "Main"
    if split is None or not lists.is_dir():
        return list(files.values())
    chosen = lists / f"{split}.txt"
    if not chosen.is_file():
        known = voc_splits(folder)
        raise DataError(f"there is no split '{split}'", where=lists, fix=did_you_mean(split, known))
    stems = [line.split()[0] for line in chosen.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not stems:
        raise DataError("this split names no pictures", where=chosen)
    for stem in stems:
        if stem not in files:
            raise DataError(f"picture '{stem}' of this split has no annotation in {annotations}", where=chosen)
    return [files[stem] for stem in stems]


def voc_splits(folder: Path) -> list[str]:
    """Return the names of the splits of a VOC folder, without those of one class (`dog_train`) and without unions."""
    lists = folder / "ImageSets" / "Main"
    names = {file.stem for file in lists.glob("*.txt") if "_" not in file.stem}
    return sorted(names - {"trainval"} if {"train", "val"} <= names else names)


def picture_folders(annotations: Path) -> list[Path]:
    """Return where the pictures of a folder of XML files may lie."""
    above = annotations.parent
    return [annotations, annotations / "images", above / "JPEGImages", above / "images"]


def read_voc(files: Sequence[Path], finder: PictureFinder, pictures: Sequence[str] | None = None) -> Reading:
    """Read XML files, one a picture.

    The classes are the names of the objects, sorted. `difficult` becomes `DIFFICULT`; `truncated`, `pose` and parts are
    not kept. A picture is found by its `filename`, or else by the name of the XML file. Where one box is rotated, all
    are read as rotated ones.

    Rejected are files that are not XML or have a document type (which could make a small file huge), and objects
    without a name, without a box of finite numbers, or whose corners are the wrong way round.

    Args:
        files: The XML files.
        finder: Finds their pictures.
        pictures: Where the pictures lie, if that is known, as it is of YMIR's files, in which the first pixel has the
            number 0. They leave out the boxes of objects without width or height, which then do not count.

    Raises:
        DataError: the system does not let a file be read.
    """
    rejections = Rejections()
    annotated: list[_Picture] = []
    objects: list[_Object] = []
    for number, file in enumerate(files):
        root = _parse(file, rejections)
        if root is None:
            continue
        found = _objects(root, file, rejections, of_ymir=pictures is not None)
        path = pictures[number] if pictures is not None else _find_picture(root, file, finder)
        annotated.append(_Picture(path, _size(root), len(found)))
        objects.extend(found)
    return Reading(_index(annotated, objects), False, rejections, finder.missing, finder.folders)


def _find_picture(root: ElementTree.Element, file: Path, finder: PictureFinder) -> str:
    return finder.find_stem((root.findtext("filename") or "").strip() or file.stem, file.stem)


def write_voc(splits: Mapping[str, DatasetIndex], folder: Path, *, copy: bool = False) -> None:
    """Write a VOC folder: `Annotations`, `JPEGImages`, and a list of each split in `ImageSets/Main`.

    Corners are rounded to whole pixels, and a box is at least one pixel wide and high, as the format has it. Rotated
    boxes are written as roLabelImg does, to 1/10000 pixel. Regions with many objects (`CROWD`) become difficult
    objects; segmentations are not written.

    Args:
        splits: an index for each split; no picture may be in two of them.
        folder: where to; it must not exist, or be empty.
        copy: whether pictures are copied, or linked to.

    Raises:
        DataError: the folder exists, or a picture occurs twice.
    """
    paths = [index.paths[image] for index in splits.values() for image in range(len(index))]
    names = iter(label_names([name.replace("/", "_") for name in common_names(paths)]))
    with new_folder(folder) as root:
        (root / "Annotations").mkdir()
        (root / "ImageSets" / "Main").mkdir(parents=True)
        for split, index in splits.items():
            sizes, stems = stated_sizes(index), []
            for image in range(len(index)):
                name, stem = next(names)
                stems.append(stem)
                text = _xml(index, image, name, sizes[image].tolist())
                (root / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")
                place_picture(index.paths[image], root / "JPEGImages" / name, copy=copy)
            lines = "".join(f"{stem}\n" for stem in stems)
            (root / "ImageSets" / "Main" / f"{split}.txt").write_text(lines, encoding="utf-8")


def _xml(index: DatasetIndex, image: int, name: str, size: Sequence[int]) -> str:
    lines = [
        "<annotation>",
        f"  <filename>{escape(name)}</filename>",
        f"  <size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>",
    ]
    rows = index.rows(image)
    boxes = map(_bndbox, index.boxes[rows].tolist())
    if index.rotated is not None:
        boxes = map(_robndbox, index.rotated[rows].tolist())
    for label, box, flags in zip(index.labels[rows], boxes, index.flags[rows], strict=True):
        lines += [
            "  <object>",
            f"    <name>{escape(index.class_names[label])}</name>",
            f"    <difficult>{int(flags != 0)}</difficult>",
            f"    {box}",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _bndbox(box: Sequence[float]) -> str:
    (xmin, xmax), (ymin, ymax) = _pixels(box[0], box[2]), _pixels(box[1], box[3])
    return f"<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>"


def _robndbox(box: Sequence[float]) -> str:
    """Write the angle in [0, pi), as roLabelImg does."""
    cx, cy, w, h = (f"{value:.10g}" for value in np.round(box[:4], 4))
    angle = f"{box[4] % math.pi:.6f}"
    return f"<robndbox><cx>{cx}</cx><cy>{cy}</cy><w>{w}</w><h>{h}</h><angle>{angle}</angle></robndbox>"


def _pixels(low: float, high: float) -> tuple[int, int]:
    """Return the first and the last pixel, counted from 1, of a span; at least the one at its middle."""
    first, last = round(low) + 1, round(high)
    return (first, last) if first <= last else (int((low + high) / 2) + 1,) * 2


def _parse(file: Path, rejections: Rejections) -> ElementTree.Element | None:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read this file: {error.strerror}", where=file) from error
    if b"<!DOCTYPE" in data:
        rejections.add(file, None, "a document type (<!DOCTYPE ...>) is not allowed")
        return None
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        rejections.add(file, error.position[0], f"this is not XML: {error}")
    except (ValueError, LookupError) as error:  # an encoding that the parser does not know
        rejections.add(file, 1, f"this is not XML: {error}")
    return None


def _objects(root: ElementTree.Element, file: Path, rejections: Rejections, *, of_ymir: bool) -> list[_Object]:
    found = []
    for number, element in enumerate(root.iterfind("object")):
        if of_ymir and element.find("bndbox") is None and element.find("robndbox") is None:
            continue
        try:
            found.append(_object(element, 0 if of_ymir else 1))
        except ValueError as error:
            rejections.add(file, _line(file, number), f"object {number + 1}: {error}")
    return found


def _object(element: ElementTree.Element, first: int) -> _Object:
    """Return an object, or raise ValueError with what is wrong; `first` is the number of the first pixel."""
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("it has no <name>")
    box, angle = _rotated_box(element) or _upright_box(element, first)
    difficult = (element.findtext("difficult") or "").strip() == "1"
    return _Object(name, box, angle, difficult)


def _rotated_box(element: ElementTree.Element) -> tuple[_Box, float] | None:
    """Return a box as roLabelImg writes it, or None where there is none."""
    box = element.find("robndbox")
    if box is None:
        return None
    cx, cy, w, h, angle = _numbers(box, ("cx", "cy", "w", "h", "angle"))
    if w < 0 or h < 0:
        raise ValueError(f"w or h is negative: {w}, {h}")
    return (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), angle


def _upright_box(element: ElementTree.Element, first: int) -> tuple[_Box, float | None]:
    box = element.find("bndbox")
    if box is None:
        raise ValueError("it has no <bndbox>")
    x1, y1, x2, y2 = _numbers(box, ("xmin", "ymin", "xmax", "ymax"))
    if x2 < x1 - 1 or y2 < y1 - 1:
        raise ValueError(f"xmax or ymax is below xmin or ymin: {[x1, y1, x2, y2]}")
    if box.find("rotate_angle") is None:
        return (x1 - first, y1 - first, x2 - first + 1, y2 - first + 1), None
    (angle,) = _numbers(box, ("rotate_angle",))
    return (x1, y1, x2 + 1, y2 + 1), angle or None


def _numbers(element: ElementTree.Element, names: Sequence[str]) -> list[float]:
    """Return the finite numbers in the elements of these names."""
    texts = [element.findtext(name) for name in names]
    try:
        numbers = [float(text or "") for text in texts]
    except ValueError:
        raise ValueError(f"{', '.join(names)} are not numbers: {texts}") from None
    if not all(map(is_coordinate, numbers)):
        raise ValueError(f"{', '.join(names)} are not finite, or beyond any picture: {texts}")
    return numbers


def _size(root: ElementTree.Element) -> tuple[int, int]:
    """Return the stated (width, height), or (0, 0) where there is none."""
    try:
        return int(float(root.findtext("size/width") or 0)), int(float(root.findtext("size/height") or 0))
    except ValueError:
        return 0, 0


def _line(file: Path, number: int) -> int:
    """Return the line of the object with this number; the parser does not keep it."""
    data = file.read_bytes()
    starts = [match.start() for match in _OBJECT.finditer(data)]
    return data.count(b"\n", 0, starts[number]) + 1 if number < len(starts) else 1


def _index(pictures: Sequence[_Picture], objects: Sequence[_Object]) -> DatasetIndex:
    names = sorted({item.name for item in objects})
    labels = {name: label for label, name in enumerate(names)}
    boxes = np.array([item.box for item in objects], np.float64).reshape(-1, 4)
    angles = np.array([item.angle or 0.0 for item in objects])
    rotated = any(item.angle is not None for item in objects)
    return make_index(
        names,
        [picture.path for picture in pictures],
        [picture.objects for picture in pictures],
        [labels[item.name] for item in objects],
        box_columns(boxes, angles if rotated else None),
        flags=[int(item.difficult) * int(DIFFICULT) for item in objects],
        sizes=[picture.size for picture in pictures],
    )
