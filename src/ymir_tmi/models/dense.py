"""From maps per level to one row per prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Priors(NamedTuple):
    """The P places at which a head without anchors looks for objects, levels from fine to coarse, rows y then x.

    Attributes:
        points: (P, 2) x and y of the upper left corner of each cell, in pixels of the network input.
        strides: (P,) width of each cell in pixels.
        level_sizes: number of priors of each level.
    """

    points: Tensor
    strides: Tensor
    level_sizes: tuple[int, ...]


def flatten_levels(maps: Sequence[Tensor]) -> Tensor:
    """Return (B, P, K) from one (B, K, h, w) per level, in float32, or in float64 if they are."""
    rows = torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in maps], dim=1)
    return rows if rows.dtype == torch.float64 else rows.float()


def make_priors(maps: Sequence[Tensor], strides: Sequence[int]) -> Priors:
    """Return the priors of head outputs of shape (B, K, h, w), one per level; float32, or float64 if they are."""
    dtype = torch.float64 if maps[0].dtype == torch.float64 else torch.float32
    points, widths = [], []
    for level, stride in zip(maps, strides, strict=True):
        height, width = level.shape[-2:]
        y, x = torch.meshgrid(
            torch.arange(height, dtype=dtype, device=level.device) * stride,
            torch.arange(width, dtype=dtype, device=level.device) * stride,
            indexing="ij",
        )
        points.append(torch.stack([x, y], dim=-1).flatten(0, 1))
        widths.append(points[-1].new_full((height * width,), stride))
    return Priors(torch.cat(points), torch.cat(widths), tuple(len(level) for level in points))
