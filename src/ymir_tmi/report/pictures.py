"""Pictures with boxes, as a small JPEG below vector graphics.

Boxes and labels are drawn as SVG over the thumbnail: they stay sharp at every zoom, class names may be in any script,
and a box says its class and score when pointed at. `mark_layout` decides which boxes get a label, and where.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ymir_tmi import imaging
from ymir_tmi.data import palette
from ymir_tmi.data.drawing import tint
from ymir_tmi.errors import ImageError
from ymir_tmi.geometry.outlines import LOWER_LEFT, LOWER_RIGHT, UPPER_LEFT, UPPER_RIGHT, bounds, farthest, outlines
from ymir_tmi.imaging import Image

Floats = npt.NDArray[np.float64]
Style = Literal["detection", "found", "missed", "false"]

LONGEST_SIDE = 480
_JPEG_QUALITY = 80
_LABEL_LENGTH = 28
_FONT_SIZE = 0.03  # of the longer side of the picture
_MOST_HIDDEN = 0.3  # a label that hides more than this part of an object is left out
_TOLERANCE = 0.6  # pixels of the thumbnail by which the outline of a mask may be off
_MOST_LABELS = 15  # in one picture; more would hide it

CLASS_COLOURS = tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in palette.CLASS_COLOURS)
OUTCOME_COLOURS: dict[Style, str] = {"found": "#56b4e9", "missed": "#f0e442", "false": "#ff7a33"}


@dataclass(frozen=True)
class Mark:
    """A box to draw.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the picture, or the five numbers of a rotated box.
        text: what its label says.
        colour: of the outline and the label, as #rrggbb.
        style: ground truth that was missed is dashed, a false detection dotted.
        rings: the closed lines around a mask, (n, 2) points each in pixels of the picture; where there are any, they
            are drawn in place of the box.
    """

    box: tuple[float, ...]
    text: str
    colour: str
    style: Style = "detection"
    rings: tuple[Floats, ...] = ()


@dataclass(frozen=True)
class PlacedMark:
    """A box and its label in pixels of the thumbnail.

    Attributes:
        outline: x and y of the four corners.
        text, short_text: what is said about the box, and as much of it as the label has room for.
        colour, style: as those of the mark.
        label: (x, y, width, height), None where there is no room.
        path: the lines around a mask in SVG's terms, "" of a box.
    """

    outline: tuple[tuple[float, float], ...]
    text: str
    short_text: str
    colour: str
    style: Style
    label: tuple[float, float, float, float] | None
    path: str = ""


@dataclass(frozen=True)
class Picture:
    """A thumbnail and what is drawn over it.

    Attributes:
        source: `data:` URI of a JPEG.
        width, height: of the thumbnail in pixels.
        alt: what the picture shows, in words.
        marks: boxes in drawing order.
        font_size: of the labels, in pixels of the thumbnail.
    """

    source: str
    width: int
    height: int
    alt: str
    marks: tuple[PlacedMark, ...] = ()
    font_size: float = 0.0


def class_colour(label: int) -> str:
    """Return the colour of a class; it repeats after `len(CLASS_COLOURS)` classes."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def load_picture(
    path: Path, alt: str, marks: Sequence[Mark] = (), *, annotated_size: tuple[int, int] | None = None
) -> Picture:
    """Read a picture and draw `marks` (the most important first) over its thumbnail.

    Raises:
        ImageError: the picture cannot be read, or is not of `annotated_size`.
    """
    image = imaging.read_image(path, annotated_size=annotated_size)
    thumbnail = _shrink(image)
    size = thumbnail.shape[1], thumbnail.shape[0]
    scale = size[0] / image.shape[1], size[1] / image.shape[0]
    font_size = round(_FONT_SIZE * max(size), 1)
    placed = mark_layout(marks, size, scale, font_size)
    return Picture(_data_uri(thumbnail), *size, alt, placed, font_size)


