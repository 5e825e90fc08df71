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
    ranked = boxes[order]
    better, worse = neighbours(ranked, ranked)
    pairs = better < worse
    if labels is not None:
        pairs &= labels[order][better] == labels[order][worse]
    better, worse = better[pairs], worse[pairs]
    overlap = aligned_rotated_iou(ranked[better], ranked[worse]) > iou_threshold
    kept = _greedy(len(order), better[overlap].cpu().numpy(), worse[overlap].cpu().numpy(), limit)
    return order[torch.from_numpy(kept).to(order.device)]


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
