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


def aligned_giou(first: Tensor, second: Tensor, *, eps: float = 1e-6, add_eps: bool = False) -> Tensor:
    """Return (...) generalised IoU of (..., 4) pairs (Rezatofighi et al., 2019), in [-1, 1]; shapes broadcast.

    With `add_eps`, areas that divide get `eps` added rather than being floored at it, and the result is clamped: boxes
    with swapped corners would exceed the range.
    """
    intersection = _intersection(first, second)
    union = box_area(first) + box_area(second) - intersection
    hull = _hull(first, second)
    union, hull = (area + eps if add_eps else area.clamp(min=eps) for area in (union, hull))
    giou = intersection / union - (hull - union) / hull
    return giou.clamp(-1, 1) if add_eps else giou


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


def aligned_siou(pred: Tensor, target: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Return (...) SIoU of (..., 4) pairs (Gevorgyan, "SIoU Loss", 2022) with theta 4, in [-1, 1]; shapes broadcast.

    `eps` is added to what divides and to the distances of the centres. Targets must have an area.
    """
    intersection = _intersection(pred, target)
    iou = intersection / (box_area(pred) + box_area(target) - intersection + eps)
    dx, dy = (distance + eps for distance in _centre_distance(pred, target))
    # The sine of the smaller angle between the line of the centres and an axis.
    sine = torch.minimum(dx.abs(), dy.abs()) / (dx.square() + dy.square()).sqrt()
    gamma = 2 - torch.cos(2 * torch.asin(sine) - math.pi / 2)
    width, height = _hull_size(pred, target)
    distance = 2 - torch.exp(-gamma * (dx / width).square()) - torch.exp(-gamma * (dy / height).square())
    (pred_width, pred_height), (width, height) = _size(pred), _size(target)
    shape = _difference(pred_width, width) + _difference(pred_height + eps, height + eps)
    return (iou - 0.5 * (distance + shape)).clamp(-1, 1)


def collapse_swapped(boxes: Tensor) -> Tensor:
    """Return (..., 4) boxes in which swapped sides meet where the first of them is: such a box has no area."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x1, y1, torch.maximum(x1, x2), torch.maximum(y1, y2)], dim=-1)


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


def _difference(first: Tensor, second: Tensor) -> Tensor:
    """Return how much two sides differ, as SIoU counts it: 0 if they are equal, at most 1."""
    return (1 - torch.exp(-(first - second).abs() / torch.maximum(first, second))).pow(4)
