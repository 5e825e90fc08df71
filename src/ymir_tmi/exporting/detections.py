"""Whether detections are what NMS leaves of given candidates, where rounding may have decided close cases otherwise."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ymir_tmi.geometry.boxes import pairwise_iou
from ymir_tmi.models.interface import PostprocessSpec

_OVERLAP = 10
"""An overlap may be wrong by so many times what boxes and scores may be wrong by."""


class MismatchError(Exception):
    """What a file computes is not what its model computes."""


class Found(NamedTuple):
    """Detections of one picture: boxes (n, 4), scores (n,), labels (n,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def compare_detections(
    found: Found, boxes: Tensor, scores: Tensor, spec: PostprocessSpec, allowed: float
) -> dict[str, float]:
    """Compare detections with the candidates they come from, by what NMS promises.

    Every detection is a candidate; no two of a class overlap; and what is missing overlaps a better one of its class,
    or is worse than all of a full list.

    Args:
        found: detections of one picture.
        boxes: (P, 4) boxes of the model.
        scores: (P, C) scores of the model.
        spec: thresholds and the number of detections.
        allowed: by how much scores may differ, and boxes as a part of the largest coordinate.

    Returns:
        The largest difference of boxes and of scores, in these terms.

    Raises:
        MismatchError: the detections are not those of the candidates.
    """
    differences = _origins(found, boxes, scores, allowed)
    _no_two_overlap(found, spec.iou_threshold + _OVERLAP * allowed)
    for label in range(scores.shape[1]):
        _nothing_is_missing(found, boxes, scores[:, label], label, spec, allowed)
    return differences


def _origins(found: Found, boxes: Tensor, scores: Tensor, allowed: float) -> dict[str, float]:
    """Find the candidate of every detection and return how far they lie from them."""
    scale = _scale(boxes)
    largest = {"boxes": 0.0, "scores": 0.0}
    for box, score, label in zip(*found, strict=True):
        away = (boxes - box).abs().amax(1) / scale
        off = (scores[:, label] - score).abs()
        near = torch.maximum(away, off)
        origin = int(near.argmin())
        if not near[origin] <= allowed:
            raise MismatchError(
                f"a detection of class {int(label)} with score {float(score):.4f} is none of the model's"
            )
        largest["boxes"] = max(largest["boxes"], float(away[origin]))
        largest["scores"] = max(largest["scores"], float(off[origin]))
    return largest


def _scale(boxes: Tensor) -> float:
    return max(1.0, float(boxes.abs().max()))


def _no_two_overlap(found: Found, most: float) -> None:
    overlaps = pairwise_iou(found.boxes, found.boxes).triu(1)
    same = found.labels.unsqueeze(0) == found.labels.unsqueeze(1)
    if (overlaps[same] > most).any():
        raise MismatchError("two detections of a class overlap")


def _nothing_is_missing(
    found: Found, boxes: Tensor, scores: Tensor, label: int, spec: PostprocessSpec, allowed: float
) -> None:
    """Look at the (P,) scores of one class."""
    lowest = spec.score_threshold
    if len(found.scores) == spec.max_detections:
        lowest = float(found.scores.min())
    rows = (scores > lowest + allowed).nonzero().squeeze(1)
    mine = found.labels == label
    overlaps = pairwise_iou(boxes[rows], found.boxes[mine]) > spec.iou_threshold - _OVERLAP * allowed
    better = found.scores[mine] > scores[rows].unsqueeze(1) - allowed
    itself = (boxes[rows].unsqueeze(1) - found.boxes[mine]).abs().amax(2) <= allowed * _scale(boxes)
    lost = ~(overlaps & better | itself).any(1)
    if lost.any():
        best = float(scores[rows][lost].max())
        raise MismatchError(f"a detection of class {label} with score {best:.4f} is missing")
