"""Masks of objects as COCO's run lengths: no bitmap of a whole picture is kept for each object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import mask as coco_mask

Bitmaps = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Masks:
    """The masks of n objects of one picture.

    Attributes:
        size: (width, height) of the picture in pixels.
        counts: COCO's compressed run lengths of each mask.
    """

    size: tuple[int, int]
    counts: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, rows: Any) -> Masks:
        """Return the chosen masks (a slice, a mask or row numbers)."""
        return Masks(self.size, tuple(self.counts[row] for row in np.arange(len(self))[rows]))

    @classmethod
    def encode(cls, bitmaps: npt.NDArray[Any]) -> Masks:
        """Return the masks of (n, h, w) bitmaps."""
        columns = np.asfortranarray(bitmaps.astype(np.uint8, copy=False).transpose(1, 2, 0))
        entries = coco_mask.encode(columns) if len(bitmaps) else []
        return cls((bitmaps.shape[2], bitmaps.shape[1]), tuple(entry["counts"] for entry in entries))

    @classmethod
    def from_run_lengths(cls, lengths: Sequence[Sequence[int]], size: tuple[int, int]) -> Masks:
        """Return the masks of runs outside and inside, in turns, column by column."""
        width, height = size
        entries = [
            coco_mask.frPyObjects({"size": [height, width], "counts": list(one)}, height, width) for one in lengths
        ]
        return cls(size, tuple(entry["counts"] for entry in entries))

    @classmethod
    def from_polygons(cls, objects: Sequence[Sequence[Sequence[float]]], size: tuple[int, int]) -> Masks:
        """Return the masks of objects that are given by polygons [x1, y1, x2, y2, ...]; those of one object are joined.

        A pixel belongs to a polygon by COCO's own rule of drawing.
        """
        width, height = size
        joined = [coco_mask.merge(coco_mask.frPyObjects(list(parts), height, width)) for parts in objects]
        return cls(size, tuple(entry["counts"] for entry in joined))

    @classmethod
    def concatenate(cls, parts: Sequence[Masks]) -> Masks:
        """Return the masks of several lists for one picture, in order."""
        assert len({part.size for part in parts}) == 1
        return cls(parts[0].size, tuple(counts for part in parts for counts in part.counts))

    def decode(self) -> Bitmaps:
        """Return (n, h, w) bitmaps."""
        if not self.counts:
            return np.zeros((0, self.size[1], self.size[0]), np.bool_)
        bitmaps: Bitmaps = coco_mask.decode(self.entries()).transpose(2, 0, 1).astype(np.bool_)
        return bitmaps

    def areas(self) -> npt.NDArray[np.int64]:
        """Return (n,) the pixels of each mask."""
        return np.asarray(coco_mask.area(self.entries()) if self.counts else [], np.int64)

    def hulls(self) -> npt.NDArray[np.float32]:
        """Return (n, 4) the smallest upright boxes around the masks, xyxy; zeros for a mask without pixels."""
        boxes = np.asarray(coco_mask.toBbox(self.entries()) if self.counts else [], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    def iou(self, others: Masks) -> npt.NDArray[np.float64]:
        """Return (n, m) the overlaps of the masks with those of `others`; 0 where both have no pixels."""
        if not self.counts or not others.counts:
            return np.zeros((len(self), len(others)))
        crowds = np.zeros(len(others), np.uint8)
        return np.nan_to_num(np.asarray(coco_mask.iou(self.entries(), others.entries(), crowds), np.float64))

    def entries(self) -> list[dict[str, Any]]:
        """Return what COCO calls a compressed run-length encoding, one for each mask."""
        width, height = self.size
        return [{"size": [height, width], "counts": counts} for counts in self.counts]
