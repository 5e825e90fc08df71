"""The consumer that keeps what the model found in each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ymir_tmi.geometry.masks import Masks
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import Consumer, ImageResult, Needs, Output, Row


class DetectionRecorder(Consumer):
    """Records detections; `detections_of` reads a row back.

    A row is `{"size": [width, height], "boxes": [[x1, y1, x2, y2], ...], "scores": [...], "labels": [...]}`, boxes in
    pixels of the picture, best first; a rotated box is [cx, cy, w, h, angle]. The numbers are float32 numbers written
    out in full. Where masks are recorded, `"masks"` holds COCO's compressed run lengths of each, as text.

    Args:
        min_score: detections at or below this are left out.
        masks: whether the masks of the detections are recorded.
    """

    name = "detections"

    def __init__(self, min_score: float, *, masks: bool = False) -> None:
        self._min_score = min_score
        self._masks = masks

    @property
    def needs(self) -> Needs:
        """Detections of the unchanged image."""
        outputs: frozenset[Output] = frozenset({"detections", "masks"} if self._masks else {"detections"})
        return Needs(outputs, min_score=self._min_score)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image."""
        return [_row(result, self._min_score, masks=self._masks) for result in batch]


def detections_of(row: Row, num_classes: int) -> Detections:
    """Return the detections of a recorded row; of the class scores only that of the label is known, the rest are 0."""
    masks = masks_of(row) if "masks" in row else None
    return make_detections(row["boxes"], row["scores"], row["labels"], num_classes, masks)


def masks_of(row: Row) -> Masks:
    """Return the masks of a row that has such."""
    width, height = row["size"]
    return Masks((width, height), tuple(text.encode() for text in row["masks"]))


def make_detections(
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    labels: Sequence[int],
    num_classes: int,
    masks: Masks | None = None,
) -> Detections:
    """Return detections from xyxy or rotated boxes, scores and labels; class scores beside the label's own are 0."""
    values, classes = np.asarray(scores, np.float32), np.asarray(labels, np.int64)
    class_scores = np.zeros((len(values), num_classes), np.float32)
    class_scores[np.arange(len(values)), classes] = values
    found = np.asarray(boxes, np.float32).reshape(len(boxes), len(boxes[0]) if len(boxes) else 4)
    return Detections(found, values, classes, class_scores, masks)


def _row(result: ImageResult, min_score: float, *, masks: bool) -> Row:
    assert result.detections is not None
    found = result.detections.above(min_score)
    row = {
        "size": list(result.size),
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "labels": found.labels.tolist(),
    }
    if not masks:
        return row
    counts = () if found.masks is None else found.masks.counts  # where nothing is found there need be none
    assert len(counts) == len(found)
    return {**row, "masks": [each.decode() for each in counts]}
