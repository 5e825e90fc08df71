"""DOTA's average precision of rotated boxes, as its development kit and mmrotate compute it.

Facts: docs/specs/rotated.md, section "DOTA evaluation (mAP)". It differs from COCO's in three ways: a detection looks
at no object but the one that it overlaps most, taken or not; the area below precision over recall is taken, or the mean
precision at 11 recalls (PASCAL VOC 2007); and there are no sizes of objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.evaluation.matching import Floats, Found, Pairs, Rows
from ymir_tmi.evaluation.results import Curve, DotaNumbers

_IOUS = np.linspace(0.5, 0.95, 10)
_IOU50, _IOU75 = 0, 5
# The kit's own numbers: the fourth is 0.30000000000000004, which a recall of 3/10 does not reach.
_ELEVEN = np.arange(11, dtype=np.float64) * 0.1
_CURVE = np.linspace(0, 1, 101, dtype=np.float64)

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision over recall of one class at one IoU.

    Attributes:
        scores: (n,) of the detections that count, from the highest on.
        recall: (n,) of the detections up to there.
        precision: (n,) highest at this recall or more.
    """

    scores: Floats
    recall: Floats
    precision: Floats

    def area(self) -> float:
        """Return the area below the curve."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))

    def at(self, recalls: Floats) -> tuple[Floats, Floats]:
        """Return the precision at each recall and the score that reaches it; 0 where none does."""
        rows = np.searchsorted(self.recall, recalls)
        return np.append(self.precision, 0.0)[rows], np.append(self.scores, 0.0)[rows]


@dataclass(frozen=True)
class DotaTables:
    """Everything that DOTA's numbers are means of; NaN where there is no object.

    Attributes:
        area: (10 IoUs, K classes), the area below precision over recall.
        eleven: (10, K), the mean precision at 11 recalls.
        curves: K curves at IoU 0.5, None of a class without objects.
    """

    area: Floats
    eleven: Floats
    curves: list[PrecisionRecall | None]

    def numbers(self) -> DotaNumbers:
        """Return the means over the classes that have objects."""
        return _numbers(self.area, self.eleven)

    def class_numbers(self, label: int) -> DotaNumbers:
        """Return the numbers of one class."""
        return _numbers(self.area[:, [label]], self.eleven[:, [label]])

    def class_ap(self, label: int) -> tuple[float | None, float | None]:
        """Return AP and AP50 of one class."""
        numbers = self.class_numbers(label)
        return numbers.AP, numbers.AP50

    def class_curve(self, label: int) -> Curve | None:
        """Return precision over recall of one class at IoU 0.5, or None if it has no objects."""
        curve = self.curves[label]
        if curve is None:
            return None
        precision, scores = curve.at(_CURVE)
        return Curve(
            recall=_CURVE.round(2).tolist(), precision=precision.round(6).tolist(), scores=scores.round(6).tolist()
        )


def dota_tables(index: DatasetIndex, found: Found, pairs: Pairs) -> DotaTables:
    """Run DOTA's evaluation of rotated boxes.

    Args:
        index: the annotations; crowd regions count as difficult objects.
        found: the detections.
        pairs: those of `matching.overlapping_pairs`.
    """
    objects, ious = _most_overlapped(index, found, pairs)
    order = np.argsort(-found.scores, kind="stable")
    order = order[np.argsort(found.labels[order], kind="stable")]
    rows_of_class = np.split(order, np.searchsorted(found.labels[order], np.arange(1, index.num_classes)))
    counts = np.bincount(index.labels[index.flags == 0], minlength=index.num_classes).tolist()

    tables = np.full((2, len(_IOUS), index.num_classes), np.nan)
    curves: list[PrecisionRecall | None] = [None] * index.num_classes
    for label, (rows, count) in enumerate(zip(rows_of_class, counts, strict=True)):
        if count:
            each = [_curve(index, found.scores[rows], objects[rows], ious[rows] >= iou, count) for iou in _IOUS]
            tables[0, :, label] = [curve.area() for curve in each]
            tables[1, :, label] = [curve.at(_ELEVEN)[0].mean() for curve in each]
            curves[label] = each[_IOU50]
    return DotaTables(tables[0], tables[1], curves)


def _most_overlapped(index: DatasetIndex, found: Found, pairs: Pairs) -> tuple[Rows, Floats]:
    """Return (D,) the object of its class that each detection overlaps most, -1 below IoU 0.5, and the overlap."""
    ignored = index.flags != 0
    image_of = index.image_of_box()
    # Where an image has difficult objects only, they are forgotten.
    counts = np.bincount(image_of[~ignored], minlength=len(index))[image_of] > 0
    usable = (index.labels[pairs.objects] == found.labels[pairs.detections]) & counts[pairs.objects]
    detections, objects, ious = (column[usable] for column in pairs)
    # Of equal overlaps an object that counts goes first, then the earlier one.
    order = np.lexsort((objects, ignored[objects], -ious, detections))
    rows, first = np.unique(detections[order], return_index=True)
    chosen, overlap = np.full(len(found), -1, np.int64), np.zeros(len(found))
    chosen[rows], overlap[rows] = objects[order][first], ious[order][first]
    return chosen, overlap


def _curve(index: DatasetIndex, scores: Floats, objects: Rows, overlaps: Flags, count: int) -> PrecisionRecall:
    """Return the curve of detections in the order of their scores; the first one on each object is a true positive."""
    counts = ~(overlaps & (index.flags[objects] != 0))
    scores, objects, overlaps = scores[counts], objects[counts], overlaps[counts]
    on_object = np.flatnonzero(overlaps)
    _, first = np.unique(objects[on_object], return_index=True)
    hits = np.zeros(len(scores), bool)
    hits[on_object[first]] = True

    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    return PrecisionRecall(scores, found / count, np.maximum.accumulate(precision[::-1])[::-1])


def _numbers(area: Floats, eleven: Floats) -> DotaNumbers:
    return DotaNumbers(
        AP=_mean(area),
        AP50=_mean(area[_IOU50]),
        AP75=_mean(area[_IOU75]),
        AP_11points=_mean(eleven),
        AP50_11points=_mean(eleven[_IOU50]),
        AP75_11points=_mean(eleven[_IOU75]),
    )


def _mean(values: Floats) -> float | None:
    """Return the mean of the values of classes with objects, or None where no class has any."""
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else None
