"""SimOTA (YOLOX): the cheapest priors near an object's centre are responsible for it.

Facts: docs/specs/detectors.md, section 10.5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ymir_tmi.geometry.boxes import pairwise_iou, points_inside
from ymir_tmi.models.assign.matching import (
    Objects,
    chunk_objects,
    concatenate_matches,
    cross_entropy_cost,
    match_cheapest,
)
from ymir_tmi.models.dense import Priors
from ymir_tmi.models.interface import Matches, Targets

_TOPK = 10
_CENTRE_RADIUS = 2.5
_OFF_CENTRE_COST = 1e5


def assign_simota(boxes: Tensor, scores: Tensor, priors: Priors, targets: Targets) -> Matches:
    """Assign priors to objects.

    Args:
        boxes: (B, P, 4) predicted xyxy boxes in pixels of the network input.
        scores: (B, P, C) square roots of class probability times objectness.
        priors: the P priors.
        targets: the objects of the batch.
    """
    centres = priors.points + priors.strides.unsqueeze(-1) / 2
    parts = []
    for images, objects in chunk_objects(targets, len(centres), boxes):
        inside = points_inside(centres, objects.boxes)
        central = _near_centre(centres, priors.strides, objects)
        valid = (inside | central).any(dim=1, keepdim=True)
        iou = pairwise_iou(objects.boxes, boxes[images]) * valid
        cost = cross_entropy_cost(scores[images], objects)
        cost += _OFF_CENTRE_COST * ~(inside & central) - 3.0 * (iou + 1e-7).log()
        matches = match_cheapest(cost.masked_fill(~valid, torch.inf), iou, objects, _TOPK)
        parts.append(matches._replace(image=matches.image + images.start))
    return concatenate_matches(parts, boxes)


def _near_centre(points: Tensor, strides: Tensor, objects: Objects) -> Tensor:
    """Return (B, G, P) whether a point lies in the square of 2.5 cells around the object's centre."""
    x, y = objects.centres.unsqueeze(-2).unbind(-1)
    reach = _CENTRE_RADIUS * strides
    near = ((x - points[:, 0]).abs() < reach) & ((y - points[:, 1]).abs() < reach)
    return near & objects.real.unsqueeze(-1)
