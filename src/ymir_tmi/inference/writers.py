"""From recorded rows to files: YOLO's text, VOC's XML, label maps and annotated pictures, each one file a picture.

`names` are those of the pictures as seen from the deepest folder that holds them all, and the files are called so too:
pictures of one name in different folders stay apart. A picture that could not be read has no file.
(`predictions.json` is written by `pool/predictions.py`.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ymir_tmi import imaging
from ymir_tmi.data.drawing import mask_rings
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.palette import class_colours
from ymir_tmi.data.threads import Threads
from ymir_tmi.files.atomic import write_text
from ymir_tmi.geometry.outlines import outlines
from ymir_tmi.inference.drawing import draw_classes, draw_detections
from ymir_tmi.pool.consumer import Row
from ymir_tmi.pool.label_maps import label_map_of
from ymir_tmi.pool.recorder import detections_of, masks_of


def write_yolo(folder: Path, names: Sequence[str], rows: Iterable[Row]) -> None:
    """Write `<name>.txt`: class, centre x, centre y, width and height as fractions of the picture, and the score.

    Of a rotated box it has the four corners, x and y in turns, as YOLO's files of oriented boxes do, and of a mask its
    outline, as YOLO's files of instances do: one closed line that goes to further parts and holes and back.
    """
    for name, row in zip(names, rows, strict=True):
        if "error" not in row:
            write_text((folder / name).with_suffix(".txt"), "".join(_yolo_lines(row)))


def write_voc(folder: Path, names: Sequence[str], class_names: Sequence[str], rows: Iterable[Row]) -> None:
    """Write `<name>.xml`: corners in whole pixels, counted from 1, the last one inside; the score is `confidence`.

    The convention of the corners is that of the VOC2012 development kit, section 2; `data/formats/voc.py` reads it.
    A rotated box is written as roLabelImg does, in its own terms but for an angle in [0, pi).
    """
    for name, row in zip(names, rows, strict=True):
        if "error" not in row:
            root = _voc_tree(name, class_names, row)
            ElementTree.indent(root)
            write_text((folder / name).with_suffix(".xml"), ElementTree.tostring(root, encoding="unicode") + "\n")


def write_label_maps(folder: Path, names: Sequence[str], rows: Iterable[Row], threads: Threads) -> None:
    """Write `<name>.png` with a palette: the class of every pixel, from 0, and 255 for pixels of no class."""

    def write(item: tuple[str, Row]) -> None:
        name, row = item
        if "error" not in row:
            imaging.write_values((folder / name).with_suffix(".png"), label_map_of(row), class_colours(256))

    for _ in threads.map(write, zip(names, rows, strict=True)):
        pass


def write_pictures(
    folder: Path,
    index: DatasetIndex,
    names: Sequence[str],
    class_names: Sequence[str],
    rows: Iterable[Row],
    threads: Threads,
) -> None:
    """Write a copy of every picture with what was found drawn into it, in the format of the picture.

    Raises:
        ImageError: a picture can no longer be read.
    """

    def write(item: tuple[int, str, Row]) -> None:
        position, name, row = item
        if "error" not in row:
            image = imaging.read_image(index.paths[position], annotated_size=index.size(position))
            if "boxes" in row:
                drawn = draw_detections(image, detections_of(row, len(class_names)), class_names)
            else:
                drawn = draw_classes(image, label_map_of(row), class_names)
            imaging.write_image(folder / name, drawn)

    for _ in threads.map(write, zip(count(), names, rows, strict=False)):
        pass


def _yolo_lines(row: Row) -> Iterable[str]:
    size = row["size"]
    shapes = _outlines(row) if "masks" in row else (_fractions(box, size) for box in row["boxes"])
    for shape, score, label in zip(shapes, row["scores"], row["labels"], strict=True):
        if len(shape):  # a mask without pixels has no outline
            numbers = (*shape, score)
            yield f"{label} {' '.join(f'{number:.9g}' for number in numbers)}\n"


def _outlines(row: Row) -> Iterator[Sequence[float]]:
    """Yield the outline of each mask as one closed line, x and y in turns, as fractions of the picture."""
    for rings in mask_rings(masks_of(row)):
        # From the first point of the first line to every further line and back on the same way, which encloses nothing.
        lines = [rings[:1], *([rings[0][:1], ring, ring[:1]] for ring in rings[1:])]
        points = np.concatenate([np.zeros((0, 2)), *(part for line in lines for part in line)])
        fractions: list[float] = (points / np.array(row["size"])).flatten().tolist()
        yield fractions


def _fractions(box: Sequence[float], size: Sequence[int]) -> Sequence[float]:
    """Return centre and sides of an upright box, or the corners of a rotated one, as fractions of the picture."""
    width, height = size
    if len(box) == 5:
        corners: list[float] = (outlines(np.array([box])) / np.array(size)).flatten().tolist()
        return corners
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height


def _voc_tree(file_name: str, class_names: Sequence[str], row: Row) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = file_name
    _add_numbers(ElementTree.SubElement(root, "size"), ("width", "height", "depth"), (*row["size"], 3))
    for box, score, label in zip(row["boxes"], row["scores"], row["labels"], strict=True):
        element = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(element, "name").text = class_names[label]
        ElementTree.SubElement(element, "confidence").text = f"{score:.9g}"
        _add_box(element, box)
    return root


def _add_box(element: ElementTree.Element, box: Sequence[float]) -> None:
    if len(box) == 5:
        ElementTree.SubElement(element, "type").text = "robndbox"
        numbers = [f"{number:.9g}" for number in (*box[:4], box[4] % math.pi)]
        _add_numbers(ElementTree.SubElement(element, "robndbox"), ("cx", "cy", "w", "h", "angle"), numbers)
    else:
        (left, right), (top, bottom) = _pixels(box[0], box[2]), _pixels(box[1], box[3])
        corners = ElementTree.SubElement(element, "bndbox")
        _add_numbers(corners, ("xmin", "ymin", "xmax", "ymax"), (left, top, right, bottom))


def _add_numbers(element: ElementTree.Element, names: Sequence[str], numbers: Sequence[int | str]) -> None:
    for name, number in zip(names, numbers, strict=True):
        ElementTree.SubElement(element, name).text = str(number)


def _pixels(low: float, high: float) -> tuple[int, int]:
    """Return the first and the last pixel, counted from 1, of a span; at least the one at its middle."""
    first, last = round(low) + 1, round(high)
    return (first, last) if first <= last else (int((low + high) / 2) + 1,) * 2
