"""Rotated boxes: one convention, other people's conventions, and exact overlaps.

A box is (cx, cy, w, h, angle): centre and sides in pixels, x to the right and y down, and the angle in radians by which
the side w is turned from the x axis towards the y axis, clockwise on the screen. Many such numbers are one rectangle;
in the form *le90* w is the longer side and the angle lies in [-pi/2, pi/2). docs/rotated.md has a picture.

Facts: docs/specs/rotated.md.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

AngleForm = Literal["le90", "le135", "opencv"]

_LEVEL = 1e-14  # in units of the longest side: an edge that rises less is level

_MAX_PAIRS = 2**22  # looked at together


def regularize(boxes: Tensor, form: AngleForm = "le90") -> Tensor:
    """Return (..., 5) the same rectangles in one form.

    Of `le90` and `le135`, w is the longer side and the angle lies in [-pi/2, pi/2) or [-pi/4, 3 pi/4); the sides of a
    square count as swapped, as in mmrotate. Of `opencv` (before 4.5.1), the angle lies in [-pi/2, 0) and either side
    may be longer.
    """
    w, h, angle = boxes[..., 2], boxes[..., 3], boxes[..., 4]
    start = {"le90": -math.pi / 2, "le135": -math.pi / 4, "opencv": -math.pi / 2}[form]
    turned = torch.remainder(angle - start, math.pi)
    swapped = turned >= math.pi / 2 if form == "opencv" else w <= h
    away = -math.pi / 2 if form == "opencv" else math.pi / 2
    angle = torch.remainder(angle + away * swapped.to(angle.dtype) - start, math.pi) + start
    return torch.stack([*boxes[..., :2].unbind(-1), torch.where(swapped, h, w), torch.where(swapped, w, h), angle], -1)


def corners(boxes: Tensor) -> Tensor:
    """Return (..., 4, 2) the corners of (..., 5) boxes, counter-clockwise on the screen."""
    centre, (w, h, angle) = boxes[..., :2], boxes[..., 2:].unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    u = torch.stack([w * cos, w * sin], dim=-1) / 2
    v = torch.stack([-h * sin, h * cos], dim=-1) / 2
    return torch.stack([centre + u + v, centre + u - v, centre - u - v, centre - u + v], dim=-2)


def from_corners(polygons: Tensor) -> Tensor:
    """Return (..., 5) in le90 the smallest rectangles around (..., 4, 2) corners in any order.

    A side of the smallest rectangle lies on a side of the hull, which joins two of the corners (Freeman and Shapira,
    1975): all six pairs are tried.
    """
    points = polygons.double()
    first, second = torch.triu_indices(4, 4, offset=1, device=points.device)
    side = points[..., second, :] - points[..., first, :]
    angles = torch.atan2(side[..., 1], side[..., 0])  # (..., 6)
    cos, sin = angles.cos().unsqueeze(-1), angles.sin().unsqueeze(-1)
    x, y = points[..., 0].unsqueeze(-2), points[..., 1].unsqueeze(-2)
    along, across = x * cos + y * sin, y * cos - x * sin  # (..., 6, 4)
    left, right, top, bottom = along.amin(-1), along.amax(-1), across.amin(-1), across.amax(-1)
    best = ((right - left) * (bottom - top)).argmin(-1, keepdim=True)
    left, right, top, bottom, angle = (
        values.gather(-1, best).squeeze(-1) for values in (left, right, top, bottom, angles)
    )
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    cx = middle_x * angle.cos() - middle_y * angle.sin()
    cy = middle_x * angle.sin() + middle_y * angle.cos()
    boxes = torch.stack([cx, cy, right - left, bottom - top, angle], dim=-1)
    return regularize(boxes).to(polygons.dtype)


def from_upright(boxes: Tensor) -> Tensor:
    """Return (..., 5) in le90 of (..., 4) xyxy boxes."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return regularize(torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, torch.zeros_like(x1)], dim=-1))


def scale(boxes: Tensor, x: float, y: float) -> Tensor:
    """Return (..., 5) boxes of a picture whose width and height are multiplied by `x` and `y`, angles in [-pi, pi].

    Unequal factors turn a rectangle into a parallelogram; sides and the direction of w are those of its middle lines.
    """
    cx, cy, w, h, angle = boxes.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    w, h = w * torch.hypot(x * cos, y * sin), h * torch.hypot(x * sin, y * cos)
    return torch.stack([cx * x, cy * y, w, h, torch.atan2(y * sin, x * cos)], dim=-1)


def hulls(boxes: Tensor) -> Tensor:
    """Return (..., 4) the smallest upright xyxy boxes around (..., 5) boxes."""
    centre, (w, h, angle) = boxes[..., :2], boxes[..., 2:].unbind(-1)
    cos, sin = angle.cos().abs(), angle.sin().abs()
    half = torch.stack([w * cos + h * sin, w * sin + h * cos], dim=-1) / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def points_inside(points: Tensor, boxes: Tensor, *, margin: float = 0.0) -> Tensor:
    """Return (..., N, M) whether each of (M, 2) points lies more than `margin` inside of each of (..., N, 5) boxes."""
    cx, cy, w, h, angle = boxes.unsqueeze(-2).unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    dx, dy = points[:, 0] - cx, points[:, 1] - cy
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    return (along.abs() < w / 2 - margin) & (across.abs() < h / 2 - margin)


