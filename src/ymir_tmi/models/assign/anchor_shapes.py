"""Shape matching (YOLOv5): anchors about as large as an object are responsible for it, in the cells around its centre.

Facts: docs/specs/detectors.md, section 10.1; docs/specs/yolov5.md, section 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ymir_tmi.models.interface import Matches, Targets

# From the neighbour to the left, above, to the right and below to the object's own cell; half of it is subtracted from
# the centre, which lands in the neighbour if the centre is near it. The first is the own cell itself.
_STEPS = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1))


class _Objects(NamedTuple):
    """The G objects of all images: image, number in the image, class, (G, 4) box in pixels."""

    image: Tensor
    gt: Tensor
    label: Tensor
    box: Tensor


def match_shapes(
    targets: Targets, grids: Sequence[tuple[int, int]], strides: Sequence[int], anchors: Tensor, *, ratio: float
) -> Matches:
    """Match anchors to objects by shape and place alone; predictions make no difference, and every quality is 1.

    An anchor of a cell may serve several objects. Matches are ordered by neighbour (own cell, left, above, right,
    below), level, anchor and object.

    Args:
        targets: the objects of the batch.
        grids: height and width of each level in cells.
        strides: pixels per cell of each level.
        anchors: (L, A, 2) width and height of the anchors of each level in pixels; gives precision and device.
        ratio: sides of object and anchor differ by a factor below this.
    """
    objects = _concatenate(targets, anchors)
    widths = anchors.new_tensor(strides).view(-1, 1, 1)
    sizes = anchors.new_tensor([(width, height) for height, width in grids]).unsqueeze(1)
    centres = (objects.box[:, :2] + objects.box[:, 2:]) / 2 / widths  # (L, G, 2) in cells
    near = _near_neighbours(centres, sizes)
    fits = _fits(objects.box[:, 2:] - objects.box[:, :2], anchors, ratio)
    neighbour, level, anchor, row = (near.unsqueeze(2) & fits).nonzero(as_tuple=True)

    steps = anchors.new_tensor(_STEPS) / 2
    last = sizes[level, 0].long() - 1
    cell = (centres[level, row] - steps[neighbour]).long().clamp(min=torch.zeros_like(last), max=last)
    prior = _prior_numbers(cell, level, anchor, grids, anchors.shape[1])
    image, gt, label, box = (column[row] for column in objects)
    return Matches(image, prior, gt, label, box, torch.ones_like(box[:, 0]))


def _concatenate(targets: Targets, like: Tensor) -> _Objects:
    counts = [len(labels) for labels in targets.labels]
    image = [torch.full((count,), number) for number, count in enumerate(counts)]
    gt = [torch.arange(count) for count in counts]
    return _Objects(
        torch.cat(image).to(like.device),
        torch.cat(gt).to(like.device),
        torch.cat(list(targets.labels)).to(like.device),
        torch.cat(list(targets.boxes)).to(like),
    )


def _near_neighbours(centres: Tensor, sizes: Tensor) -> Tensor:
    """Return (5, L, G) whether the centre is near each neighbour and that neighbour exists; of the own cell, always."""
    low = (centres % 1 < 0.5) & (centres > 1)
    mirrored = sizes - centres
    high = (mirrored % 1 < 0.5) & (mirrored > 1)
    own = torch.ones_like(low[..., 0])
    return torch.stack([own, low[..., 0], low[..., 1], high[..., 0], high[..., 1]])


def _fits(shapes: Tensor, anchors: Tensor, ratio: float) -> Tensor:
    """Return (L, A, G) whether anchors have the shape of objects."""
    factor = shapes / anchors.unsqueeze(2)
    return torch.maximum(factor, 1 / factor).amax(-1) < ratio


def _prior_numbers(
    cell: Tensor, level: Tensor, anchor: Tensor, grids: Sequence[tuple[int, int]], anchors: int
) -> Tensor:
    """Return (N,) priors in decoded order: level, y, x, anchor."""
    areas = torch.tensor([0, *(height * width for height, width in grids)], device=cell.device)
    widths = torch.tensor([width for _, width in grids], device=cell.device)
    return (areas.cumsum(0)[level] + cell[:, 1] * widths[level] + cell[:, 0]) * anchors + anchor
