"""Boxes that reach out of their picture, or have no size."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import DatasetIndex

FARTHEST = 1e7
"""In pixels: no picture reaches as far, and float32 does not tell pixels beyond apart."""
_THINNEST = 1e-3  # pixels: four corners on one line are apart by the rounding of a file

Column = npt.NDArray[np.float32]


def overshoot(index: DatasetIndex) -> Column:
    """Return (M,) by how many pixels each box reaches out of its picture; 0 for most.

    Where the size of a picture is unknown, only its left and upper edges count.
    """
    beyond = np.zeros(len(index.boxes), np.float32)
    for low, high, limit in _sides(index, index.boxes):
        np.maximum(beyond, np.maximum(-low, high - limit), out=beyond)
    return beyond


def centre_is_outside(index: DatasetIndex) -> npt.NDArray[np.bool_]:
    """Return (M,) whether the centre of a box is outside of its picture, so far as the size of that is known."""
    outside = np.zeros(len(index.boxes), np.bool_)
    for low, high, limit in _sides(index, index.boxes):
        outside |= (low + high < 0) | (low + high > 2 * limit)
    return outside


def is_empty(index: DatasetIndex) -> npt.NDArray[np.bool_]:
    """Return (M,) whether a box has no width or no height."""
    if index.rotated is not None:
        w, h = index.rotated[:, 2], index.rotated[:, 3]
        return (w < _THINNEST) | (h < _THINNEST)
    boxes = index.boxes
    return (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])


def repair_boxes(index: DatasetIndex) -> DatasetIndex:
    """Clip boxes to their pictures, then drop those that have no width or no height. Rotated boxes are not clipped.

    An object's area is at most that of its clipped box. Where the size of a picture is unknown, boxes are clipped at
    its left and upper edges only.
    """
    return _drop_empty(index if index.rotated is not None else _clip(index))


def _clip(index: DatasetIndex) -> DatasetIndex:
    boxes = index.boxes.copy()
    for low, high, limit in _sides(index, boxes):
        np.clip(low, 0, limit, out=low)
        np.clip(high, 0, limit, out=high)
    areas = np.minimum(index.areas, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    return dataclasses.replace(index, boxes=boxes, areas=areas)


def _drop_empty(index: DatasetIndex) -> DatasetIndex:
    empty = is_empty(index)
    return index.keep_annotations(~empty) if empty.any() else index


def _sides(index: DatasetIndex, boxes: npt.NDArray[np.float32]) -> Iterator[tuple[Column, Column, Column]]:
    """Yield the lower and the upper coordinates of the boxes and the size of their pictures, for x, then for y."""
    sizes = np.where(index.sizes > 0, index.sizes, np.inf).astype(np.float32)
    counts = np.diff(index.starts)
    for axis in range(2):
        yield boxes[:, axis], boxes[:, axis + 2], np.repeat(sizes[:, axis], counts)
