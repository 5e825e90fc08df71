"""The changed copies of an image that CALD looks at: mirrored, partly covered, turned, and smaller.

Source: docs/specs/mining.md, section 4 (the paper's copies) and 4.2 (those of earlier implementations, `Port...`).
Boxes are (n, 4) xyxy, and pixel i covers [i, i + 1), or (n, 5) rotated boxes, see `geometry.rotated`; the copies of
earlier implementations know upright ones alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ymir_tmi import imaging
from ymir_tmi.geometry import rotated
from ymir_tmi.geometry.outlines import bounds, outlines, upright
from ymir_tmi.imaging import Image
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import View

Boxes = npt.NDArray[np.float32]
Size = tuple[int, int]

DEGREES = 5.0
RATIO = 0.8
_FILL = 0
_ATTEMPTS = 50
_HOLES = 2


class Flip(View):
    """Mirrors left and right."""

    name = "flip"

    def apply(self, image: Image, plain: Detections, seed: int) -> Image:
        """Return the mirrored image."""
        return imaging.flip_horizontal(image)

    def map_boxes(self, boxes: Boxes, size: Size) -> Boxes:
        """Mirror the boxes."""
        if boxes.shape[1] == 5:
            mirrored = boxes * np.array([-1, 1, 1, 1, -1]) + np.array([size[0], 0, 0, 0, 0])
            return _as_boxes(rotated.regularize(torch.from_numpy(mirrored)))
        return np.stack([size[0] - boxes[:, 2], boxes[:, 1], size[0] - boxes[:, 0], boxes[:, 3]], axis=1)


class Cutout(View):
    """Blackens up to two rectangles, each of which covers 10 to 40 % of some box and more of none.

    Args:
        boxes_of: returns the boxes of the plain image that count; of rotated ones, the upright boxes around them do.
    """

    name = "cutout"

    def __init__(self, boxes_of: Callable[[Detections], npt.NDArray[Any]]) -> None:
        self._boxes_of = boxes_of

    def apply(self, image: Image, plain: Detections, seed: int) -> Image:
        """Return a copy with holes; without boxes there are none."""
        covered = image.copy()
        height, width = image.shape[:2]
        for x1, y1, x2, y2 in choose_holes(upright(self._boxes_of(plain)), (width, height), seed):
            covered[y1:y2, x1:x2] = _FILL
        return covered

    def map_boxes(self, boxes: Boxes, size: Size) -> Boxes:
        """Return the boxes as they are."""
        return boxes


def choose_holes(boxes: npt.NDArray[Any], size: Size, seed: int) -> npt.NDArray[np.int64]:
    """Return (at most 2, 4) whole-numbered rectangles to cut out, from the first 50 that are drawn.

    Args:
        boxes: (n, 4) boxes that they must partly cover.
        size: (width, height) of the image.
        seed: of the standard library's generator; per rectangle it draws height, width, left and top.
    """
    width, height = size
    if not len(boxes):
        return np.zeros((0, 4), np.int64)
    uniform = random.Random(seed).uniform
    drawn = []
    for _ in range(_ATTEMPTS):
        h, w = uniform(0.05 * height, 0.2 * height), uniform(0.05 * width, 0.2 * width)
        left, top = uniform(0, width - w), uniform(0, height - h)
        drawn.append((left, top, left + w, top + h))
    holes = np.array(drawn)
    corners = np.maximum(holes[:, None, :2], boxes[:, :2]), np.minimum(holes[:, None, 2:], boxes[:, 2:])
    areas = np.prod(boxes[:, 2:].astype(np.float64) - boxes[:, :2], axis=1)
    covered = (np.prod(np.clip(corners[1] - corners[0], 0, None), axis=2) / (areas + 1e-14)).max(1)
    accepted: npt.NDArray[np.int64] = holes[(covered >= 0.1) & (covered <= 0.4)][:_HOLES].astype(np.int64)
    return accepted


class Rotate(View):
    """Turns by 5 degrees on a canvas that keeps the corners, shrunk to the size of the image."""

    name = "rotate"

    def apply(self, image: Image, plain: Detections, seed: int) -> Image:
        """Return the turned image, of the same size."""
        height, width = image.shape[:2]
        matrix = rotation((width, height))
        # OpenCV counts from pixel centres, boxes from pixel edges: half a pixel apart.
        matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5
        return imaging.warp_affine(image, matrix, width, height, fill=_FILL)

    def map_boxes(self, boxes: Boxes, size: Size) -> Boxes:
        """Return the upright boxes around the turned ones, cut to the image, or the rotated boxes around them."""
        if boxes.shape[1] == 5:
            return rotated_after(rotation(size), boxes)
        hulls = hull_after(rotation(size), boxes)
        return np.clip(hulls, 0, np.array([*size, *size])).astype(np.float32)


class Shrink(View):
    """Shrinks to 0.8 in the upper left corner of a black canvas of the same size.

    The canvas keeps its size because a network enlarges a smaller picture to its own input again.
    """

    name = "resize"

    def apply(self, image: Image, plain: Detections, seed: int) -> Image:
        """Return the canvas."""
        height, width = image.shape[:2]
        small = imaging.resize(image, *_shrunk((width, height)), "bilinear")
        canvas = np.full_like(image, _FILL)
        canvas[: small.shape[0], : small.shape[1]] = small
        return canvas

    def map_boxes(self, boxes: Boxes, size: Size) -> Boxes:
        """Return the shrunk boxes."""
        width, height = _shrunk(size)
        if boxes.shape[1] == 5:
            return rotated_after(np.array([[width / size[0], 0, 0], [0, height / size[1], 0]]), boxes)
        return boxes * np.array([width / size[0], height / size[1]] * 2, np.float32)


class PortRotate(View):
    """As earlier implementations turned: the corners are lost, a portrait shrinks, and boxes become whole numbers."""

    name = "rotate"

    def apply(self, image: Image, plain: Detections, seed: int) -> Image:
        """Return the turned image, of the same size."""
        height, width = image.shape[:2]
        return imaging.warp_affine(image, port_rotation((width, height)), width, height, fill=_FILL)

    def map_boxes(self, boxes: Boxes, size: Size) -> Boxes:
        """Return the upright boxes around the turned ones, truncated, not cut."""
        return np.trunc(hull_after(port_rotation(size), boxes)).astype(np.float32)


class PortShrink(Shrink):
    """As earlier implementations mapped boxes: by 0.8 whatever the rounded size.

    Args:
        truncate: whether they become whole numbers.
    """

    def __init__(self, *, truncate: bool) -> None:
        self._truncate = truncate

    def map_boxes(self, boxes: Boxes, size: Size) -> Boxes:
        """Return the shrunk boxes."""
        mapped = boxes.astype(np.float64) * RATIO
        return (np.trunc(mapped) if self._truncate else mapped).astype(np.float32)


def rotation(size: Size) -> npt.NDArray[np.float64]:
    """Return the (2, 3) matrix of `Rotate`, from pixel edges to pixel edges."""
    width, height = size
    sine, cosine = math.sin(math.radians(DEGREES)), math.cos(math.radians(DEGREES))
    across, down = width / (width * cosine + height * sine), height / (width * sine + height * cosine)
    turn = np.array([[across * cosine, across * sine], [-down * sine, down * cosine]])
    return _about_centre(turn, size)


def port_rotation(size: Size) -> npt.NDArray[np.float64]:
    """Return the (2, 3) matrix of `PortRotate`: the scale is width / longer side."""
    sine, cosine = math.sin(math.radians(DEGREES)), math.cos(math.radians(DEGREES))
    return _about_centre(size[0] / max(size) * np.array([[cosine, sine], [-sine, cosine]]), size)


def hull_after(matrix: npt.NDArray[np.float64], boxes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return (n, 4) the smallest upright boxes around (n, 4) boxes that a (2, 3) matrix has moved."""
    return bounds(outlines(boxes) @ matrix[:, :2].T + matrix[:, 2])


def rotated_after(matrix: npt.NDArray[np.float64], boxes: npt.NDArray[Any]) -> Boxes:
    """Return (n, 5) the smallest rotated boxes around (n, 5) boxes that a (2, 3) matrix has moved.

    A matrix that stretches width and height differently makes parallelograms of them.
    """
    moved = outlines(boxes) @ matrix[:, :2].T + matrix[:, 2]
    return _as_boxes(rotated.from_corners(torch.from_numpy(moved)))


def _as_boxes(boxes: Tensor) -> Boxes:
    mapped: Boxes = boxes.numpy().astype(np.float32)
    return mapped


def _about_centre(turn: npt.NDArray[np.float64], size: Size) -> npt.NDArray[np.float64]:
    centre = np.array(size) / 2
    return np.column_stack([turn, centre - turn @ centre])


def _shrunk(size: Size) -> Size:
    return max(1, int(RATIO * size[0])), max(1, int(RATIO * size[1]))
