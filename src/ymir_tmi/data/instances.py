"""Masks of objects: what an index must have so that a model can learn them."""

from __future__ import annotations

import dataclasses
import json
import warnings

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import DatasetIndex, Strings
from ymir_tmi.data.rotated import as_upright
from ymir_tmi.data.segments import all_outlines
from ymir_tmi.errors import DataError
from ymir_tmi.geometry import outlines as corners


def as_instances(index: DatasetIndex) -> DatasetIndex:
    """Return an index in which every object has a mask and an upright box.

    A rotated box without a polygon is the outline of its object. An object without a mask, or with an empty one, has
    its box for one; a warning says how many these are.

    Raises:
        DataError: no object has a mask, or a mask is wrong.
    """
    segments = index.segments
    if segments is None and index.rotated is not None:
        segments = as_polygons(corners.outlines(index.rotated))
    index = as_upright(dataclasses.replace(index, segments=segments))
    if not len(index.boxes):
        return index
    if index.segments is None:
        raise DataError(
            "these annotations have boxes, but no masks to learn",
            fix="Give polygons or masks (docs/data.md), or train a model that finds boxes.",
        )
    return _with_boxes_as_masks(index, lacks_mask(index))


def lacks_mask(index: DatasetIndex) -> npt.NDArray[np.bool_]:
    """Return (M,) which annotations have no mask, or one that no part of the picture belongs to.

    Raises:
        DataError: a mask is wrong.
    """
    if index.segments is None:
        return np.ones(len(index.boxes), np.bool_)
    empty = np.zeros(len(index.boxes), np.bool_)
    for rows, outlines in all_outlines(index):
        hulls = outlines.hulls()
        empty[rows] = (hulls[:, 2:] <= hulls[:, :2]).any(axis=1)
    return empty


def as_polygons(corners: npt.NDArray[np.float64]) -> Strings:
    """Return (M, p, 2) corners as a column of COCO segmentations, to 1/10000 pixel."""
    return Strings.pack(json.dumps([polygon]) for polygon in corners.reshape(len(corners), -1).round(4).tolist())


def _with_boxes_as_masks(index: DatasetIndex, rows: npt.NDArray[np.bool_]) -> DatasetIndex:
    assert index.segments is not None
    if not rows.any():
        return index
    warnings.warn(f"{rows.sum():,} of {len(rows):,} objects have no mask; their boxes are taken for it", stacklevel=4)
    new = as_polygons(corners.outlines(index.boxes[rows]))
    order = np.arange(len(rows))
    order[rows] = len(rows) + np.arange(rows.sum())
    return dataclasses.replace(index, segments=Strings.concatenate([index.segments, new]).take(order))
