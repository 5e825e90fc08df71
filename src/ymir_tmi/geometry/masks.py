"""Masks of objects as COCO's run lengths: no bitmap of a whole picture is kept for each object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import mask as coco_mask

from ymir_tmi.geometry.runs import unpack

Bitmaps = npt.NDArray[np.bool_]
Window = tuple[int, int, Bitmaps]

_FARTHEST = 1 << 20  # pixels; the memory that drawing a polygon takes grows with its sides


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
    def of_labels(cls, label_map: npt.NDArray[np.integer[Any]], labels: Sequence[int]) -> Masks:
        """Return the masks of the pixels of an (h, w) label map that have each of the labels."""
        columns = np.asfortranarray(label_map)  # so that each bitmap is in the order in which COCO reads it
        height, width = label_map.shape
        counts = (cls.encode((columns == label)[None]).counts[0] for label in labels)  # one bitmap at a time
        return cls((width, height), tuple(counts))

    @classmethod
    def from_windows(cls, windows: Iterable[Window], size: tuple[int, int]) -> Masks:
        """Return the masks of objects of each of which a part of the picture is given, outside of which it is not.

        Args:
            windows: x and y of the upper left corner, and the (h, w) bitmap from there on, inside the picture.
            size: (width, height) of the picture in pixels.
        """
        width, height = size
        runs = [{"size": [height, width], "counts": _run_lengths(window, size)} for window in windows]
        entries = coco_mask.frPyObjects(runs, height, width) if runs else []
        return cls(size, tuple(entry["counts"] for entry in entries))

    @classmethod
    def from_polygons(cls, objects: Sequence[Sequence[Sequence[float]]], size: tuple[int, int]) -> Masks:
        """Return the masks of objects that are given by polygons [x1, y1, x2, y2, ...]; those of one object are joined.

        A pixel belongs to a polygon by COCO's own rule of drawing.
        """
        return cls(size, tuple(_drawn(parts, size) for parts in objects))

    @classmethod
    def from_segmentation(cls, value: Any, size: tuple[int, int]) -> Masks:
        """Return the mask of one object from what COCO calls its `segmentation`: polygons, or run lengths of any kind.

        Polygons with fewer than three corners have no pixels.

        Raises:
            ValueError: it is neither, or the run lengths are those of another size.
        """
        if isinstance(value, dict):
            return cls(size, (_compressed(value, size),))
        polygons = [np.array(polygon, np.float64) for polygon in value]
        for polygon in polygons:
            if polygon.ndim != 1 or len(polygon) % 2 or not (np.abs(polygon) < _FARTHEST).all():
                raise ValueError("a polygon is not a list of numbers, x and y in turns")
        return cls.from_polygons([[polygon.tolist() for polygon in polygons if len(polygon) >= 6]], size)

    @classmethod
    def parse(cls, texts: Sequence[str], size: tuple[int, int]) -> Masks:
        """Return the masks whose compressed run lengths a file holds as text.

        Raises:
            ValueError: they are no run lengths, or do not add up to the pixels of the picture.
        """
        counts = tuple(text.encode() for text in texts)
        lengths = unpack(counts)
        if (lengths.values < 0).any() or (lengths.totals != size[0] * size[1]).any():
            raise ValueError(f"run lengths do not add up to {size[0]} x {size[1]} pixels")
        return cls(size, counts)

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

    def iou(self, others: Masks, crowd: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.float64]:
        """Return (n, m) the overlaps of the masks with those of `others`; 0 where both have no pixels.

        With those where `crowd` (m,) is true, it is the part of the own mask that lies inside the other.
        """
        if not self.counts or not others.counts:
            return np.zeros((len(self), len(others)))
        crowds = np.zeros(len(others), np.uint8) if crowd is None else crowd.astype(np.uint8)
        return np.nan_to_num(np.asarray(coco_mask.iou(self.entries(), others.entries(), crowds), np.float64))

    def entries(self) -> list[dict[str, Any]]:
        """Return what COCO calls a compressed run-length encoding, one for each mask."""
        width, height = self.size
        return [{"size": [height, width], "counts": counts} for counts in self.counts]


def _drawn(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> bytes:
    width, height = size
    if not polygons:
        return Masks.encode(np.zeros((1, height, width), np.uint8)).counts[0]
    counts: bytes = coco_mask.merge(coco_mask.frPyObjects(list(polygons), height, width))["counts"]
    return counts


def _compressed(value: dict[str, Any], size: tuple[int, int]) -> bytes:
    """Return compressed run lengths; raise ValueError if they are none, or those of another size."""
    width, height = size
    if value.get("size") != [height, width]:
        raise ValueError(f"the run lengths are those of {value.get('size')}, not of {height} rows and {width} columns")
    counts = value.get("counts")
    if isinstance(counts, list):
        lengths = np.array(counts or [0], np.float64)
        if lengths.ndim != 1 or not (lengths >= 0).all() or lengths.sum() != width * height:
            raise ValueError("the run lengths do not add up to the pixels of the picture")
        compressed: bytes = coco_mask.frPyObjects(value, height, width)["counts"]
        return compressed
    if not isinstance(counts, str):
        raise ValueError("'counts' is neither a list nor text")
    return Masks.parse([counts], size).counts[0]


def _run_lengths(window: Window, size: tuple[int, int]) -> list[int]:
    """Return COCO's run lengths of a picture, which it counts column by column: outside, inside, outside and so on."""
    x, y, bitmap = window
    width, height = size
    rows = bitmap.shape[0]
    columns = np.zeros((bitmap.shape[1], rows + 1), np.bool_)  # a pixel below each column ends its last run
    columns[:, :rows] = bitmap.T
    flat = np.concatenate([np.zeros(1, np.bool_), columns.reshape(-1)])
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), rows + 1)
    changes = (x + column) * height + y + row  # where a run begins, where it ends, and so on
    if rows == height:  # what ends with one column goes on with the next
        joined = np.flatnonzero(changes[1:-1:2] == changes[2::2]) * 2 + 1
        changes = np.delete(changes, np.concatenate([joined, joined + 1]))
    lengths: list[int] = np.diff(changes, prepend=0, append=width * height).tolist()
    return lengths if lengths[-1] else lengths[:-1]
