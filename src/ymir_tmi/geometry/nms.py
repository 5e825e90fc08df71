"""Non-maximum suppression of upright and of rotated boxes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from torch import Tensor

from ymir_tmi.geometry.rotated import aligned_rotated_iou, neighbours

# Larger coordinates, such as the infinite ones of a diverging network, are cut: classes could not be told apart.
_FARTHEST = 1e7
_BLOCK = 256  # rotated boxes that are looked at together


def class_aware_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, *, limit: int | None = None
) -> Tensor:
    """Return the rows that are left, best first, when every box drops the worse ones of its class that it overlaps.

    Equals greedy suppression of each class by itself. Swapped corners are allowed; such boxes overlap nothing.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,); equal ones keep the order of the rows.
        labels: (N,) int64, not negative.
        iou_threshold: a box is dropped if its intersection over union is greater than this.
        limit: rows wanted at most, the best ones.
    """
    order = scores.argsort(descending=True, stable=True)
    apart = _apart(boxes[order], labels[order])
    ranked = scores[order].double()
    # What the best boxes drop does not depend on worse ones: the first few thousand nearly always fill the limit.
    count = len(order) if limit is None else 4 * limit
    while True:
        kept = torchvision.ops.nms(apart[:count], ranked[:count], iou_threshold)[:limit]
        if count >= len(order) or len(kept) == limit:
            return order[kept]
        count *= 4


def rotated_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor | None, iou_threshold: float, *, limit: int | None = None
) -> Tensor:
    """Return the rows of rotated boxes that are left, best first; see `class_aware_nms`.

    Args:
        boxes: (N, 5) rotated boxes in any form.
        scores: (N,); equal ones keep the order of the rows.
        labels: (N,) int64; None lets boxes of different classes drop each other.
        iou_threshold: a box is dropped if its intersection over union is greater than this.
        limit: rows wanted at most, the best ones.
    """
    order = scores.argsort(descending=True, stable=True)
    ranked, kinds = boxes[order], None if labels is None else labels[order]
    kept = order[:0]
    # Block by block, so that most pairs of two boxes that are dropped are never looked at.
    for rows in torch.split(torch.arange(len(order), device=order.device), _BLOCK):
        _, worse = _overlapping(ranked, kinds, kept, rows, iou_threshold)
        left = rows[~torch.isin(rows, worse)]
        better, worse = _overlapping(ranked, kinds, left, left, iou_threshold)
        first, second = torch.searchsorted(left, better), torch.searchsorted(left, worse)
        best = _greedy(len(left), first.cpu().numpy(), second.cpu().numpy(), None)
        kept = torch.cat([kept, left[torch.from_numpy(best).to(left.device)]])
        if limit is not None and len(kept) >= limit:
            break
    return order[kept[:limit]]


def _overlapping(
    boxes: Tensor, labels: Tensor | None, first: Tensor, second: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Return the pairs of one row of `first` and a later one of `second` that drop each other; the first ascend."""
    one, other = neighbours(boxes[first], boxes[second])
    one, other = first[one], second[other]
    pairs = one < other
    if labels is not None:
        pairs &= labels[one] == labels[other]
    one, other = one[pairs], other[pairs]
    overlap = aligned_rotated_iou(boxes[one], boxes[other]) > iou_threshold
    return one[overlap], other[overlap]


def keep_best(scores: Tensor, first: Tensor, second: Tensor, *, limit: int | None = None) -> Tensor:
    """Return the rows that are left, best first, when every row drops the worse ones that it is paired with.

    Args:
        scores: (N,); equal ones keep the order of the rows.
        first: (P,) one row of each pair, in any order.
        second: (P,) the other.
        limit: rows wanted at most, the best ones.
    """
    order = scores.argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    better, worse = torch.minimum(rank[first], rank[second]), torch.maximum(rank[first], rank[second])
    by_better = better.argsort(stable=True)
    better, worse = better[by_better], worse[by_better]
    kept = _greedy(len(order), better.cpu().numpy(), worse.cpu().numpy(), limit)
    return order[torch.from_numpy(kept).to(order.device)]


def _greedy(
    count: int, better: npt.NDArray[np.int64], worse: npt.NDArray[np.int64], limit: int | None
) -> npt.NDArray[np.int64]:
    """Return which of `count` boxes, best first, stay when each that stays drops those it is paired with.

    `better` is ascending.
    """
    starts = np.searchsorted(better, np.arange(count + 1))
    dropped = np.zeros(count, bool)
    kept = []
    for row in range(count):
        if dropped[row]:
            continue
        kept.append(row)
        if len(kept) == limit:
            break
        dropped[worse[starts[row] : starts[row + 1]]] = True
    return np.array(kept, np.int64)


def _apart(boxes: Tensor, labels: Tensor) -> Tensor:
    """Move each class to a region of its own, in float64 so that no overlap changes."""
    if not len(boxes):
        return boxes.double()
    wide = boxes.double().clamp(-_FARTHEST, _FARTHEST)
    lowest, highest = torch.aminmax(wide)
    return wide + (labels * (highest - lowest + 1)).unsqueeze(-1)
