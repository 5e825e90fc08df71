"""Small drawn pictures for tasks that the platform could hand out: shapes that are easy to tell apart, exact truth."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ymir_tmi import imaging
from ymir_tmi.imaging import Image

# The platform's names are lower case, of any alphabet. No picture has an object of the last one.
CLASS_NAMES = ("circle", "square", "дельта", "圆环")

WIDTH, HEIGHT = 160, 120
_COLOURS = ((220, 60, 50), (60, 200, 70), (70, 90, 230))
_CELLS = 2  # objects lie in cells, so many a side, and do not cover one another
_LONGEST, _SHORTEST = 48, 18  # sides of objects in pixels; turned, the longest diagonal still fits into a cell


@dataclass(frozen=True)
class SampleObject:
    """One drawn object.

    Attributes:
        label: place in `CLASS_NAMES`.
        box: x, y, w, h before it is turned, whole pixels; it covers [x, x + w) and [y, y + h).
        angle: radians, clockwise on the screen, about the centre of the box.
        bitmap: (H, W) the pixels that it has in the picture.
    """

    label: int
    box: tuple[int, int, int, int]
    angle: float
    bitmap: npt.NDArray[np.bool_]

    def polygon(self) -> list[int]:
        """Return the outline of a square or a triangle, x and y in turns, cut to whole numbers as the platform does."""
        x, y, w, h = self.box
        corners: list[tuple[float, float]] = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
        if CLASS_NAMES[self.label] == "дельта":
            corners = [(x + w / 2, y), (x + w, y + h), (x, y + h)]
        return [int(number) for corner in corners for number in _turn(corner, self.box, self.angle)]


@dataclass(frozen=True)
class SampleScene:
    """A picture, (H, W, 3) RGB, and what is in it."""

    image: Image
    objects: tuple[SampleObject, ...]


def draw_scenes(seed: int, count: int, *, rotated: bool) -> list[SampleScene]:
    """Draw `count` pictures; the last one has no objects."""
    rng = np.random.default_rng(seed)
    return [_draw(rng, rotated, empty=number == count - 1) for number in range(count)]


def _draw(rng: np.random.Generator, rotated: bool, *, empty: bool) -> SampleScene:
    coarse = rng.integers(90, 150, (6, 8, 3)).astype(np.uint8)
    image = imaging.resize(coarse, WIDTH, HEIGHT, "bilinear").copy()
    cells = list(itertools.product(range(_CELLS), range(_CELLS)))
    chosen = [] if empty else [cells[place] for place in rng.permutation(len(cells))[: int(rng.integers(2, 5))]]
    objects = tuple(_object(rng, cell, rotated) for cell in chosen)
    for item in objects:
        image[item.bitmap] = _COLOURS[item.label]
    return SampleScene(image, objects)


def _object(rng: np.random.Generator, cell: tuple[int, int], rotated: bool) -> SampleObject:
    width, height = WIDTH // _CELLS, HEIGHT // _CELLS
    w, h = (int(side) for side in rng.integers(_SHORTEST, (_LONGEST, _LONGEST // 2 + 8)))
    x, y = cell[0] * width + (width - w) // 2, cell[1] * height + (height - h) // 2
    # float32, printed in full: the platform stores angles so.
    angle = float(np.float32(rng.uniform(-math.pi, math.pi))) if rotated else 0.0
    label = int(rng.integers(len(CLASS_NAMES) - 1))
    box = (x, y, w, h)
    return SampleObject(label, box, angle, _bitmap(label, box, angle))


def _bitmap(label: int, box: tuple[int, int, int, int], angle: float) -> npt.NDArray[np.bool_]:
    """Return which pixels have their centre inside the object."""
    x, y, w, h = box
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    dx, dy = columns - (x + w / 2), rows - (y + h / 2)
    across = (math.cos(angle) * dx + math.sin(angle) * dy) / (w / 2)  # -1 to 1 inside the box
    down = (-math.sin(angle) * dx + math.cos(angle) * dy) / (h / 2)
    inside = (abs(across) <= 1) & (abs(down) <= 1)
    if CLASS_NAMES[label] == "circle":
        inside &= across**2 + down**2 <= 1
    elif CLASS_NAMES[label] == "дельта":
        inside &= abs(across) <= (down + 1) / 2
    return np.asarray(inside)


def _turn(point: tuple[float, float], box: tuple[int, int, int, int], angle: float) -> tuple[float, float]:
    """Turn a point about the centre of a box, clockwise on the screen."""
    x, y, w, h = box
    dx, dy = point[0] - (x + w / 2), point[1] - (y + h / 2)
    cos, sin = math.cos(angle), math.sin(angle)
    return x + w / 2 + cos * dx - sin * dy, y + h / 2 + sin * dx + cos * dy
