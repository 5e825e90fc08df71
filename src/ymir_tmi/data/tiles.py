"""Windows over a large picture, and which of the picture's objects are a window's.

Source: docs/specs/rotated.md, section "Training recipe" (DOTA patches).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ymir_tmi.config.schema import PassSettings
from ymir_tmi.data.index import DIFFICULT, DatasetIndex, Strings
from ymir_tmi.data.segments import image_outlines, mask_text, polygons_text, read_segments
from ymir_tmi.errors import ConfigError
from ymir_tmi.geometry.polygons import Polygons
from ymir_tmi.geometry.rotated import aligned_rotated_iou, from_upright

MOSTLY_INSIDE = 0.7
"""The share of an object's area that must lie in a window for the object to count there."""
_SMALLEST = 32  # pixels of a window
_SMALLEST_PART = 1.0  # square pixels; of other objects, less than that cannot be seen
_ROUNDING = 1e-9

Boxes = npt.NDArray[np.float32]
Column = npt.NDArray[np.float64]


class Window(NamedTuple):
    """A part of a picture: its upper left corner and its size in pixels."""

    x: int
    y: int
    width: int
    height: int


class Tile(NamedTuple):
    """A window, and the (width, height) of the picture that it belongs to."""

    window: Window
    picture: tuple[int, int]


@dataclass(frozen=True)
class Tiling:
    """Windows of `size` pixels that overlap by `overlap` or more.

    Raises:
        ConfigError: the overlap is not smaller than the windows.
    """

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            raise ConfigError(
                f"windows of {self.size} pixels cannot overlap by {self.overlap}",
                where="overlap",
                fix="Take an overlap between the largest object and half of the window.",
            )

    @classmethod
    def of(cls, settings: PassSettings) -> Tiling | None:
        """Return how a verb cuts large images; None if it takes them whole.

        Raises:
            ConfigError: there is an overlap of no windows, or it is not smaller than them.
        """
        if settings.tile is not None:
            return cls(settings.tile, settings.overlap)
        if settings.overlap != PassSettings.model_fields["overlap"].get_default():
            raise ConfigError(
                "setting 'overlap' has no effect here: images are taken whole",
                where="overlap",
                fix="Give the size of the windows by --tile, or leave out the overlap.",
            )
        return None

    def at_rate(self, rate: float) -> Tiling:
        """Return the windows that show objects `rate` times as large once they are scaled to the same input.

        Raises:
            ConfigError: the windows have less than 32 pixels.
        """
        size = int(self.size / rate)
        if size < _SMALLEST:
            raise ConfigError(
                f"at rate {rate:g} windows of {self.size} pixels have {size}, and {_SMALLEST} are the least",
                where="rates",
                fix="Take smaller rates, or larger windows.",
            )
        return Tiling(size, int(self.overlap / rate))

    def is_enough(self, width: int, height: int) -> bool:
        """Return whether one window holds a picture of this size."""
        return width <= self.size and height <= self.size

    def windows(self, width: int, height: int) -> list[Window]:
        """Return the windows over a picture, row by row, inside it.

        They are a step of size - overlap apart; the last one of a row or column is moved back to the border. All
        windows of one picture are of one size, that of the picture where it is the smaller one.
        """
        across, down = min(width, self.size), min(height, self.size)
        return [Window(x, y, across, down) for y in self._starts(height) for x in self._starts(width)]

    def _starts(self, side: int) -> list[int]:
        beyond = max(0, side - self.size)
        step = self.size - self.overlap
        return [min(number * step, beyond) for number in range(math.ceil(beyond / step) + 1)]


class Objects(NamedTuple):
    """The n objects of a window, as the columns of a `DatasetIndex`, in pixels of the window."""

    boxes: Boxes
    labels: npt.NDArray[np.int32]
    areas: npt.NDArray[np.float32]
    flags: npt.NDArray[np.uint8]
    rotated: Boxes | None
    segments: Strings | None