def aligned_rotated_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return (...) intersection over union of (..., 5) pairs; shapes broadcast. Computed in float64, differentiable.

    Exact for coinciding, nested, touching, thin and tiny boxes. A box without area overlaps nothing.
    """
    first, second = torch.broadcast_tensors(first, second)  # type: ignore[no-untyped-call]
    a, b = first.double(), second.double()
    # Lengths in units of the longest side: the overlap is the same.
    unit = torch.cat([a[..., 2:4], b[..., 2:4]], dim=-1).detach().amax(-1, keepdim=True)
    unit = torch.where(unit > 0, unit, 1)
    unit = torch.cat([unit.expand(*unit.shape[:-1], 4), torch.ones_like(unit)], dim=-1)
    a, b = a / unit, b / unit
    intersection = _intersection(a, b)
    union = _area(a) + _area(b) - intersection
    iou = torch.where(union > 0, intersection / torch.where(union > 0, union, 1), 0)
    return iou.to(first.dtype)


def pairwise_rotated_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return (N, M) intersection over union of (N, 5) with (M, 5) boxes; see `aligned_rotated_iou`."""
    row, column = neighbours(first, second)
    overlaps = torch.zeros(len(first), len(second), dtype=first.dtype, device=first.device)
    return overlaps.index_put((row, column), aligned_rotated_iou(first[row], second[column]))


@torch.no_grad()
def neighbours(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pairs (row of `first`, row of `second`) of boxes whose circumcircles meet; no others overlap.

    Pairs are ordered by the first, then the second.
    """
    reach = torch.hypot(second[:, 2], second[:, 3]) / 2
    step = max(1, _MAX_PAIRS // max(1, len(second)))
    parts = []
    for start in range(0, len(first), step):
        some = first[start : start + step]
        apart = (some[:, None, :2] - second[:, :2]).square().sum(-1)
        limit = (torch.hypot(some[:, 2], some[:, 3])[:, None] / 2 + reach).square()
        parts.append((apart <= limit).nonzero() + apart.new_tensor([start, 0], dtype=torch.int64))
    row, column = torch.cat(parts).unbind(1) if parts else torch.zeros(2, 0, dtype=torch.int64, device=first.device)
    return row, column


def _area(boxes: Tensor) -> Tensor:
    return boxes[..., 2] * boxes[..., 3]


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    """Return the (...) area that (..., 5) boxes share.

    In the frame of `b` it is the integral, over the width of `b`, of the upper border of `a` less the lower one, both
    cut at the height of `b`. Nothing has to be decided on the way, so that rounding cannot decide it wrongly: edges
    that lie on one another, which the usual clipping of polygons stumbles over, are nothing special here.
    """
    x, y, dx, dy = _edges(a, b)
    half_w, half_h = b[..., 2] / 2, b[..., 3] / 2
    start, end = _within(x, dx, half_w)
    width, y, dy = (end - start) * dx, y + start * dy, (end - start) * dy
    start, end = _within(y, dy, half_h)
    first, last = (height.clamp(-half_h, half_h) for height in (y, y + dy))
    mean = start * first + (end - start) * (first + last) / 2 + (1 - end) * last
    return -(width * mean).sum(0).clamp(max=0)


def _edges(box: Tensor, frame: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four (4, ...) tensors: start and step, each x and y, of the edges around a box in the frame of another.

    The origin of the frame is the centre of the other box, and its x axis the side w of it.
    """
    cos, sin = frame[..., 4].cos(), frame[..., 4].sin()
    away_x, away_y = box[..., 0] - frame[..., 0], box[..., 1] - frame[..., 1]
    x, y = away_x * cos + away_y * sin, away_y * cos - away_x * sin
    turn = box[..., 4] - frame[..., 4]
    cos, sin = turn.cos(), turn.sin()
    half_w, half_h = box[..., 2] / 2, box[..., 3] / 2
    ux, uy, vx, vy = half_w * cos, half_w * sin, -half_h * sin, half_h * cos
    return (
        torch.stack([x + ux - vx, x + ux + vx, x - ux + vx, x - ux - vx]),
        torch.stack([y + uy - vy, y + uy + vy, y - uy + vy, y - uy - vy]),
        2 * torch.stack([vx, -ux, -vx, ux]),
        2 * torch.stack([vy, -uy, -vy, uy]),
    )


def _within(start: Tensor, step: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """Return from where to where, in [0, 1], `start + t * step` is at most `reach` from 0; both equal: nowhere."""
    step = torch.where(step.abs() < _LEVEL, _LEVEL, step)
    one, other = (-reach - start) / step, (reach - start) / step
    return torch.minimum(one, other).clamp(0, 1), torch.maximum(one, other).clamp(0, 1)
