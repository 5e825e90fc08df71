"""The masks of a data set's objects, to compare those of detections with: run lengths, never bitmaps of all objects."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.errors import DataError, ImageError
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.imaging import image_size

Size = tuple[int, int]
Counts = npt.NDArray[np.object_]
"""COCO's compressed run lengths, as bytes, of a column of masks."""

_FEWEST_NUMBERS = 6  # of a polygon: three corners


@dataclass(frozen=True)
class ObjectMasks:
    """The masks of all objects of a data set.

    Attributes:
        sizes: (N, 2) int64, (width, height) of each picture.
        counts: (M,) run lengths, those of an object without a mask are of its box.
        boxes: how many objects have no mask.
    """

    sizes: npt.NDArray[np.int64]
    counts: Counts
    boxes: int

    def of(self, image: int, rows: slice) -> Masks:
        """Return the masks of the objects of one image, which are the given rows."""
        return Masks(self.size(image), tuple(self.counts[rows]))

    def size(self, image: int) -> tuple[int, int]:
        """Return (width, height) of one picture."""
        width, height = self.sizes[image].tolist()
        return width, height


def object_masks(index: DatasetIndex) -> ObjectMasks:
    """Return the masks of a data set with segmentations.

    Raises:
        DataError: a segmentation is not one of COCO's, or is that of a picture of another size.
    """
    sizes = [_size(index, image) for image in range(len(index))]
    counts: list[bytes] = []
    boxes = 0
    for image, size in enumerate(sizes):
        for box, mask in zip(index.boxes[index.rows(image)].tolist(), _masks(index, image, size), strict=True):
            boxes += mask is None
            counts.append(mask or _of_box(box, size))
    return ObjectMasks(np.array(sizes, np.int64).reshape(-1, 2), as_column(counts), boxes)


def as_column(counts: list[bytes]) -> Counts:
    """Return run lengths as a column that can be indexed like any other."""
    column = np.empty(len(counts), np.object_)
    column[:] = counts
    return column


def _size(index: DatasetIndex, image: int) -> Size:
    """Return the size of a picture; where it is not stated and the file is gone, one that holds all of its objects."""
    try:
        return index.size(image) or image_size(index.paths[image])
    except ImageError:
        x, y = index.boxes[index.rows(image), 2:].max(axis=0, initial=1).tolist()
        return math.ceil(x), math.ceil(y)


def _masks(index: DatasetIndex, image: int, size: Size) -> list[bytes | None]:
    """Return the run lengths of each object of an image, None where it has no mask."""
    rows = range(*index.rows(image).indices(len(index.boxes)))
    texts = [index.segments[row] if index.segments is not None else "" for row in rows]
    segments: list[Any] = [json.loads(text) if text else None for text in texts]
    stated = [_is_compressed(segment, size) for segment in segments]
    try:  # all at once takes a tenth of the time
        known = iter(Masks.parse([each["counts"] for each in compress(segments, stated)], size).counts)
    except ValueError as error:
        raise DataError(f"an object of this picture has no sound mask: {error}", where=index.paths[image]) from None
    return [
        next(known) if is_stated else _segment(segment, size, index.paths[image])
        for segment, is_stated in zip(segments, stated, strict=True)
    ]


def _is_compressed(segment: Any, size: Size) -> bool:
    width, height = size
    return (
        isinstance(segment, dict) and segment.get("size") == [height, width] and isinstance(segment.get("counts"), str)
    )


def _segment(segment: Any, size: Size, path: str) -> bytes | None:
    """Return the run lengths of polygons or uncompressed ones, or None where there is no mask."""
    if not segment or (isinstance(segment, list) and not any(map(_is_polygon, segment))):
        return None
    try:
        return Masks.from_segmentation(segment, size).counts[0]
    except (TypeError, ValueError) as error:
        text = json.dumps(segment)[:80]
        raise DataError(f"an object of this picture has no sound mask: {error}: {text}", where=path) from None


def _is_polygon(points: object) -> bool:
    return not isinstance(points, list) or len(points) >= _FEWEST_NUMBERS


def _of_box(box: list[float], size: Size) -> bytes:
    x1, y1, x2, y2 = box
    return Masks.from_polygons([[[x1, y1, x2, y1, x2, y2, x1, y2]]], size).counts[0]