def objects_in(index: DatasetIndex, image: int, window: Window, picture: tuple[int, int] | None = None) -> Objects:
    """Return the objects of an image that a window shows.

    An object of which less than 70 % lies inside is difficult there; one of which less than a square pixel does is left
    out. Upright boxes and masks are cut at the border of the window, and the box of an object with a mask is then that
    around what is left of it. Rotated boxes are kept whole: what is cut off a rotated rectangle is no rectangle.

    Args:
        index: the data set.
        image: which image.
        window: a part of it.
        picture: (width, height) of the picture that masks are written for, if that is larger than the window.

    Raises:
        DataError: a mask is wrong.
    """
    rows = np.arange(index.rows(image).start, index.rows(image).stop)
    corners = np.array([window.x, window.y, window.x + window.width, window.y + window.height], np.float64)
    boxes = index.boxes[rows].astype(np.float64)
    meets = (boxes[:, :2] < corners[2:]).all(1) & (boxes[:, 2:] > corners[:2]).all(1)
    rows, boxes = rows[meets], boxes[meets]
    rotated = None if index.rotated is None else index.rotated[rows]
    outlines = None
    if rotated is not None:
        seen = _Seen(boxes, _rotated_inside(rotated, corners), rotated[:, 2:4].astype(np.float64).prod(1))
    elif index.segments is not None:
        outlines, seen = _cut_outlines(index, image, rows, window, _cut_boxes(boxes, corners))
    else:
        seen = _cut_boxes(boxes, corners)
    share = seen.inside / np.maximum(seen.whole, np.finfo(np.float64).tiny)
    counts = share >= MOSTLY_INSIDE - _ROUNDING
    kept = counts | (seen.inside >= _SMALLEST_PART)
    return Objects(
        boxes=_moved(seen.boxes[kept], window),
        labels=index.labels[rows[kept]],
        areas=index.areas[rows[kept]] * (share[kept].astype(np.float32) if rotated is None else np.float32(1)),
        flags=index.flags[rows[kept]] | np.where(counts[kept], np.uint8(0), DIFFICULT),
        rotated=None if rotated is None else _rotated_moved(rotated[kept], window),
        segments=None if outlines is None else _texts(index, rows[kept], outlines.take(kept), picture or window[2:]),
    )


class _Seen(NamedTuple):
    """What a window shows of n objects: boxes in pixels of the image, the areas inside, and those of the whole."""

    boxes: Column
    inside: Column
    whole: Column


def _cut_boxes(boxes: Column, corners: Column) -> _Seen:
    cut = np.concatenate([np.maximum(boxes[:, :2], corners[:2]), np.minimum(boxes[:, 2:], corners[2:])], axis=1)
    return _Seen(cut, _area(cut), _area(boxes))


def _cut_outlines(
    index: DatasetIndex, image: int, rows: npt.NDArray[np.int64], window: Window, boxes: _Seen
) -> tuple[Polygons, _Seen]:
    """Return the outlines of some annotations in pixels of a window, and what is seen of these or else of boxes."""
    sizes = np.tile(index.sizes[image], (len(rows), 1))
    assert index.segments is not None
    try:
        outlines = read_segments([index.segments[row] for row in rows], sizes)
    except ValueError:
        image_outlines(index, image)
        raise
    moved = outlines.with_edges(outlines.edges - np.array(window[:2], np.float32))
    cut, whole = moved.clip(window.width, window.height), outlines.areas()
    hulls = cut.hulls() + np.array([window.x, window.y] * 2, np.float64)
    has_mask = whole > 0
    return cut, _Seen(
        np.where(has_mask[:, None], hulls, boxes.boxes),
        np.where(has_mask, cut.areas(), boxes.inside),
        np.where(has_mask, whole, boxes.whole),
    )


def _texts(index: DatasetIndex, rows: npt.NDArray[np.int64], outlines: Polygons, size: tuple[int, int]) -> Strings:
    """Return outlines as segmentations of a picture of a size, masks as masks and polygons as polygons."""
    assert index.segments is not None
    is_mask = [index.segments[row].startswith("{") for row in rows]
    return Strings.pack(
        mask_text(outlines.take([row]), size) if is_mask[row] else polygons_text(outlines, row)
        for row in range(len(rows))
    )


def _area(boxes: Column) -> Column:
    area: Column = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return area


def _rotated_inside(rotated: Boxes, corners: Column) -> Column:
    """Return (n,) the area that each rotated box shares with the window."""
    frame = from_upright(torch.from_numpy(corners))
    iou = aligned_rotated_iou(torch.from_numpy(rotated.astype(np.float64)), frame).numpy()
    both = rotated[:, 2:4].astype(np.float64).prod(1) + _area(corners[None])
    inside: Column = iou * both / (1 + iou)
    return inside


def _moved(boxes: Column, window: Window) -> Boxes:
    moved: Boxes = (boxes - np.array([window.x, window.y] * 2)).astype(np.float32)
    return moved


def _rotated_moved(rotated: Boxes, window: Window) -> Boxes:
    moved: Boxes = rotated - np.array([window.x, window.y, 0, 0, 0], np.float32)
    return moved
