"""SimOTA among candidates (YOLOv7): of the anchors that fit an object by shape, the cheapest are responsible for it.

Facts: docs/specs/detectors.md, section 10.4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ymir_tmi.geometry.boxes import pairwise_iou
from ymir_tmi.models.assign.matching import chunk_objects, concatenate_matches, cross_entropy_cost, match_cheapest
from ymir_tmi.models.interface import Matches, Targets

_TOPK = 10


def assign_cheapest_candidates(candidates: Matches, boxes: Tensor, scores: Tensor, targets: Targets) -> Matches:
    """Assign candidates to objects; not always to those that proposed them.

    A prior that several objects proposed is as many candidates.

    Args:
        candidates: N pairs of a prior and the object that proposes it.
        boxes: (N, 4) predicted xyxy boxes of these priors in pixels of the network input.
        scores: (N, C) square roots of class probability times objectness.
        targets: the objects of the batch.
    """
    images = len(targets.labels)
    order = candidates.image.argsort(stable=True)
    image = candidates.image[order]
    counts = torch.bincount(image, minlength=images)
    slot = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image]
    slots = int(counts.max())
    prior, boxes, scores = (
        _pad(values[order], image, slot, (images, slots)) for values in (candidates.prior, boxes, scores)
    )
    filled = torch.arange(slots, device=image.device) < counts.unsqueeze(1)

    parts = []
    for chunk, objects in chunk_objects(targets, slots, boxes):
        real = filled[chunk].unsqueeze(1)
        iou = pairwise_iou(objects.boxes, boxes[chunk]) * real
        cost = cross_entropy_cost(scores[chunk], objects) - 3.0 * (iou + 1e-8).log()
        matches = match_cheapest(cost.masked_fill(~real, torch.inf), iou, objects, _TOPK)
        rows = matches.image + chunk.start
        parts.append(matches._replace(image=rows, prior=prior[rows, matches.prior]))
    return concatenate_matches(parts, boxes)


def _pad(values: Tensor, image: Tensor, slot: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return (B, M, ...) with row n of (N, ...) `values` at [image[n], slot[n]], and zeros elsewhere."""
    padded = values.new_zeros(*shape, *values.shape[1:])
    padded[image, slot] = values
    return padded
