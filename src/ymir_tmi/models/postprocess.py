"""From one box per prior to detections.

Facts: docs/specs/detectors.md, section 12; docs/specs/rotated.md, section "Post-processing"; docs/specs/yolov5.md,
section 6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ymir_tmi.config.schema import PassSettings, RunSettings
from ymir_tmi.data.letterbox import Frame
from ymir_tmi.geometry.nms import class_aware_nms, rotated_nms
from ymir_tmi.models.interface import DenseDetections, Detections, PostprocessSpec
from ymir_tmi.models.masks import encode_masks, mask_maps


class Found(NamedTuple):
    """What was found in one picture.

    Attributes:
        detections: with masks if they were asked for.
        maps: (n, mh, mw) probabilities that their masks are made from, see `mask_maps`; None if no one asked.
    """

    detections: Detections
    maps: Tensor | None


_MOST = 100  # as COCO's evaluation counts
_MOST_OF_MANY = 2000  # as rotated RTMDet's test on DOTA keeps; an aerial image has so many objects


def resolve_max_dets(settings: RunSettings, *, rotated: bool) -> int:
    """Return the detections that a verb keeps per image, where the user leaves it open: by kind and size of images.

    Args:
        settings: of the verb.
        rotated: whether boxes are rotated ones, which aerial images are full of.
    """
    if settings.max_dets is not None:
        return settings.max_dets
    cut = isinstance(settings, PassSettings) and settings.tile is not None
    return _MOST_OF_MANY if rotated or cut else _MOST


def detect(
    dense: DenseDetections,
    frames: Sequence[Frame],
    spec: PostprocessSpec,
    *,
    class_groups: Sequence[Sequence[int]] | None = None,
    masks: bool = False,
) -> list[Detections]:
    """Return what was found in each picture of a batch, in pixels of the picture; see `find`."""
    return [found.detections for found in find(dense, frames, spec, class_groups=class_groups, masks=masks)]


def find(
    dense: DenseDetections,
    frames: Sequence[Frame],
    spec: PostprocessSpec,
    *,
    class_groups: Sequence[Sequence[int]] | None = None,
    masks: bool = False,
    maps: bool = False,
) -> list[Found]:
    """Return what was found in each picture of a batch, in pixels of the picture.

    Args:
        dense: boxes and scores of every prior of B pictures, on any device.
        frames: where each of the B pictures lies in the network input.
        spec: thresholds, limits and the order of the steps.
        class_groups: for each class of the result, the columns of `dense.scores` that it stands for; its score is the
            largest of them. None leaves the classes as they are.
        masks: whether detections get their masks; `dense` has what they are made of.
        maps: whether to return the maps of the masks.
    """
    scores = dense.scores if class_groups is None else merge_classes(dense.scores, class_groups)
    results = []
    for row, frame in enumerate(frames):
        detections, prior = _detect_one(dense.boxes[row].detach(), scores[row].detach(), dense.level_sizes, frame, spec)
        made = _maps_of(dense, row, prior) if masks or maps else None
        if masks and made is not None:
            detections = dataclasses.replace(detections, masks=encode_masks(made, detections.boxes, frame))
        results.append(Found(detections, made if maps else None))
    return results


def _maps_of(dense: DenseDetections, row: int, prior: Tensor) -> Tensor:
    assert dense.coefficients is not None and dense.prototypes is not None
    return mask_maps(dense.coefficients[row, prior].detach(), dense.prototypes[row].detach())


def merge_classes(scores: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """Return (..., len(groups)) the largest of each group of columns of (..., C) scores."""
    if all(len(group) == 1 for group in groups):
        return scores[..., [group[0] for group in groups]]
    return torch.stack([scores[..., list(group)].amax(-1) for group in groups], dim=-1)


class _Candidates(NamedTuple):
    """(N,) each: prior, class and score of what enters NMS."""

    prior: Tensor
    label: Tensor
    score: Tensor

    def take(self, rows: Tensor) -> _Candidates:
        return _Candidates(self.prior[rows], self.label[rows], self.score[rows])


def _detect_one(
    boxes: Tensor, scores: Tensor, level_sizes: Sequence[int], frame: Frame, spec: PostprocessSpec
) -> tuple[Detections, Tensor]:
    """Do it for one picture: (P, 4) or rotated (P, 5) boxes in pixels of the network input, (P, C) scores.

    Also return the prior of each detection.
    """
    found = _candidates(scores, level_sizes, spec)
    suppress = _suppress_rotated if boxes.shape[1] == 5 else _suppress
    places, found = suppress(boxes[found.prior], found, frame, spec)
    detections = Detections(
        boxes=places.cpu().numpy().astype(np.float32),
        scores=found.score.cpu().numpy().astype(np.float32),
        labels=found.label.cpu().numpy(),
        class_scores=scores[found.prior].cpu().numpy().astype(np.float32),
    )
    return detections, found.prior


def _suppress(boxes: Tensor, found: _Candidates, frame: Frame, spec: PostprocessSpec) -> tuple[Tensor, _Candidates]:
    """Return what NMS leaves of (N, 4) boxes, in pixels of the picture."""
    places = frame.to_picture(boxes)
    if spec.clip == "before_nms":
        places = _clip(places, frame)
        real = _not_empty(places)
        places, found = places[real], found.take(real)
    kept = class_aware_nms(places, found.score, found.label, spec.iou_threshold, limit=spec.max_detections)
    places, found = places[kept], found.take(kept)
    if spec.clip == "after_nms":
        places = _clip(places, frame)
        if spec.drop_empty:
            real = _not_empty(places)
            places, found = places[real], found.take(real)
    return places, found


def _suppress_rotated(
    boxes: Tensor, found: _Candidates, frame: Frame, spec: PostprocessSpec
) -> tuple[Tensor, _Candidates]:
    """Return what NMS leaves of (N, 5) rotated boxes, in pixels of the picture; those without area are dropped."""
    real = (boxes[:, 2:4] > 0).all(1).nonzero().squeeze(1)
    places, found = frame.rotated_to_picture(boxes[real]), found.take(real)
    kept = rotated_nms(places, found.score, found.label, spec.iou_threshold, limit=spec.max_detections)
    return places[kept], found.take(kept)


def _candidates(scores: Tensor, level_sizes: Sequence[int], spec: PostprocessSpec) -> _Candidates:
    """Return the best pairs of a prior and a class (or of a prior and its best class) that pass the threshold."""
    if spec.multi_label:
        per_prior, flat = scores.shape[1], scores.flatten()
    else:
        per_prior, (flat, best) = 1, scores.max(1)
    passes = flat >= spec.score_threshold if spec.inclusive else flat > spec.score_threshold
    rows = _limit(passes.nonzero().squeeze(1), flat, [size * per_prior for size in level_sizes], spec)
    prior = rows // per_prior
    return _Candidates(prior, rows % per_prior if spec.multi_label else best[prior], flat[rows])


def _limit(rows: Tensor, values: Tensor, level_sizes: Sequence[int], spec: PostprocessSpec) -> Tensor:
    """Keep the rows with the best values, of the picture or of each level; `rows` are ascending."""
    if spec.candidates is None or len(rows) <= spec.candidates:
        return rows
    parts = torch.split(rows, _counts(rows, level_sizes)) if spec.candidates_per_level else [rows]
    return torch.cat([part[values[part].topk(min(spec.candidates, len(part))).indices] for part in parts])


def _counts(rows: Tensor, level_sizes: Sequence[int]) -> list[int]:
    """Return how many of the ascending `rows` lie in each level."""
    ends = torch.tensor(level_sizes, device=rows.device).cumsum(0)
    counts: list[int] = torch.searchsorted(rows, ends).diff(prepend=ends.new_zeros(1)).tolist()
    return counts


def _clip(boxes: Tensor, frame: Frame) -> Tensor:
    x, y = boxes[:, 0::2].clamp(0, frame.width), boxes[:, 1::2].clamp(0, frame.height)
    return torch.stack([x, y], dim=-1).flatten(1)


def _not_empty(boxes: Tensor) -> Tensor:
    """Return the rows of the boxes that have a width and a height."""
    return (boxes[:, 2:] > boxes[:, :2]).all(1).nonzero().squeeze(1)
