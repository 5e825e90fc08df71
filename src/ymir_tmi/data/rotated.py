"""Rotated boxes as columns of an index, and from one kind of box to the other.

Arithmetic is in float64: corners and angles lose nothing on their way through a file but what the file rounds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ymir_tmi import imaging
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.repair import FARTHEST, repair_boxes
from ymir_tmi.errors import DataError
from ymir_tmi.geometry import rotated as geometry

Doubles = npt.NDArray[np.float64]

_AT_ONCE = 1 << 16  # polygons


def rotated_columns(boxes: npt.NDArray[Any]) -> dict[str, Any]:
    """Return the columns `rotated`, `boxes` and `areas` of (M, 5) rotated boxes in any form."""
    exact = geometry.regularize(torch.from_numpy(np.asarray(boxes, np.float64).reshape(-1, 5)))
    columns = {"rotated": exact, "boxes": geometry.hulls(exact), "areas": exact[:, 2] * exact[:, 3]}
    return {name: column.numpy().astype(np.float32) for name, column in columns.items()}


def box_columns(boxes: Doubles, angles: Doubles | None) -> dict[str, Any]:
    """Return the columns `boxes`, `areas` and, where there are angles, `rotated`.

    Args:
        boxes: (M, 4) x1, y1, x2, y2.
        angles: (M,) by how many radians each is turned about its centre, clockwise on the screen; None is no rotation.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    if angles is not None:
        return rotated_columns(np.column_stack([(boxes[:, :2] + boxes[:, 2:]) / 2, sides, angles]))
    return {"boxes": boxes.astype(np.float32), "areas": sides.prod(axis=1).astype(np.float32)}


def rectangles(corners: npt.NDArray[Any]) -> Doubles:
    """Return (M, 5) the smallest rotated boxes around (M, 4, 2) corners in any order."""
    parts = torch.split(torch.from_numpy(np.asarray(corners, np.float64).reshape(-1, 4, 2)), _AT_ONCE)
    boxes: Doubles = torch.cat([geometry.from_corners(part) for part in parts]).numpy()
    return boxes


def upright_rectangles(boxes: npt.NDArray[Any]) -> Doubles:
    """Return (M, 5) rotated boxes that are the (M, 4) upright ones, x1, y1, x2, y2."""
    rotated: Doubles = geometry.from_upright(torch.from_numpy(np.asarray(boxes, np.float64).reshape(-1, 4))).numpy()
    return rotated


def as_rotated(index: DatasetIndex) -> DatasetIndex:
    """Return an index with rotated boxes; those of one that has them stay as they are.

    An annotation with polygons becomes the smallest rectangle around them, any other one its upright box. Polygons are
    not kept. Boxes without area are dropped.

    Raises:
        DataError: a polygon is not a list of finite numbers, x and y in turns.
    """
    if index.rotated is not None:
        return index if index.segments is None else dataclasses.replace(index, segments=None)
    boxes = upright_rectangles(index.boxes)
    if index.segments is not None:
        polygons = {row: points for row in range(len(boxes)) if (points := _points(index, row)) is not None}
        four = [row for row, points in polygons.items() if len(points) == 4]
        boxes[four] = rectangles(np.array([polygons[row] for row in four]))
        for row in polygons.keys() - set(four):
            boxes[row] = imaging.smallest_rectangle(polygons[row])
    return repair_boxes(dataclasses.replace(index, segments=None, **rotated_columns(boxes)))


def as_upright(index: DatasetIndex) -> DatasetIndex:
    """Return an index with the upright boxes around rotated ones, cut where the size of their picture is known."""
    if index.rotated is None:
        return index
    areas = (index.boxes[:, 2:] - index.boxes[:, :2]).prod(axis=1)
    return repair_boxes(dataclasses.replace(index, rotated=None, areas=areas))


def note_on_kind(index: DatasetIndex, *, rotated: bool) -> str | None:
    """Return what a user must know where annotations are not of the kind that a model finds; None if they are.

    Args:
        index: the annotations as they were read. Polygons are as good as rotated boxes.
        rotated: whether the model finds rotated boxes.
    """
    if rotated and index.rotated is None and index.segments is None:
        return "the annotations are upright boxes, so there are no angles in them"
    if not rotated and index.rotated is not None:
        return "the annotations are rotated boxes, in place of which the upright boxes around them count"
    return None


def of_one_kind(indexes: Iterable[DatasetIndex]) -> list[DatasetIndex]:
    """Return indexes that all have rotated boxes where one of them has, since an upright box is a rotated one too."""
    indexes = list(indexes)
    rotated = any(index.rotated is not None for index in indexes)
    return [index if index.rotated is not None or not rotated else as_rotated(index) for index in indexes]


def _points(index: DatasetIndex, row: int) -> Doubles | None:
    """Return (n, 2) the points of all polygons of an annotation, or None if it has fewer than three."""
    assert index.segments is not None
    segment = json.loads(index.segments[row] or "[]")
    if not segment or isinstance(segment, dict):  # a dict is a run-length encoded mask
        return None
    try:
        points = np.concatenate([np.array(polygon, np.float64).reshape(-1, 2) for polygon in segment])
        if not (abs(points) < FARTHEST).all():  # false of NaN, too
            raise ValueError
    except (TypeError, ValueError):
        image = int(np.searchsorted(index.starts, row, side="right")) - 1
        raise DataError(
            f"a polygon of this picture is not a list of numbers, x and y in turns: {index.segments[row][:80]}",
            where=index.paths[image],
        ) from None
    return points if len(points) >= 3 else None
