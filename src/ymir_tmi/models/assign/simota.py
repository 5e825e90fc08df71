"""SimOTA (YOLOX): the cheapest priors near an object's centre are responsible for it.

Facts: docs/specs/detectors.md, section 10.5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ymir_tmi.geometry.boxes import pairwise_iou, points_inside
from ymir_tmi.models.assign.matching import Objects, chunk_objects, concatenate_matches, match_cheapest
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
    background = (1 - scores).log().clamp(min=-100).sum(-1)
    parts = []
    for images, objects in chunk_objects(targets, len(centres), boxes):
        inside = points_inside(centres, objects.boxes)
        central = _near_centre(centres, priors.strides, objects)
        valid = (inside | central).any(dim=1, keepdim=True)
        iou = pairwise_iou(objects.boxes, boxes[images]) * valid
        cost = _class_cost(scores[images], background[images], objects)
        cost += _OFF_CENTRE_COST * ~(inside & central) - 3.0 * (iou + 1e-7).log()
        matches = match_cheapest(cost.masked_fill(~valid, torch.inf), iou, objects, _TOPK)
        parts.append(matches._replace(image=matches.image + images.start))
    return concatenate_matches(parts, boxes)


def _near_centre(points: Tensor, strides: Tensor, objects: Objects) -> Tensor:
    """Return (B, G, P) whether a point lies in the square of 2.5 cells around the object's centre."""
    middle = (objects.boxes[..., :2] + objects.boxes[..., 2:]) / 2
    x, y = middle.unsqueeze(-2).unbind(-1)
    reach = _CENTRE_RADIUS * strides
    near = ((x - points[:, 0]).abs() < reach) & ((y - points[:, 1]).abs() < reach)
    return near & objects.real.unsqueeze(-1)


def _class_cost(scores: Tensor, background: Tensor, objects: Objects) -> Tensor:
    """Return (B, G, P) binary cross entropy, summed over classes, of scores against the object's class.

    `background` (B, P) is the sum over all classes of the logarithm of one minus the score; the object's own class is
    exchanged in it, so that nothing has the size B x G x P x C.
    """
    own = scores.mT.gather(1, objects.labels.unsqueeze(-1).expand(-1, -1, scores.shape[1]))
    others = background.unsqueeze(1) - (1 - own).log().clamp(min=-100)
    return -own.log().clamp(min=-100) - others
