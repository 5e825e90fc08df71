"""Task-aligned assignment (Feng et al., "TOOD", 2021): the priors that classify and place an object best.

Facts: docs/specs/detectors.md, section 10.3.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ymir_tmi.geometry.boxes import aligned_ciou, collapse_swapped, pairwise_iou, points_inside
from ymir_tmi.models.assign.matching import (
    Objects,
    chunk_objects,
    concatenate_matches,
    make_matches,
    settle_claims,
)
from ymir_tmi.models.dense import Priors
from ymir_tmi.models.interface import Matches, Targets


class TaskAligned(NamedTuple):
    """What families differ in.

    Attributes:
        topk: priors that an object claims at most.
        alpha: exponent of the class probability.
        beta: exponent of the overlap.
        eps: added to the best alignment of an object before it divides.
        overlap: how predicted boxes and objects are compared.
    """

    topk: int
    alpha: float
    beta: float
    eps: float
    overlap: Literal["iou", "ciou"]


def assign_task_aligned(
    boxes: Tensor, scores: Tensor, priors: Priors, targets: Targets, options: TaskAligned
) -> Matches:
    """Assign priors to objects; the quality of a match is its soft class target.

    The alignment of a pair is score^alpha * overlap^beta. Every object claims the priors inside of it that align best;
    one that aligns with none claims none. A prior that several objects claim goes to the object that its box overlaps
    most. The soft target of a prior is its alignment, scaled so that the best of an object has its best overlap.

    Args:
        boxes: (B, P, 4) predicted xyxy boxes in pixels of the network input.
        scores: (B, P, C) class probabilities.
        priors: the P priors.
        targets: the objects of the batch.
        options: what families differ in.
    """
    parts = []
    for images, objects in chunk_objects(targets, len(priors.points), boxes):
        overlap = _overlap(objects.boxes, boxes[images], options.overlap)
        own = scores[images].mT.gather(1, objects.labels.unsqueeze(-1).expand(-1, -1, scores.shape[1]))
        alignment = own.pow(options.alpha) * overlap.pow(options.beta)
        claims = _claim_best(alignment * points_inside(priors.points, objects.boxes), options.topk)
        image, prior, gt = settle_claims(claims, overlap)
        quality = _soft_targets(alignment[image, gt, prior], overlap[image, gt, prior], (image, gt), objects, options)
        matches = make_matches(image, prior, gt, objects, quality)
        parts.append(matches._replace(image=image + images.start))
    return concatenate_matches(parts, boxes)


def _overlap(objects: Tensor, boxes: Tensor, kind: str) -> Tensor:
    """Return (B, G, P) overlaps of (B, G, 4) objects with (B, P, 4) predicted boxes, at least 0."""
    if kind == "ciou":
        return aligned_ciou(boxes.unsqueeze(1), objects.unsqueeze(2)).clamp_(min=0)
    return pairwise_iou(objects, collapse_swapped(boxes), eps=1e-9)


def _claim_best(alignment: Tensor, topk: int) -> Tensor:
    """Return (B, G, P) whether a prior is among the `topk` of an object that align best, and aligns at all."""
    best = alignment.topk(min(topk, alignment.shape[-1]), dim=-1)
    return torch.zeros_like(alignment, dtype=torch.bool).scatter_(-1, best.indices, best.values > 0)


def _soft_targets(
    alignment: Tensor, overlap: Tensor, pairs: tuple[Tensor, Tensor], objects: Objects, options: TaskAligned
) -> Tensor:
    """Return (N,) soft class targets of the pairs of a prior and the object that an image and a number name."""
    shape = objects.real.shape
    index = pairs[0] * shape[1] + pairs[1]
    best_alignment, best_overlap = (
        values.new_zeros(shape.numel()).scatter_reduce_(0, index, values, "amax") for values in (alignment, overlap)
    )
    return alignment * best_overlap[index] / (best_alignment[index] + options.eps)
