"""Which detection found which object, at one IoU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import CROWD, DatasetIndex

MATCH_IOU = 0.5

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """The detections of all images, image after image.

    Attributes:
        images: (D,) int64, row of the image in the index.
        boxes: (D, 4) float64 xyxy in pixels of the picture.
        scores: (D,) float64.
        labels: (D,) int64, position in the class names of the index.
    """

    images: Rows
    boxes: Floats
    scores: Floats
    labels: Rows

    def __len__(self) -> int:
        return len(self.scores)

    def at_least(self, threshold: float) -> Found:
        """Return the detections that score `threshold` or more."""
        rows = self.scores >= threshold
        return Found(self.images[rows], self.boxes[rows], self.scores[rows], self.labels[rows])


@dataclass(frozen=True)
class Matches:
    """The object that each detection found.

    Whatever scores lower has no influence on a detection's match: the matches among the detections above a threshold
    are those of all detections, cut at the threshold.

    Attributes:
        objects: (D,) int64, row of the object in the annotations, or -1.
        ious: (D,) float64, overlap with it, 0 where there is none.
        hit: (D,) bool, the object counts: a true positive.
        ignored: (D,) bool, the object is a crowd region or difficult: neither a true nor a false positive.
    """

    objects: Rows
    ious: Floats
    hit: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]


def match(index: DatasetIndex, found: Found, *, across_classes: bool = False) -> Matches:
    """Match detections with objects at IoU 0.5, as COCO does: the best detection chooses first.

    A detection takes the object that it overlaps most among those of its image and class that are not taken yet and
    overlap by at least 0.5; one that counts goes before one that is ignored. A crowd region can be taken any number of
    times, and its overlap is the part of the detection that lies inside it.

    Args:
        index: the annotations.
        found: the detections.
        across_classes: Also match objects of other classes (unless they are ignored), after those of the own class.
    """
    detections, objects, ious = _overlapping_pairs(index, found)
    ignored = index.flags != 0
    wrong_class = found.labels[detections] != index.labels[objects]
    usable = ~wrong_class | (~ignored[objects] if across_classes else False)
    detections, objects, ious, wrong_class = (column[usable] for column in (detections, objects, ious, wrong_class))

    rank = np.empty(len(found), np.int64)
    rank[np.argsort(-found.scores, kind="stable")] = np.arange(len(found))
    # By detection, best first; within one the object it would take first. Of equal overlaps COCO takes the last.
    order = np.lexsort((-objects, -ious, ignored[objects], wrong_class, rank[detections]))
    pairs = _choose(detections[order], objects[order], len(found), (index.flags & CROWD) != 0)

    chosen = order[pairs]
    matched = np.full(len(found), -1, np.int64)
    matched[detections[chosen]] = objects[chosen]
    overlap = np.zeros(len(found))
    overlap[detections[chosen]] = ious[chosen]
    has_object = matched >= 0
    is_ignored = np.zeros(len(found), bool)
    is_ignored[has_object] = ignored[matched[has_object]]
    return Matches(matched, overlap, has_object & ~is_ignored, is_ignored)


def _choose(detections: Rows, objects: Rows, count: int, crowd: npt.NDArray[np.bool_]) -> Rows:
    """Return the pairs whose detection and object are both free when their turn comes."""
    # Each choice depends on those before it; the loop runs over overlapping pairs only, a small part of the detections.
    waiting, taken, chosen = bytearray(b"\1" * count), bytearray(len(crowd)), []
    for pair, (detection, obj) in enumerate(zip(detections.tolist(), objects.tolist(), strict=True)):
        if waiting[detection] and not taken[obj]:
            waiting[detection] = False
            taken[obj] = not crowd[obj]
            chosen.append(pair)
    return np.asarray(chosen, np.int64)


def _overlapping_pairs(index: DatasetIndex, found: Found) -> tuple[Rows, Rows, Floats]:
    """Return the detection, the object and the IoU of every pair within an image that overlaps by at least 0.5."""
    starts = np.searchsorted(found.images, np.arange(len(index) + 1))
    crowd = (index.flags & CROWD) != 0
    pairs: list[tuple[Rows, Rows, Floats]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for image in np.flatnonzero(np.diff(starts) * np.diff(index.starts)).tolist():
        rows = index.rows(image)
        ious = overlaps(found.boxes[starts[image] : starts[image + 1]], index.boxes[rows].astype(float), crowd[rows])
        detections, objects = np.nonzero(ious >= MATCH_IOU)
        pairs.append((detections + starts[image], objects + rows.start, ious[detections, objects]))
    detections, objects, overlap = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return detections, objects, overlap


def overlaps(boxes: Floats, objects: Floats, crowd: npt.NDArray[np.bool_]) -> Floats:
    """Return (n, m) the IoU of (n, 4) `boxes` with (m, 4) `objects`, xyxy; with a crowd, the part of the box in it."""
    corner = np.maximum(boxes[:, None, :2], objects[None, :, :2])
    sides = np.minimum(boxes[:, None, 2:], objects[None, :, 2:]) - corner
    shared = np.prod(sides.clip(0), axis=2)
    own = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)[:, None]
    whole = own + np.prod(objects[:, 2:] - objects[:, :2], axis=1) - shared
    denominator = np.where(crowd, own, whole)
    ious: Floats = np.divide(shared, denominator, out=np.zeros_like(shared), where=denominator > 0)
    return ious
