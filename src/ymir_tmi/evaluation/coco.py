"""COCO's average precision and recall, by faster-coco-eval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval import mask as coco_mask

from ymir_tmi.data.index import CROWD, DIFFICULT, DatasetIndex
from ymir_tmi.evaluation.masks import Counts, ObjectMasks
from ymir_tmi.evaluation.matching import Found
from ymir_tmi.evaluation.results import CocoNumbers, Curve

_IOU50, _IOU75 = 0, 5  # of 0.50, 0.55, ..., 0.95
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # of the area ranges
_ONE, _TEN, _MAX = range(3)  # of the numbers of detections per class and image

Table = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CocoTables:
    """Everything that COCO's numbers are means of; -1 where there is no object.

    Attributes:
        precision: (10 IoUs, 101 recalls, K classes, 4 areas, 3 numbers of detections).
        scores: the score at which `precision` is reached; of the same shape.
        recall: (10, K, 4, 3), the highest recall.
    """

    precision: Table
    scores: Table
    recall: Table

    def numbers(self) -> CocoNumbers:
        """Return the means over the classes that have objects."""
        ap, ar = self.precision[..., _MAX], self.recall
        return CocoNumbers(
            AP=_mean(ap[..., _ALL]),
            AP50=_mean(ap[_IOU50, ..., _ALL]),
            AP75=_mean(ap[_IOU75, ..., _ALL]),
            AP_small=_mean(ap[..., _SMALL]),
            AP_medium=_mean(ap[..., _MEDIUM]),
            AP_large=_mean(ap[..., _LARGE]),
            AR_1=_mean(ar[..., _ALL, _ONE]),
            AR_10=_mean(ar[..., _ALL, _TEN]),
            AR_max=_mean(ar[..., _ALL, _MAX]),
            AR_small=_mean(ar[..., _SMALL, _MAX]),
            AR_medium=_mean(ar[..., _MEDIUM, _MAX]),
            AR_large=_mean(ar[..., _LARGE, _MAX]),
        )

    def class_ap(self, label: int) -> tuple[float | None, float | None]:
        """Return AP and AP50 of one class."""
        precision = self.precision[:, :, label, _ALL, _MAX]
        return _mean(precision), _mean(precision[_IOU50])

    def class_curve(self, label: int) -> Curve | None:
        """Return precision over recall of one class at IoU 0.5, or None if it has no objects."""
        precision = self.precision[_IOU50, :, label, _ALL, _MAX]
        if precision[0] < 0:
            return None
        scores = self.scores[_IOU50, :, label, _ALL, _MAX]
        recall = np.linspace(0, 1, len(precision))
        # Six digits draw any curve; the full ones would make most of the file.
        return Curve(
            recall=recall.round(2).tolist(), precision=precision.round(6).tolist(), scores=scores.round(6).tolist()
        )


def coco_tables(index: DatasetIndex, found: Found, max_dets: int, masks: ObjectMasks | None = None) -> CocoTables:
    """Run COCO's evaluation of boxes, or of masks where those of the objects are given.

    At most `max_dets` detections per image and class take part. As COCO's server does, a detection is small, medium or
    large by its box where boxes are measured, and by its mask where masks are.
    """
    images = [{"id": int(image)} for image in index.image_ids]
    if masks is not None:
        for entry, (width, height) in zip(images, masks.sizes.tolist(), strict=True):
            entry |= {"width": width, "height": height}
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(index.class_names)]
    truth = COCO({"images": images, "categories": categories, "annotations": _objects(index, masks)})
    results = COCO({"images": images, "categories": categories, "annotations": _results(index, found, masks)})
    evaluation = COCOeval_faster(truth, results, "bbox" if masks is None else "segm")
    # Ascending even for a small max_dets: the library sorts them, and as many detections take part as the last says.
    evaluation.params.maxDets = [min(1, max_dets), min(10, max_dets), max_dets]
    evaluation.evaluate()
    evaluation.accumulate()
    tables = evaluation.eval
    return CocoTables(tables["precision"], tables["scores"], tables["recall"])


def _objects(index: DatasetIndex, masks: ObjectMasks | None) -> list[dict[str, Any]]:
    # An object outside of every area range is ignored, and still takes a detection that overlaps it: that is what
    # difficult objects need. COCO's own flag `ignore` is overwritten by `iscrowd`, in pycocotools as well.
    areas = np.where(index.flags & DIFFICULT, np.inf, index.areas)
    columns = _columns(index, index.image_of_box(), index.boxes, index.labels, areas)
    crowd = (index.flags & CROWD).tolist()
    for row, flag in zip(columns, crowd, strict=True):
        row["iscrowd"] = flag
    if masks is not None:
        _add_masks(columns, masks.sizes[index.image_of_box()], masks.counts)
    return columns


def _results(index: DatasetIndex, found: Found, masks: ObjectMasks | None) -> list[dict[str, Any]]:
    areas = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
    columns = _columns(index, found.images, found.boxes, found.labels, areas)
    for row, score in zip(columns, found.scores.tolist(), strict=True):
        row["score"] = score
    if masks is not None:
        assert found.masks is not None
        _add_masks(columns, masks.sizes[found.images], found.masks)
        areas = coco_mask.area([row["segmentation"] for row in columns]) if columns else []
        for row, area in zip(columns, areas, strict=True):
            row["area"] = int(area)
    return columns


def _add_masks(columns: list[dict[str, Any]], sizes: npt.NDArray[np.int64], counts: Counts) -> None:
    for row, (width, height), each in zip(columns, sizes.tolist(), counts, strict=True):
        row["segmentation"] = {"size": [height, width], "counts": each}


def _columns(index: DatasetIndex, images: Any, boxes: Any, labels: Any, areas: Any) -> list[dict[str, Any]]:
    """Return one dictionary a box, in COCO's terms. Ids start at 1: a match with 0 would read as none."""
    corners = np.asarray(boxes, np.float64)
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    columns = zip(index.image_ids[images].tolist(), (labels + 1).tolist(), xywh.tolist(), areas.tolist(), strict=True)
    return [
        {"id": row, "image_id": image, "category_id": category, "bbox": box, "area": area}
        for row, (image, category, box, area) in enumerate(columns, start=1)
    ]


def _mean(values: Table) -> float | None:
    """Return the mean of the values of classes with objects, or None where no class has any."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else None