def load_tinted(
    path: Path,
    alt: str,
    label_map: npt.NDArray[np.uint8],
    colours: npt.NDArray[np.uint8],
    *,
    grey: bool = False,
    annotated_size: tuple[int, int] | None = None,
) -> Picture:
    """Read a picture and tint every pixel in the colour of its class.

    Args:
        path: The picture.
        alt: What it shows, in words.
        label_map: (H, W) of the picture; values beyond the colours leave a pixel as it is.
        colours: (n, 3) RGB.
        grey: Whether the picture below is shown without colour, and darker.
        annotated_size: (width, height) that the annotation states, if it states one.

    Raises:
        ImageError: the picture cannot be read, or is not of `annotated_size`, or not of the size of the label map.
    """
    image = imaging.read_image(path, annotated_size=annotated_size)
    if image.shape[:2] != label_map.shape:
        raise ImageError("the picture and its label map differ in size", where=path)
    thumbnail = _shrink(image)
    height, width = thumbnail.shape[:2]
    small = imaging.resize(np.repeat(label_map[..., None], 3, axis=2), width, height, "nearest")[..., 0]
    if grey:
        thumbnail = (imaging.without_colour(thumbnail) // 2).astype(np.uint8)
    known = small < len(colours)
    tint(thumbnail, known, colours[small[known]], 0.85 if grey else 0.5)
    return Picture(_data_uri(thumbnail), width, height, alt)


def load_heat_map(path: Path, alt: str, below: Path, *, annotated_size: tuple[int, int] | None = None) -> Picture:
    """Read a heat map and let it shine over a dark, grey copy of the picture that it belongs to.

    Raises:
        ImageError: one of the two cannot be read.
    """
    heat = _shrink(imaging.read_image(path))
    height, width = heat.shape[:2]
    image = imaging.resize(imaging.read_image(below, annotated_size=annotated_size), width, height, "area")
    grey = image.mean(axis=2, keepdims=True) * 0.5
    shining = 255 - (255 - grey) * (255.0 - heat) / 255
    return Picture(_data_uri(shining.astype(np.uint8)), width, height, alt)


def mark_layout(
    marks: Sequence[Mark], size: tuple[int, int], scale: tuple[float, float], font_size: float
) -> tuple[PlacedMark, ...]:
    """Place boxes and labels so that labels cover neither one another nor, if possible, an object.

    A label stands above its box, else below, else inside at the top; one that would cover another label or much of an
    object is left out, and so are those beyond the first `_MOST_LABELS`, and that of a mask which is narrower than it.
    The first mark chooses first. Small boxes are drawn last, on top of those around them.

    Args:
        marks: Boxes, the most important first.
        size: (width, height) of the thumbnail in pixels.
        scale: (x, y) factors from the picture to the thumbnail.
        font_size: In pixels of the thumbnail.
    """
    limits = np.array(size, np.float64)
    shapes = [_outline(mark, scale, limits) for mark in marks]
    boxes = np.clip(bounds(np.array(shapes).reshape(-1, 4, 2)), 0, np.tile(limits, 2))
    labels = np.zeros((0, 4))
    placed = []
    for mark, shape in zip(marks, shapes, strict=True):
        text = _shorten(mark.text)
        has_room = bool(text) and len(labels) < _MOST_LABELS and not (mark.rings and _is_narrow(shape, text, font_size))
        rectangle = _place_label(shape, boxes, labels, _label_size(text, font_size), limits) if has_room else None
        if rectangle is not None:
            labels = np.vstack([labels, rectangle])
        placed.append(_placed(mark, text, shape, rectangle, np.array(scale)))
    order = np.argsort([-_size_of(shape) for shape in shapes], kind="stable")
    return tuple(placed[row] for row in order.tolist())


def _is_narrow(shape: Floats, text: str, font_size: float) -> bool:
    """Return whether a shape is narrower than its label, which would hide a mask and its neighbours."""
    return bool(np.ptp(shape[:, 0]) < _label_size(text, font_size)[0])


def _outline(mark: Mark, scale: tuple[float, float], limits: Floats) -> Floats:
    """Return (4, 2) the corners in pixels of the thumbnail; an upright box is cut to it, so that all sides are seen."""
    shape: Floats = outlines(np.array([mark.box]))[0] * np.array(scale)
    return shape.clip(0, limits) if len(mark.box) == 4 else shape


def _place_label(
    shape: Floats, boxes: Floats, labels: Floats, size: tuple[float, float], limits: Floats
) -> Floats | None:
    """Return the label's xyxy, or None where every place hides too much."""
    best, least = None, _MOST_HIDDEN
    width, height = size
    for x, y in _label_corners(np.clip(shape, 0, limits), size, limits):
        candidate = np.array([x, y, x + width, y + height])
        if y < 0 or y + height > limits[1] or _overlap(candidate, labels).any():
            continue
        hidden = float((_overlap(candidate, boxes) / np.maximum(_area(boxes), 1)).max())
        if hidden < least:
            best, least = candidate, hidden
    return best


def _label_corners(shape: Floats, size: tuple[float, float], limits: Floats) -> list[tuple[float, float]]:
    """Return where the label's upper left corner may lie: above the box, below it, and inside."""
    width, height = size

    def start(x: float) -> float:
        return max(min(x, float(limits[0]) - width), 0.0)

    upper_left, upper_right, lower_left, lower_right = (
        farthest(shape, direction).tolist() for direction in (UPPER_LEFT, UPPER_RIGHT, LOWER_LEFT, LOWER_RIGHT)
    )
    return [
        (start(upper_left[0]), upper_left[1] - height),
        (start(upper_right[0] - width), upper_right[1] - height),
        (start(lower_left[0]), lower_left[1]),
        (start(lower_right[0] - width), lower_right[1]),
        (start(shape[:, 0].min()), float(shape[:, 1].min())),
    ]


def _placed(mark: Mark, text: str, shape: Floats, label: Floats | None, scale: Floats) -> PlacedMark:
    outline = tuple((round(x, 1), round(y, 1)) for x, y in shape.tolist())
    where = None
    if label is not None:
        left, top, right, bottom = (round(float(value), 1) for value in label)
        where = (left, top, round(right - left, 1), round(bottom - top, 1))
    path = "".join(_svg_path(ring * scale) for ring in mark.rings)
    return PlacedMark(outline, mark.text, text, mark.colour, mark.style, where, path)


def _svg_path(ring: Floats) -> str:
    points = imaging.simplify_outline(ring, _TOLERANCE).round(1).tolist()
    return f"M{' '.join(f'{x:g},{y:g}' for x, y in points)}z"


def _data_uri(image: Image) -> str:
    data = imaging.encode_image(image, ".jpg", jpeg_quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _shrink(image: Image) -> Image:
    height, width = image.shape[:2]
    factor = min(1.0, LONGEST_SIDE / max(width, height))
    return imaging.resize(image, max(1, round(width * factor)), max(1, round(height * factor)), "area")


def _label_size(text: str, font_size: float) -> tuple[float, float]:
    """Estimate (width, height) of a label; the browser is told to make the text fit."""
    return (sum(map(_ems, text)) + 0.5) * font_size, 1.3 * font_size


def _ems(character: str) -> float:
    """Return about how wide a character is in a font of size 1; those of East Asian scripts are square."""
    if unicodedata.east_asian_width(character) in "WF":
        return 1.0
    if character in "fijlrtI .,:;'!|()[]-":
        return 0.34
    return 0.85 if character in "mwMW@" else 0.62 if character.isupper() or character.isdigit() else 0.57


def _shorten(text: str) -> str:
    return text if len(text) <= _LABEL_LENGTH else text[: _LABEL_LENGTH - 6] + "…" + text[-5:]


def _size_of(shape: Floats) -> float:
    """Return the area of a rectangle from its (4, 2) corners, one after the other."""
    first, second = shape[1] - shape[0], shape[2] - shape[1]
    return abs(float(first[0] * second[1] - first[1] * second[0]))


def _overlap(box: Floats, others: Floats) -> Floats:
    """Return (n,) the area that `box` shares with each of `others` (n, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return _product(sides)


def _area(boxes: Floats) -> Floats:
    return _product(boxes[:, 2:] - boxes[:, :2])


def _product(sides: Floats) -> Floats:
    return np.asarray(np.clip(sides, 0, None).prod(axis=1))
