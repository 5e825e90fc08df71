"""From prototypes and coefficients to the masks of objects.

Facts: docs/specs/yolov5.md, section 6.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ymir_tmi.data.letterbox import Frame
from ymir_tmi.geometry.masks import Masks, Window

Floats = npt.NDArray[np.float32]


def mask_maps(coefficients: Tensor, prototypes: Tensor) -> Tensor:
    """Return (n, mh, mw) probabilities that a place belongs to an object, also outside its box.

    Args:
        coefficients: (n, K) of each object.
        prototypes: (K, mh, mw) of the picture.
    """
    return (coefficients @ prototypes.flatten(1)).sigmoid_().view(-1, *prototypes.shape[1:])


def crop_to_boxes(maps: Tensor, boxes: Tensor) -> Tensor:
    """Return (n, h, w) maps with zeros outside of (n, 4) xyxy boxes in pixels of the maps.

    Pixel i lies inside from x1 to x2 if x1 <= i < x2.
    """
    x1, y1, x2, y2 = boxes.view(-1, 4, 1, 1).unbind(1)
    x = torch.arange(maps.shape[2], device=maps.device)
    y = torch.arange(maps.shape[1], device=maps.device).unsqueeze(1)
    return maps * ((x >= x1) & (x < x2) & (y >= y1) & (y < y2))


def encode_masks(maps: Tensor, boxes: Floats, frame: Frame) -> Masks:
    """Return the masks of objects in pixels of the picture: where the interpolated map is above 0.5 inside the box.

    Only what lies inside a box is interpolated, object by object, so that many objects in a large picture take little
    memory.

    Args:
        maps: (n, mh, mw) probabilities in the frame of the network input.
        boxes: (n, 4) xyxy in pixels of the picture.
        frame: where the picture lies in the network input. What lies beyond it has no influence.
    """
    columns = _Axis.of(
        frame.width, maps.shape[2], frame.input_width, frame.scale_x, frame.left, frame.resized_width
    )  # fmt: skip
    rows = _Axis.of(frame.height, maps.shape[1], frame.input_height, frame.scale_y, frame.top, frame.resized_height)
    return Masks.from_windows(_windows(maps.float().cpu().numpy(), boxes, columns, rows), (frame.width, frame.height))


class _Axis(NamedTuple):
    """Where the N pixels along one side of a picture lie in a map: between two cells.

    Attributes:
        before, after: (N,) the two cells.
        weight: (N,) float32 of the second one.
    """

    before: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]
    weight: Floats

    @classmethod
    def of(cls, pixels: int, cells: int, input_side: int, scale: float, offset: int, resized: int) -> _Axis:
        """Place the middles of pixels between those of cells; beyond the outermost cells of the picture is the same."""
        ratio = cells / input_side
        first, last = offset * ratio, (offset + resized) * ratio - 1
        places = ((np.arange(pixels) + 0.5) * scale + offset) * ratio - 0.5
        places = places.clip(first, max(first, last)).clip(0, cells - 1)
        before = places.astype(np.int64)
        return cls(before, np.minimum(before + 1, cells - 1), (places - before).astype(np.float32))

    def part(self, start: int, end: int) -> _Axis:
        """Return some of the pixels."""
        return _Axis(self.before[start:end], self.after[start:end], self.weight[start:end])

    def between(self, map_: Floats) -> Floats:
        """Return (N, m) interpolated rows of a (cells, m) map."""
        low = map_[self.before]
        return low + (map_[self.after] - low) * self.weight[:, None]


def _windows(maps: Floats, boxes: Floats, columns: _Axis, rows: _Axis) -> Iterator[Window]:
    """Yield the part of the picture that lies in each box, and which of its pixels belong to the mask."""
    size = [len(columns.weight), len(rows.weight)] * 2
    for map_, corners in zip(maps, np.ceil(boxes).clip(0, size).astype(np.int64).tolist(), strict=True):
        x1, y1, x2, y2 = corners
        if x2 <= x1 or y2 <= y1:
            yield 0, 0, np.zeros((1, 1), np.bool_)
            continue
        down, across = rows.part(y1, y2), columns.part(x1, x2)
        start = int(down.before[0])
        near = map_[start : down.after[-1] + 1]  # the fewest numbers: along rows first, of the cells that are needed
        shifted = down._replace(before=down.before - start, after=down.after - start)
        yield x1, y1, shifted.between(across.between(near.T).T) > 0.5
