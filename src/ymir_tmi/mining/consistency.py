"""How far a detection and its counterpart in a changed copy of the image agree (docs/specs/mining.md, section 4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ymir_tmi.geometry.boxes import pairwise_iou
from ymir_tmi.geometry.rotated import pairwise_rotated_iou
from ymir_tmi.models.interface import Detections

Floats = npt.NDArray[np.float64]

BETA = 1.3
"""Agreement of the most informative detections."""


class Match(NamedTuple):
    """For each of n detections, its counterpart in a copy: the detection there that overlaps it most.

    Attributes:
        rows: (n,) which detection of the copy.
        ious: (n,) how much they overlap.
    """

    rows: npt.NDArray[np.int64]
    ious: Floats


def best_matches(mapped: npt.NDArray[Any], found: npt.NDArray[Any]) -> Match:
    """Return for each of n mapped boxes the one of m boxes found that overlaps it most, the first on ties.

    Args:
        mapped: (n, 4) upright or (n, 5) rotated boxes.
        found: (m, 4) or (m, 5), as `mapped` is.
    """
    first, second = (torch.from_numpy(boxes.astype(np.float64)) for boxes in (found, mapped))
    is_rotated = mapped.shape[1] == 5
    overlaps = pairwise_rotated_iou(first, second) if is_rotated else pairwise_iou(first, second, eps=1e-14)
    ious = overlaps.numpy()
    rows = ious.argmax(0)
    return Match(rows, ious[rows, np.arange(len(mapped))])


def agreement(originals: Detections, found: Detections, match: Match) -> Floats:
    """Return (n,) M of each detection with its counterpart.

    The classes are compared as distributions over all classes; with one class, as its confidence against the rest.
    """
    now = found[match.rows]
    if originals.class_scores.shape[1] > 1:
        divergence = jensen_shannon(_normalised(originals.class_scores), _normalised(now.class_scores))
    else:
        divergence = jensen_shannon(two_way(originals.scores), two_way(now.scores))
    confidences = originals.scores.astype(np.float64) + now.scores
    values: Floats = match.ious + confidences / 2 * (1 - divergence)
    return values


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """Return (n,) the divergence in nats of two (n, C) arrays of distributions, never below 0."""
    mean = (p + q) / 2
    return np.maximum(0.0, (_negative_entropy(p) + _negative_entropy(q)) / 2 - _negative_entropy(mean))


def two_way(confidences: npt.NDArray[Any]) -> Floats:
    """Return (n, 2) the distribution over "it is" and "it is not"."""
    c = confidences.astype(np.float64)
    return np.stack([c, 1 - c], axis=1)


def _normalised(class_scores: npt.NDArray[np.float32]) -> Floats:
    scores = class_scores.astype(np.float64)
    values: Floats = scores / scores.sum(axis=1, keepdims=True)
    return values


def _negative_entropy(p: Floats) -> Floats:
    return np.asarray((p * np.log(np.maximum(p, 1e-300))).sum(axis=1))
