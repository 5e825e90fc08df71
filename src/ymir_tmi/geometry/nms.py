"""Non-maximum suppression."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

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


def _apart(boxes: Tensor, labels: Tensor) -> Tensor:
    """Move each class to a region of its own, in float64 so that no overlap changes."""
    if not len(boxes):
        return boxes.double()
    wide = boxes.double().clamp(-_FARTHEST, _FARTHEST)
    lowest, highest = torch.aminmax(wide)
    return wide + (labels * (highest - lowest + 1)).unsqueeze(-1)
