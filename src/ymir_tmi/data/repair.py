"""Boxes that reach out of their picture, or have no size."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import DatasetIndex

Column = npt.NDArray[np.float32]


def overshoot(index: DatasetIndex) -> Column:
    """Return (M,) by how many pixels each box reaches out of its picture; 0 for most.

    Where the size of a picture is unknown, only its left and upper edges count.
    """
    beyond = np.zeros(len(index.boxes), np.float32)
    for low, high, limit in _sides(index, index.boxes):
        np.maximum(beyond, np.maximum(-low, high - limit), out=beyond)
    return beyond


def is_empty(index: DatasetIndex) -> npt.NDArray[np.bool_]:
    """Return (M,) whether a box has no width or no height."""
    boxes = index.boxes
    return (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])


def repair_boxes(index: DatasetIndex) -> DatasetIndex:
    """Clip boxes to their pictures, then drop those that have no width or no height.

    An object's area is at most that of its clipped box. Where the size of a picture is unknown, boxes are clipped at
    its left and upper edges only.
    """
    boxes = index.boxes.copy()
    for low, high, limit in _sides(index, boxes):
        np.clip(low, 0, limit, out=low)
        np.clip(high, 0, limit, out=high)
    areas = np.minimum(index.areas, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    index = dataclasses.replace(index, boxes=boxes, areas=areas)
    empty = is_empty(index)
    return index.keep_annotations(~empty) if empty.any() else index


def _sides(index: DatasetIndex, boxes: npt.NDArray[np.float32]) -> Iterator[tuple[Column, Column, Column]]:
    """Yield the lower and the upper coordinates of the boxes and the size of their pictures, for x, then for y."""
    sizes = np.where(index.sizes > 0, index.sizes, np.inf).astype(np.float32)
    counts = np.diff(index.starts)
    for axis in range(2):
        yield boxes[:, axis], boxes[:, axis + 2], np.repeat(sizes[:, axis], counts)
