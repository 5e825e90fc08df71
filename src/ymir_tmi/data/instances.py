"""Masks of objects: what an index must have so that a model can learn them."""

from __future__ import annotations

import dataclasses
import json
import warnings

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import DatasetIndex, Strings
from ymir_tmi.data.rotated import as_upright
from ymir_tmi.data.segments import find_empty, image_blocks, image_outlines, segment_texts
from ymir_tmi.errors import DataError
from ymir_tmi.geometry import outlines as corners


def as_instances(index: DatasetIndex) -> DatasetIndex:
    """Return an index in which every object has a mask and an upright box.

    A rotated box without a polygon is the outline of its object. An object without a mask, or with an empty one, has
    its box for one; a warning says how many these are.

    Raises:
        DataError: no object has a mask, or a mask is wrong.
    """
    if index.rotated is not None:
        index = as_upright(_with_polygons(index, lacks_mask(index), corners.outlines(index.rotated)))
    if not len(index.boxes):
        return index
    if index.segments is None:
        raise DataError(
            "these annotations have boxes, but no masks to learn",
            fix="Give polygons or masks (docs/data.md), or train a model that finds boxes.",
        )
    lacking = lacks_mask(index)
    if lacking.any():
        what = f"{lacking.sum():,} of {len(lacking):,} objects have no mask; their boxes are taken for it"
        warnings.warn(what, stacklevel=2)
    return _with_polygons(index, lacking, corners.outlines(index.boxes))


def lacks_mask(index: DatasetIndex) -> npt.NDArray[np.bool_]:
    """Return (M,) which annotations have no mask, or one that no part of the picture belongs to.

    Raises:
        DataError: a mask is wrong.
    """
    if index.segments is None:
        return np.ones(len(index.boxes), np.bool_)
    empty = np.zeros(len(index.boxes), np.bool_)
    for images, rows in image_blocks(index):
        sizes = np.repeat(index.sizes[images], np.diff(index.starts)[images], axis=0)
        try:
            empty[rows] = find_empty(segment_texts(index, rows), sizes)
        except ValueError:
            for image in range(images.start, images.stop):
                image_outlines(index, image)  # says which one it is
            raise
    return empty


def _with_polygons(index: DatasetIndex, rows: npt.NDArray[np.bool_], corners: npt.NDArray[np.float64]) -> DatasetIndex:
    """Return the index in which the corners (M, p, 2) are the segmentations of the annotations where `rows` is true."""
    if not rows.any():
        return index
    polygons = corners[rows].reshape(rows.sum(), -1).round(4).tolist()
    new = Strings.pack(json.dumps([polygon]) for polygon in polygons)
    old = index.segments or Strings.pack([""] * len(rows))
    order = np.arange(len(rows))
    order[rows] = len(rows) + np.arange(len(new))
    return dataclasses.replace(index, segments=Strings.concatenate([old, new]).take(order))
