"""Larger and smaller views of one picture: a wide border, and a window around objects.

Sources: SSD (Liu et al., 2016), in the form that PP-YOLOE trains with (docs/specs/detectors.md, section 13).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.sample import Boxes, Sample
from ymir_tmi.data.transforms import clip_to_picture, pad

# The mean colour of ImageNet.
_FILL = (124, 116, 104)
_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
_SCALES = (0.3, 1.0)
_ASPECTS = (0.5, 2.0)
_TRIES = 50

Window = tuple[int, int, int, int]


def expand(sample: Sample, largest: float, rng: np.random.Generator) -> Sample:
    """Put the picture at a random place of one that is up to `largest` times as wide and high."""
    ratio = rng.uniform(1, largest)
    width, height = (int(side * ratio) for side in sample.size)
    left, top = (int(rng.integers(whole - part + 1)) for whole, part in zip((width, height), sample.size, strict=True))
    return pad(sample, width, height, left=left, top=top, fill=_FILL)


def crop_by_overlap(sample: Sample, rng: np.random.Generator) -> Sample:
    """Cut out a random window whose IoU with some object is at least a random threshold.

    Thresholds come in random order, among them "leave the picture as it is"; each has 50 tries to find a window. Of the
    window's objects those stay whose centre lies inside it, cut at its border; a window without such is none. Rotated
    boxes are not cut, and their IoU is that of the upright boxes around them.
    """
    if not len(sample.boxes):
        return sample
    upright = sample.upright
    for threshold in rng.permutation([*_OVERLAPS, np.inf]):
        if threshold == np.inf:
            break
        for _ in range(_TRIES):
            window = _random_window(*sample.size, rng)
            inside = _centres_inside(upright, window)
            if inside.any() and _largest_iou(upright, window) >= threshold:
                return _cut(sample, window, inside)
    return sample


def _random_window(width: int, height: int, rng: np.random.Generator) -> Window:
    """Return (x1, y1, x2, y2) of a random scale, a random aspect (relative to the picture's) and a random place."""
    scale = rng.uniform(*_SCALES)
    low, high = _ASPECTS
    stretch = math.sqrt(rng.uniform(max(low, scale**2), min(high, scale**-2)))
    sides = int(width * scale * stretch), int(height * scale / stretch)
    x, y = (int(rng.integers(whole - part + 1)) for whole, part in zip((width, height), sides, strict=True))
    return x, y, x + sides[0], y + sides[1]


def _centres_inside(boxes: Boxes, window: Window) -> npt.NDArray[np.bool_]:
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    x1, y1, x2, y2 = window
    x, y = centres.T
    inside: npt.NDArray[np.bool_] = (x > x1) & (x < x2) & (y > y1) & (y < y2)
    return inside


def _largest_iou(boxes: Boxes, window: Window) -> float:
    x1, y1, x2, y2 = window
    shared = np.minimum(boxes[:, 2:], (x2, y2)) - np.maximum(boxes[:, :2], (x1, y1))
    intersection = shared.clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return float((intersection / (areas + (x2 - x1) * (y2 - y1) - intersection)).max())


def _cut(sample: Sample, window: Window, inside: npt.NDArray[np.bool_]) -> Sample:
    x1, y1, x2, y2 = window
    return clip_to_picture(sample.keep(inside).moved(sample.image[y1:y2, x1:x2], (-x1, -y1)))
