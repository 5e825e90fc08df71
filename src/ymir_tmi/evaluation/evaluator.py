"""From the detections of a data set to every number of its evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.errors import DataError
from ymir_tmi.evaluation.coco import CocoTables, coco_tables
from ymir_tmi.evaluation.confusion import confusion_matrix
from ymir_tmi.evaluation.dota import DotaTables, dota_tables
from ymir_tmi.evaluation.images import rank_images
from ymir_tmi.evaluation.masks import Counts, as_column, object_masks
from ymir_tmi.evaluation.matching import Floats, Found, Matches, match, overlapping_pairs
from ymir_tmi.evaluation.results import (
    ClassNumbers,
    EvaluationResult,
    EvaluationSettings,
    OverallNumbers,
    UnreadableImage,
)
from ymir_tmi.evaluation.threshold import best_point
from ymir_tmi.models.interface import Detections


class DetectionEvaluator:
    """Collects detections image by image, in any order, and measures them against the annotations.

    An image that is never given has no detections. As in COCO's evaluation, the `settings.max_dets` best detections of
    each class and image count. Upright boxes are measured by COCO's rules, rotated ones by DOTA's. Where masks are
    measured, by COCO's rules too, a detection has found an object if its mask overlaps that of the object: precision,
    recall, confusions and the ranking are those of masks, and of the boxes there is the average precision.

    Args:
        index: The annotated images. Labels of detections are positions in its `class_names`. Where its boxes are
            rotated, those of the detections are so too.
        settings: What is reported as the conditions of the measurement; only `max_dets` has an effect.
        masks: Whether masks are measured, which all detections then have. An object without one has that of its box.

    Raises:
        DataError: a segmentation of the index cannot be used.
    """

    def __init__(self, index: DatasetIndex, settings: EvaluationSettings | None = None, *, masks: bool = False) -> None:
        self.index = index
        self.settings = settings or EvaluationSettings()
        self._objects = object_masks(index) if masks else None
        self.reset()

    def reset(self) -> None:
        """Forget everything that was given."""
        self._detections: dict[int, Detections] = {}
        self._errors: dict[int, str] = {}

    def update(self, position: int, detections: Detections) -> None:
        """Give the detections of the image in row `position` of the index; given again, they are replaced.

        Raises:
            DataError: the masks are those of a picture of another size.
        """
        if self._objects is not None and len(detections):
            _check_size(detections, self._objects.size(position), self.index.paths[position])
        self._detections[position] = _best_of_each_class(detections, self.settings.max_dets)

    def fail(self, position: int, error: str) -> None:
        """Say that an image could not be read; it counts as one without detections."""
        self._errors[position] = error

    def compute(self, warnings: Sequence[str] = ()) -> EvaluationResult:
        """Return every number; `warnings` are passed on to the reader."""
        index, objects = self.index, self._objects
        found = self._found()
        pairs = overlapping_pairs(index, found, objects)
        matches = match(index, found, pairs=pairs)
        overall = _overall_numbers(index, found, matches)
        threshold = overall.threshold or 0.0
        upright = index.rotated is None
        boxes = coco_tables(index, found, self.settings.max_dets) if upright else dota_tables(index, found, pairs)
        masks = None if objects is None else coco_tables(index, found, self.settings.max_dets, objects)
        if objects is not None and objects.boxes:
            warnings = [*warnings, f"objects without a mask, whose boxes take its place: {objects.boxes}"]
        return EvaluationResult(
            settings=self.settings,
            images=len(index),
            objects=int(np.count_nonzero(index.flags == 0)),
            coco=boxes.numbers() if isinstance(boxes, CocoTables) else None,
            dota=boxes.numbers() if isinstance(boxes, DotaTables) else None,
            masks=None if masks is None else masks.numbers(),
            overall=overall,
            classes=_class_numbers(index, found, matches, boxes, masks),
            confusion=confusion_matrix(index, found, threshold, pairs),
            ranking=rank_images(index, found, matches, threshold),
            unreadable=[
                UnreadableImage(position=position, path=index.paths[position], error=self._errors[position])
                for position in sorted(self._errors)
            ],
            warnings=list(warnings),
        )

    def _found(self) -> Found:
        # Where nothing was found it is not known whether boxes would be rotated.
        positions = sorted(position for position, part in self._detections.items() if len(part))
        nothing = Detections.empty(0, box_length=4 if self.index.rotated is None else 5)
        parts = [self._detections[position] for position in positions] or [nothing]
        return Found(
            images=np.repeat(np.asarray(positions, np.int64), [len(self._detections[row]) for row in positions]),
            boxes=np.concatenate([part.boxes for part in parts]).astype(np.float64),
            scores=np.concatenate([part.scores for part in parts]).astype(np.float64),
            labels=np.concatenate([part.labels for part in parts]),
            masks=None if self._objects is None else _all_masks(parts),
        )


def _check_size(detections: Detections, size: tuple[int, int], path: str) -> None:
    assert detections.masks is not None
    if detections.masks.size != size:
        sides = " and ".join(f"{width} x {height}" for width, height in (detections.masks.size, size))
        raise DataError(f"the masks of the detections and the picture differ in size, {sides} pixels", where=path)


def _all_masks(parts: Sequence[Detections]) -> Counts:
    return as_column([counts for part in parts if part.masks is not None for counts in part.masks.counts])


def _best_of_each_class(detections: Detections, max_dets: int) -> Detections:
    """Drop the worst where a class has more than `max_dets`, and the class scores, which would fill the memory."""
    order = np.argsort(-detections.scores, kind="stable")
    if len(order) > max_dets:
        labels = detections.labels[order]
        kept = [np.flatnonzero(labels == label)[:max_dets] for label in np.unique(labels)]
        order = order[np.sort(np.concatenate(kept))]
    best = detections[order]
    return Detections(best.boxes, best.scores, best.labels, np.zeros((len(best), 0), np.float32), best.masks)


def _overall_numbers(index: DatasetIndex, found: Found, matches: Matches) -> OverallNumbers:
    objects = int(np.count_nonzero(index.flags == 0))
    counted = ~matches.ignored
    if not objects:
        return OverallNumbers(false_positives=int(np.count_nonzero(counted)))
    point = best_point(found.scores[counted], matches.hit[counted], objects)
    return OverallNumbers(
        precision=point.precision,
        recall=point.recall,
        f1=point.f1,
        threshold=point.threshold,
        true_positives=point.true_positives,
        false_positives=point.false_positives,
        missed=point.missed,
    )


def _class_numbers(
    index: DatasetIndex, found: Found, matches: Matches, boxes: CocoTables | DotaTables, masks: CocoTables | None
) -> list[ClassNumbers]:
    classes, counts = index.num_classes, index.flags == 0
    objects = np.bincount(index.labels[counts], minlength=classes).tolist()
    class_and_image = np.unique(index.labels[counts].astype(np.int64) * len(index) + index.image_of_box()[counts])
    images = np.bincount(class_and_image // len(index), minlength=classes).tolist()

    rows = np.flatnonzero(~matches.ignored)
    rows = rows[np.argsort(found.labels[rows], kind="stable")]
    rows_of_class = np.split(rows, np.searchsorted(found.labels[rows], np.arange(1, classes)))
    return [
        _numbers_of_class(
            ClassNumbers(name=name, objects=objects[label], images=images[label]),
            label,
            found.scores[rows_of_class[label]],
            matches.hit[rows_of_class[label]],
            boxes,
            masks,
        )
        for label, name in enumerate(index.class_names)
    ]


def _numbers_of_class(
    counts: ClassNumbers,
    label: int,
    scores: Floats,
    hits: npt.NDArray[np.bool_],
    boxes: CocoTables | DotaTables,
    masks: CocoTables | None,
) -> ClassNumbers:
    if not counts.objects:
        return counts
    point = best_point(scores, hits, counts.objects)
    tables = masks or boxes
    ap, ap50 = tables.class_ap(label)
    box_ap, box_ap50 = (None, None) if masks is None else boxes.class_ap(label)
    return ClassNumbers(
        name=counts.name,
        objects=counts.objects,
        images=counts.images,
        AP=ap,
        AP50=ap50,
        AP_box=box_ap,
        AP50_box=box_ap50,
        precision=point.precision,
        recall=point.recall,
        f1=point.f1,
        threshold=point.threshold,
        pr=tables.class_curve(label),
        dota=tables.class_numbers(label) if isinstance(tables, DotaTables) else None,
    )
