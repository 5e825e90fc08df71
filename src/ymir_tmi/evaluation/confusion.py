"""What objects were taken for."""

from __future__ import annotations

import numpy as np

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.evaluation.matching import MATCH_IOU, Found, Pairs, match
from ymir_tmi.evaluation.results import Confusion


def confusion_matrix(index: DatasetIndex, found: Found, threshold: float, pairs: Pairs) -> Confusion:
    """Count which class each object was detected as, among detections that score `threshold` or more.

    Detections are matched with objects of any class at IoU 0.5, the best score first; each takes an object of its own
    class if it overlaps one that is free, else the free object that it overlaps most. Crowd regions and difficult
    objects, and the detections on them, are left out. `pairs` are those of `matching.overlapping_pairs`.
    """
    matches = match(index, found, across_classes=True, pairs=pairs)
    passed = found.scores >= threshold  # the matches of these do not depend on the others
    background = index.num_classes
    matrix = np.zeros((background + 1, background + 1), np.int64)

    hit = matches.hit & passed
    np.add.at(matrix, (index.labels[matches.objects[hit]], found.labels[hit]), 1)
    false = passed & ~matches.hit & ~matches.ignored
    matrix[background] += np.bincount(found.labels[false], minlength=background + 1)
    missed = index.flags == 0
    missed[matches.objects[hit]] = False
    matrix[:, background] += np.bincount(index.labels[missed], minlength=background + 1)

    return Confusion(
        names=[*index.class_names, "background"], matrix=matrix.tolist(), threshold=threshold, iou=MATCH_IOU
    )
