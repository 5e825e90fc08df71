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
from ymir_tmi.imaging import Image

Style = Literal["detection", "found", "missed", "false"]

LONGEST_SIDE = 480
_JPEG_QUALITY = 80
_LABEL_LENGTH = 28
_FONT_SIZE = 0.03  # of the longer side of the picture
_MOST_HIDDEN = 0.3  # a label that hides more than this part of an object is left out
_MOST_LABELS = 15  # in one picture; more would hide it

# Okabe and Ito's palette, which colour-blind people can tell apart; the same as that of `inference/drawing.py`.
CLASS_COLOURS = ("#56b4e9", "#e69f00", "#2fc79a", "#f0e442", "#cc79a7", "#ff7a33")
OUTCOME_COLOURS: dict[Style, str] = {"found": "#56b4e9", "missed": "#f0e442", "false": "#ff7a33"}


@dataclass(frozen=True)
class Mark:
    """A box to draw.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the picture.
        text: what its label says.
        colour: of the outline and the label, as #rrggbb.
        style: ground truth that was missed is dashed, a false detection dotted.
    """

    box: tuple[float, float, float, float]
    text: str
    colour: str
    style: Style = "detection"


@dataclass(frozen=True)
class PlacedMark:
    """A box and its label in pixels of the thumbnail; `label` is (x, y, width, height), None where there is no room."""

    x: float
    y: float
    width: float
    height: float
    text: str
    short_text: str
    colour: str
    style: Style
    label: tuple[float, float, float, float] | None


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
    object is left out, and so are those beyond the first `_MOST_LABELS`. The first mark chooses first. Small boxes are
    drawn last, on top of those around them.

    Args:
        marks: Boxes, the most important first.
        size: (width, height) of the thumbnail in pixels.
        scale: (x, y) factors from the picture to the thumbnail.
        font_size: In pixels of the thumbnail.
    """
    factors = np.array([*scale, *scale])
    limits = np.array([*size, *size])
    boxes = np.array([mark.box for mark in marks], np.float64).reshape(-1, 4) * factors
    boxes = np.clip(boxes, 0, limits)
    labels = np.zeros((0, 4))
    placed = []
    for mark, box in zip(marks, boxes, strict=True):
        text = _shorten(mark.text)
        has_room = len(labels) < _MOST_LABELS
        rectangle = _place_label(box, boxes, labels, _label_size(text, font_size), limits) if has_room else None
        if rectangle is not None:
            labels = np.vstack([labels, rectangle])
        placed.append(_placed(mark, text, box, rectangle))
    return tuple(sorted(placed, key=lambda mark: -mark.width * mark.height))


def _place_label(
    box: npt.NDArray[np.float64],
    boxes: npt.NDArray[np.float64],
    labels: npt.NDArray[np.float64],
    size: tuple[float, float],
    limits: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64] | None:
    """Return the label's xyxy, or None where every place hides too much."""
    width, height = size
    x1, y1, x2, y2 = box
    left = min(max(x1, 0), max(limits[0] - width, 0))
    right = max(x2 - width, 0)
    corners = [(left, y1 - height), (right, y1 - height), (left, y2), (right, y2), (left, y1)]
    best, least = None, _MOST_HIDDEN
    for x, y in corners:
        candidate = np.array([x, y, x + width, y + height])
        if y < 0 or y + height > limits[1] or _overlap(candidate, labels).any():
            continue
        hidden = float((_overlap(candidate, boxes) / np.maximum(_area(boxes), 1)).max())
        if hidden < least:
            best, least = candidate, hidden
    return best


def _placed(mark: Mark, text: str, box: npt.NDArray[np.float64], label: npt.NDArray[np.float64] | None) -> PlacedMark:
    x1, y1, x2, y2 = (round(float(value), 1) for value in box)
    where = None
    if label is not None:
        left, top, right, bottom = (round(float(value), 1) for value in label)
        where = (left, top, round(right - left, 1), round(bottom - top, 1))
    return PlacedMark(x1, y1, round(x2 - x1, 1), round(y2 - y1, 1), mark.text, text, mark.colour, mark.style, where)


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


def _overlap(box: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (n,) the area that `box` shares with each of `others` (n, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return _product(sides)


def _area(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return _product(boxes[:, 2:] - boxes[:, :2])


def _product(sides: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.clip(sides, 0, None).prod(axis=1))
