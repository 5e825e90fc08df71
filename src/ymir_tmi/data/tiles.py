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
from ymir_tmi.data.index import DIFFICULT, DatasetIndex
from ymir_tmi.errors import ConfigError
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


def objects_in(index: DatasetIndex, image: int, window: Window) -> Objects:
    """Return the objects of an image that a window shows.

    An object of which less than 70 % lies inside is difficult there; one of which less than a square pixel does is left
    out. Upright boxes are cut at the border of the window. Rotated ones are kept whole: what is cut off a rotated
    rectangle is no rectangle.
    """
    rows = np.arange(index.rows(image).start, index.rows(image).stop)
    corners = np.array([window.x, window.y, window.x + window.width, window.y + window.height], np.float64)
    boxes = index.boxes[rows].astype(np.float64)
    meets = (boxes[:, :2] < corners[2:]).all(1) & (boxes[:, 2:] > corners[:2]).all(1)
    rows, boxes = rows[meets], boxes[meets]
    cut = np.concatenate([np.maximum(boxes[:, :2], corners[:2]), np.minimum(boxes[:, 2:], corners[2:])], axis=1)
    rotated = None if index.rotated is None else index.rotated[rows]
    if rotated is None:
        inside, whole = _area(cut), _area(boxes)
    else:
        inside, whole = _rotated_inside(rotated, corners), rotated[:, 2:4].astype(np.float64).prod(1)
    share = inside / np.maximum(whole, np.finfo(np.float64).tiny)
    counts = share >= MOSTLY_INSIDE - _ROUNDING
    kept = counts | (inside >= _SMALLEST_PART)
    return Objects(
        boxes=_moved((cut if rotated is None else boxes)[kept], window),
        labels=index.labels[rows[kept]],
        areas=index.areas[rows[kept]] * (share[kept].astype(np.float32) if rotated is None else np.float32(1)),
        flags=index.flags[rows[kept]] | np.where(counts[kept], np.uint8(0), DIFFICULT),
        rotated=None if rotated is None else _rotated_moved(rotated[kept], window),
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
