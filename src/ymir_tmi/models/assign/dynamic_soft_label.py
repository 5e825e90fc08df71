"""Dynamic soft label assignment (RTMDet): priors whose prediction is already good are responsible for an object.

Facts: docs/specs/detectors.md, section 10.6; docs/specs/rotated.md, section "Assignment".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ymir_tmi.geometry import rotated
from ymir_tmi.geometry.boxes import pairwise_iou, points_inside
from ymir_tmi.models.assign.matching import Objects, chunk_objects, concatenate_matches, match_cheapest
from ymir_tmi.models.dense import Priors
from ymir_tmi.models.interface import Matches, Targets

_TOPK = 13
_OUTSIDE_COST = 1e8
_LARGEST_COST = 1e30

# Of rotated boxes: how far inside a prior lies, in pixels; the shortest side and the farthest centre for overlaps.
_MARGIN = 0.01
_SHORTEST, _FARTHEST = 1e-3, 1e7
_PAIRS = 2**17  # overlaps computed together


def assign_dynamic_soft_label(boxes: Tensor, logits: Tensor, priors: Priors, targets: Targets, *, form: str) -> Matches:
    """Assign priors to objects.

    Args:
        boxes: (B, P, 4) predicted xyxy boxes in pixels of the network input, or (B, P, 5) rotated boxes.
        logits: (B, P, C) class logits.
        priors: the P priors.
        targets: the objects of the batch.
        form: "mmyolo" or "mmdet". They weigh classes differently, and mmyolo also lets priors outside of every object
            count and, where nothing else is left, be taken. Rotated boxes have the form "mmdet".
    """
    parts = []
    for images, objects in chunk_objects(targets, len(priors.points), boxes):
        assign = _assign_anywhere if form == "mmyolo" else _assign_inside
        matches = assign(boxes[images], logits[images], priors, objects)
        parts.append(matches._replace(image=matches.image + images.start))
    return concatenate_matches(parts, boxes)


def _assign_anywhere(boxes: Tensor, logits: Tensor, priors: Priors, objects: Objects) -> Matches:
    """Assign the priors of some images as mmyolo does."""
    valid = points_inside(priors.points, objects.boxes).any(dim=1, keepdim=True)
    iou = pairwise_iou(objects.boxes, boxes)
    cost = _class_cost(logits, objects, iou) + _pair_cost(iou, objects, priors)
    return match_cheapest(torch.where(valid, cost, _outside_cost(priors)), iou, objects, _TOPK)


def _assign_inside(boxes: Tensor, logits: Tensor, priors: Priors, objects: Objects) -> Matches:
    """Assign the priors of some images as mmdet and mmrotate do. Those outside of every object are left out at once."""
    valid = _inside(priors, objects).any(dim=1)
    rows = valid.any(dim=0).nonzero().squeeze(1)
    valid, boxes, logits = valid[:, None, rows], boxes[:, rows], logits[:, rows]
    some = Priors(priors.points[rows], priors.strides[rows], ())
    iou = _overlaps(objects, boxes, valid)
    # The other classes have target 0: their sum over all classes, less the object's own, does not depend on the pair.
    background = _background_cost(logits).sum(-1).unsqueeze(1) - _background_cost(_own(logits, objects))
    cost = _class_cost(logits, objects, iou) + background + _pair_cost(iou, objects, some)
    cost = cost.clamp(max=_LARGEST_COST).masked_fill(~valid, torch.inf)
    matches = match_cheapest(cost, iou * valid, objects, _TOPK)
    return matches._replace(prior=rows[matches.prior])


def _inside(priors: Priors, objects: Objects) -> Tensor:
    """Return (B, G, P) whether a prior lies inside of an object."""
    if objects.boxes.shape[-1] == 5:
        return rotated.points_inside(priors.points, objects.boxes, margin=_MARGIN)
    return points_inside(priors.points, objects.boxes)


def _overlaps(objects: Objects, boxes: Tensor, valid: Tensor) -> Tensor:
    """Return (B, G, P) overlaps of objects with (B, P, K) boxes; of rotated ones only where (B, 1, P) `valid`."""
    if boxes.shape[-1] == 4:
        return pairwise_iou(objects.boxes, boxes)
    overlaps = boxes.new_zeros(*objects.boxes.shape[:2], boxes.shape[1])
    for image, rows in enumerate(valid[:, 0]):
        prior = rows.nonzero().squeeze(1)
        first, second = _with_area(objects.boxes[image]), _with_area(boxes[image, prior])
        gt, near = rotated.neighbours(first, second)
        pairs = zip(torch.split(gt, _PAIRS), torch.split(near, _PAIRS), strict=True)
        values = [rotated.aligned_rotated_iou(first[row], second[column]) for row, column in pairs]
        overlaps[image, gt, prior[near]] = torch.cat(values)
    return overlaps


def _with_area(boxes: Tensor) -> Tensor:
    """Return (N, 5) boxes none of whose sides is 0 or negative: such a prediction overlaps next to nothing."""
    return torch.cat(
        [boxes[:, :2].clamp(-_FARTHEST, _FARTHEST), boxes[:, 2:4].clamp(min=_SHORTEST), boxes[:, 4:]], dim=1
    )


def _class_cost(logits: Tensor, objects: Objects, iou: Tensor) -> Tensor:
    """Return (B, G, P) cross entropy of the object's class with the overlap as soft target, times the squared error."""
    own = _own(logits, objects)
    return (F.softplus(own) - own * iou) * (iou - own.sigmoid()).square()


def _background_cost(logits: Tensor) -> Tensor:
    """Return the same for classes with target 0."""
    return F.softplus(logits) * logits.sigmoid().square()


def _own(logits: Tensor, objects: Objects) -> Tensor:
    """Return (B, G, P) the logits of each object's class."""
    return logits.mT.gather(1, objects.labels.unsqueeze(-1).expand(-1, -1, logits.shape[1]))


def _pair_cost(iou: Tensor, objects: Objects, priors: Priors) -> Tensor:
    """Return (B, G, P) the cost of a small overlap and that of a far centre: ten to the distance in cells, less 3."""
    x, y = objects.centres.unsqueeze(-2).unbind(-1)
    distance = ((x - priors.points[:, 0]).square() + (y - priors.points[:, 1]).square()).sqrt()
    return torch.pow(10.0, distance / priors.strides - 3.0) - 3.0 * (iou + 1e-7).log()


def _outside_cost(priors: Priors) -> Tensor:
    """Return (P,) the cost of priors outside of every object, rising slightly so that ties go to the first."""
    return (
        torch.linspace(1, 2, len(priors.points), dtype=priors.points.dtype, device=priors.points.device) * _OUTSIDE_COST
    )
