"""Which images went best and worst."""

from __future__ import annotations

import numpy as np

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.evaluation.matching import Found, Matches
from ymir_tmi.evaluation.results import ImageScore


def rank_images(index: DatasetIndex, found: Found, matches: Matches, threshold: float) -> list[ImageScore]:
    """Return the images from best to worst, by panoptic quality of the detections that score `threshold` or more.

    Panoptic quality is the F1 score times the mean IoU of the matched objects (Kirillov et al., "Panoptic
    Segmentation", CVPR 2019), here of boxes or masks, whichever were matched. Among equals, the image with fewer
    mistakes comes first. Images with neither objects nor detections have no quality and are left out.
    """
    passed = found.scores >= threshold
    hit = matches.hit & passed
    false = passed & ~matches.hit & ~matches.ignored
    count = len(index)
    hits = np.bincount(found.images[hit], minlength=count)
    falses = np.bincount(found.images[false], minlength=count)
    misses = np.bincount(index.image_of_box()[index.flags == 0], minlength=count) - hits
    overlap = np.bincount(found.images[hit], weights=matches.ious[hit], minlength=count)

    mistakes = misses + falses
    quality = overlap / np.maximum(hits + mistakes / 2, 0.5)
    order = np.lexsort((-hits, mistakes, -quality))
    return [
        ImageScore(
            position=int(row),
            path=index.paths[row],
            score=float(quality[row]),
            true_positives=int(hits[row]),
            missed=int(misses[row]),
            false_positives=int(falses[row]),
        )
        for row in order[(hits + mistakes)[order] > 0]
    ]
