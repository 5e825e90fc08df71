"""Overlap of axis-aligned boxes, (..., 4) xyxy tensors of floating-point numbers.

Areas are not clamped: a box whose corners are swapped has an odd union and overlaps nothing. A union (and enclosing
area) is floored at `eps` before it divides; where a docstring says so, `eps` is added instead
(docs/specs/detectors.md, section 11).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def box_area(boxes: Tensor) -> Tensor:
    """Return (...) areas of (..., 4) boxes in square pixels; negative where exactly one pair of sides is swapped."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x2 - x1) * (y2 - y1)


def pairwise_iou(first: Tensor, second: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Return (..., N, M) intersection over union of (..., N, 4) with (..., M, 4) boxes."""
    return aligned_iou(first.unsqueeze(-2), second.unsqueeze(-3), eps=eps)


def aligned_iou(first: Tensor, second: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Return (...) intersection over union of (..., 4) pairs; shapes broadcast."""
    intersection = _intersection(first, second)
    return intersection / (box_area(first) + box_area(second) - intersection).clamp(min=eps)


def aligned_giou(first: Tensor, second: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Return (...) generalised IoU in [-1, 1] of (..., 4) pairs (Rezatofighi et al., 2019); shapes broadcast."""
    intersection = _intersection(first, second)
    union = (box_area(first) + box_area(second) - intersection).clamp(min=eps)
    hull = _hull(first, second).clamp(min=eps)
    return intersection / union - (hull - union) / hull


def aligned_ciou(pred: Tensor, target: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Return (...) complete IoU of (..., 4) pairs (Zheng et al., 2020), in [-1, 1]; shapes broadcast.

    `eps` is added to what divides. The weight of the aspect ratios is a constant for the gradient.
    """
    intersection = _intersection(pred, target)
    iou = intersection / (box_area(pred) + box_area(target) - intersection + eps)
    width, height = _hull_size(pred, target)
    dx, dy = _centre_distance(pred, target)
    apart = (dx.square() + dy.square()) / (width.square() + height.square() + eps)
    slants = [torch.atan(width / (height + eps)) for width, height in (_size(target), _size(pred))]
    ratio = 4 / math.pi**2 * (slants[0] - slants[1]).square()
    with torch.no_grad():
        weight = ratio / (ratio - iou + 1 + eps)
    return (iou - apart - weight * ratio).clamp(-1, 1)


def points_inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Return (..., N, M) whether each of (M, 2) points lies strictly inside each of (..., N, 4) boxes."""
    x, y = points.unbind(-1)
    x1, y1, x2, y2 = boxes.unsqueeze(-2).unbind(-1)
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


def _intersection(first: Tensor, second: Tensor) -> Tensor:
    # One tensor per coordinate: several times faster than a last dimension of length two.
    ax1, ay1, ax2, ay2 = first.unbind(-1)
    bx1, by1, bx2, by2 = second.unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    return width * height


def _hull(first: Tensor, second: Tensor) -> Tensor:
    width, height = _hull_size(first, second)
    return width.clamp(min=0) * height.clamp(min=0)


def _hull_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    ax1, ay1, ax2, ay2 = first.unbind(-1)
    bx1, by1, bx2, by2 = second.unbind(-1)
    return torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1), torch.maximum(ay2, by2) - torch.minimum(ay1, by1)


def _size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    return x2 - x1, y2 - y1


def _centre_distance(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return by how much the centre of `target` lies to the right of that of `pred`, and below it."""
    ax1, ay1, ax2, ay2 = pred.unbind(-1)
    bx1, by1, bx2, by2 = target.unbind(-1)
    return (bx1 + bx2 - ax1 - ax2) / 2, (by1 + by2 - ay1 - ay2) / 2
