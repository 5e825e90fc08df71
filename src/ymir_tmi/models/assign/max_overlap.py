"""Matching by overlap (RetinaNet, Faster R-CNN): anchors that lie on an object are responsible for it.

Source: Ren et al., "Faster R-CNN", 2015, section 3.1.2; Lin et al., "Focal Loss for Dense Object Detection", 2017.
Facts: docs/specs/retinanet.md, section "Training".
"""

from __future__ import annotations

import torch
from torch import Tensor

from ymir_tmi.geometry.boxes import pairwise_iou
from ymir_tmi.models.assign.matching import Objects, chunk_objects, concatenate_matches
from ymir_tmi.models.interface import Matches, Targets

_POSITIVE_FROM = 0.5
_BACKGROUND_BELOW = 0.4


def assign_max_overlap(anchors: Tensor, targets: Targets) -> tuple[Matches, Tensor]:
    """Give every anchor the object that it overlaps most, if it overlaps it by half.

    So that small objects are not left without, an anchor also counts where no other overlaps some object more. It still
    takes the object that it overlaps most itself, which may be another one.

    Args:
        anchors: (P, 4) xyxy in pixels of the network input.
        targets: the objects of the batch.

    Returns:
        The matches, whose quality is the overlap of the anchor, and (B, P) which anchors are neither an object nor
        background: those that overlap one by 0.4 to 0.5.
    """
    ignored = torch.zeros(len(targets.labels), len(anchors), dtype=torch.bool, device=anchors.device)
    parts = []
    for images, objects in chunk_objects(targets, len(anchors), anchors):
        iou = pairwise_iou(objects.boxes, anchors).masked_fill(~objects.real.unsqueeze(-1), -1.0)
        overlap, owner = iou.max(dim=1)
        positive = (overlap >= _POSITIVE_FROM) | _is_best_of_any(iou)
        ignored[images] = (overlap >= _BACKGROUND_BELOW) & ~positive
        parts.append(_matches(positive, owner, overlap, objects, first_image=images.start))
    return concatenate_matches(parts, anchors), ignored


def _is_best_of_any(iou: Tensor) -> Tensor:
    """Return (B, P) whether no other anchor overlaps some object more; an object that none touches has no best one."""
    best = iou.amax(dim=2, keepdim=True)
    return ((iou == best) & (best > 0)).any(dim=1)


def _matches(positive: Tensor, owner: Tensor, overlap: Tensor, objects: Objects, *, first_image: int) -> Matches:
    image, prior = positive.nonzero(as_tuple=True)
    gt = owner[image, prior]
    label, box = objects.labels[image, gt], objects.boxes[image, gt]
    return Matches(image + first_image, prior, gt, label, box, overlap[image, prior])
