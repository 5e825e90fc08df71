"""From maps per level to one row per prior, with and without anchors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Priors(NamedTuple):
    """The P places at which a head without anchors looks for objects, levels from fine to coarse, rows y then x.

    Attributes:
        points: (P, 2) x and y of one point of each cell, in pixels of the network input.
        strides: (P,) width of each cell in pixels.
        level_sizes: number of priors of each level.
    """

    points: Tensor
    strides: Tensor
    level_sizes: tuple[int, ...]


def flatten_levels(maps: Sequence[Tensor], anchors: int = 1) -> Tensor:
    """Return (B, P, K) from one (B, A * K, h, w) per level, in float32, or in float64 if they are.

    Rows are ordered by level, y, x and, of A `anchors`, anchor.
    """
    # Views, also of maps that are a part of another one's channels, so that the numbers are copied once.
    cells = [level.permute(0, 2, 3, 1).flatten(1, 2) for level in maps]
    rows = torch.cat([cell.view(*cell.shape[:2], anchors, cell.shape[2] // anchors) for cell in cells], 1).flatten(1, 2)
    return rows if rows.dtype == torch.float64 else rows.float()


def make_priors(maps: Sequence[Tensor], strides: Sequence[int], *, offset: float = 0.0) -> Priors:
    """Return the priors of head outputs of shape (B, K, h, w), one per level; float32, or float64 if they are.

    Args:
        maps: only their shapes, type and device count.
        strides: pixels per cell of each level.
        offset: where in its cell a prior's point lies: 0 is the upper left corner, 0.5 the centre.
    """
    dtype = torch.float64 if maps[0].dtype == torch.float64 else torch.float32
    points, widths = [], []
    for level, stride in zip(maps, strides, strict=True):
        height, width = level.shape[-2:]
        y, x = torch.meshgrid(
            (torch.arange(height, dtype=dtype, device=level.device) + offset) * stride,
            (torch.arange(width, dtype=dtype, device=level.device) + offset) * stride,
            indexing="ij",
        )
        points.append(torch.stack([x, y], dim=-1).flatten(0, 1))
        widths.append(points[-1].new_full((height * width,), stride))
    return Priors(torch.cat(points), torch.cat(widths), tuple(level.shape[0] for level in points))


def boxes_around(points: Tensor, sides: Tensor) -> Tensor:
    """Return (..., 4) xyxy boxes of (..., 4) distances from (..., 2) points to the left, top, right and bottom side."""
    return torch.cat([points - sides[..., :2], points + sides[..., 2:]], dim=-1)


def rotated_boxes_around(points: Tensor, sides: Tensor, angles: Tensor) -> Tensor:
    """Return (..., 5) rotated boxes with angles in [-pi/2, pi/2); either side may be the longer one.

    Sides are distances along the box's own axes, so the centre moves away from the point by the full angle, also where
    that is beyond a half turn (docs/specs/rotated.md, section "Priors, decoding").

    Args:
        points: (..., 2) x and y.
        sides: (..., 4) distances to the left, top, right and bottom side; negative ones make negative sides.
        angles: (...) radians, any.
    """
    left, top, right, bottom = sides.unbind(-1)
    along, across = (right - left) / 2, (bottom - top) / 2
    cos, sin = angles.cos(), angles.sin()
    x = points[..., 0] + along * cos - across * sin
    y = points[..., 1] + along * sin + across * cos
    quarter = math.pi / 2
    turned = torch.remainder(angles + quarter, math.pi) - quarter
    return torch.stack([x, y, left + right, top + bottom, turned], dim=-1)


def sides_around(points: Tensor, boxes: Tensor) -> Tensor:
    """Invert `boxes_around`: return (..., 4) distances from points to the sides of xyxy boxes."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


class AnchorPriors(NamedTuple):
    """The P anchors of all cells, levels from fine to coarse; inside a level y, then x, then anchor.

    Attributes:
        cells: (P, 2) x and y of the upper left corner of the cell, in pixels of the network input.
        strides: (P,) width of the cell in pixels.
        sizes: (P, 2) width and height of the anchor in pixels.
        levels: (P,) int64 number of the level.
        level_sizes: number of priors of each level.
    """

    cells: Tensor
    strides: Tensor
    sizes: Tensor
    levels: Tensor
    level_sizes: tuple[int, ...]

    def take(self, rows: Tensor) -> AnchorPriors:
        """Return the chosen rows."""
        return AnchorPriors(self.cells[rows], self.strides[rows], self.sizes[rows], self.levels[rows], self.level_sizes)


def make_anchor_priors(maps: Sequence[Tensor], strides: Sequence[int], anchors: Tensor) -> AnchorPriors:
    """Return the priors of head outputs of shape (B, K, h, w), one per level; types as in `make_priors`.

    Args:
        maps: only their shapes, type and device count.
        strides: pixels per cell of each level.
        anchors: (L, A, 2) width and height of the anchors of each level in pixels.
    """
    points, widths, counts = make_priors(maps, strides)
    each = anchors.shape[1]
    levels = [torch.full((count * each,), level, device=points.device) for level, count in enumerate(counts)]
    sizes = [shapes.repeat(count, 1) for shapes, count in zip(anchors.to(points), counts, strict=True)]
    return AnchorPriors(
        cells=points.repeat_interleave(each, dim=0),
        strides=widths.repeat_interleave(each),
        sizes=torch.cat(sizes),
        levels=torch.cat(levels),
        level_sizes=tuple(count * each for count in counts),
    )


def anchor_boxes(numbers: Tensor, priors: AnchorPriors) -> Tensor:
    """Turn (..., P, 4) raw numbers of anchors (x, y, width, height) into xyxy pixels (detectors.md, section 3)."""
    place, size = torch.split(2 * numbers.sigmoid(), 2, dim=-1)
    centres = priors.cells + (place - 0.5) * priors.strides.unsqueeze(-1)
    halves = size.square() * priors.sizes / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)
