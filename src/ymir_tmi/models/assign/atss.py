"""Adaptive training sample selection (Zhang et al., "ATSS", 2020): priors are chosen by place alone.

Facts: docs/specs/detectors.md, section 10.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ymir_tmi.geometry.boxes import aligned_iou, collapse_swapped, pairwise_iou, points_inside
from ymir_tmi.models.assign.matching import chunk_objects, concatenate_matches, make_matches, settle_claims
from ymir_tmi.models.dense import Priors
from ymir_tmi.models.interface import Matches, Targets

_TOPK = 9
_ANCHOR_RADIUS = 2.5


def assign_atss(boxes: Tensor, priors: Priors, targets: Targets) -> Matches:
    """Assign priors to objects; the quality of a match is the overlap of the predicted box with the object.

    An object's candidates are the 9 priors of each level that are nearest to its centre (all of a level that has
    fewer). It claims those inside of it whose anchor, a square five cells wide, overlaps it by more than the mean plus
    the standard deviation over its candidates.

    Args:
        boxes: (B, P, 4) predicted xyxy boxes in pixels of the network input.
        priors: the P priors.
        targets: the objects of the batch.
    """
    reach = _ANCHOR_RADIUS * priors.strides.unsqueeze(-1)
    anchors = torch.cat([priors.points - reach, priors.points + reach], dim=-1)
    parts = []
    for images, objects in chunk_objects(targets, len(anchors), boxes):
        overlap = pairwise_iou(objects.boxes, anchors)
        candidates = _nearest(objects.boxes, priors)
        values = overlap.gather(-1, candidates)
        threshold = values.mean(-1, keepdim=True) + values.std(-1, keepdim=True)
        claims = torch.zeros_like(overlap, dtype=torch.bool).scatter_(-1, candidates, values > threshold)
        image, prior, gt = settle_claims(claims & points_inside(priors.points, objects.boxes), overlap)
        found = collapse_swapped(boxes[images][image, prior])
        matches = make_matches(image, prior, gt, objects, aligned_iou(found, objects.boxes[image, gt], eps=1e-9))
        parts.append(matches._replace(image=image + images.start))
    return concatenate_matches(parts, boxes)


def _nearest(objects: Tensor, priors: Priors) -> Tensor:
    """Return (B, G, K) the priors of each level that are nearest to the centres of (B, G, 4) objects."""
    centres = (objects[..., :2] + objects[..., 2:]) / 2
    x, y = centres.unsqueeze(-2).unbind(-1)
    distance = (x - priors.points[:, 0]).square() + (y - priors.points[:, 1]).square()
    nearest, start = [], 0
    for level in torch.split(distance, list(priors.level_sizes), dim=-1):
        nearest.append(level.topk(min(_TOPK, level.shape[-1]), dim=-1, largest=False).indices + start)
        start += level.shape[-1]
    return torch.cat(nearest, dim=-1)
