"""The masks of a data set's objects, to compare those of detections with: run lengths, never bitmaps of all objects."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.instances import lacks_mask
from ymir_tmi.data.segments import segment_texts, wrong_mask
from ymir_tmi.errors import ImageError
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.imaging import image_size

Size = tuple[int, int]
Counts = npt.NDArray[np.object_]
"""COCO's compressed run lengths, as bytes, of a column of masks."""


@dataclass(frozen=True)
class ObjectMasks:
    """The masks of all objects of a data set.

    Attributes:
        sizes: (N, 2) int64, (width, height) of each picture.
        counts: (M,) run lengths, those of an object without a mask, or with an empty one, are of its box.
        boxes: how many objects have no mask, or an empty one.
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
    sizes = np.array([_size(index, image) for image in range(len(index))], np.int64).reshape(-1, 2)
    index = dataclasses.replace(index, sizes=sizes.astype(np.int32))
    lacking = lacks_mask(index)  # as in training
    counts = [one for image in range(len(index)) for one in _counts(index, image, lacking)]
    return ObjectMasks(sizes, as_column(counts), int(lacking.sum()))


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


def _counts(index: DatasetIndex, image: int, lacking: npt.NDArray[np.bool_]) -> list[bytes]:
    """Return the run lengths of each object of an image, of those where `lacking` is true the ones of their boxes."""
    rows = index.rows(image)
    texts = segment_texts(index, rows) if index.segments is not None else [""] * (rows.stop - rows.start)
    segments: list[Any] = [
        [_corners(box)] if lacks else json.loads(text)
        for text, lacks, box in zip(texts, lacking[rows], index.boxes[rows].tolist(), strict=True)
    ]
    width, height = index.sizes[image].tolist()
    counts = []
    for row, segment in zip(range(rows.start, rows.stop), segments, strict=True):
        if isinstance(segment, dict) and isinstance(segment["counts"], str):
            counts.append(segment["counts"].encode())  # `lacks_mask` has read it
            continue
        try:
            counts.append(Masks.from_segmentation(segment, (width, height)).counts[0])
        except ValueError as error:  # what an outline can be, and a mask of pixels cannot
            raise wrong_mask(index, row, str(error)) from None
    return counts


def _corners(box: list[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2]
