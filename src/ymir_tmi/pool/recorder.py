"""The consumer that keeps what the model found in each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import Consumer, ImageResult, Needs, Row


class DetectionRecorder(Consumer):
    """Records detections; `detections_of` reads a row back.

    A row is `{"size": [width, height], "boxes": [[x1, y1, x2, y2], ...], "scores": [...], "labels": [...]}`, boxes in
    pixels of the picture, best first; a rotated box is [cx, cy, w, h, angle]. The numbers are float32 numbers written
    out in full.

    Args:
        min_score: detections at or below this are left out.
    """

    name = "detections"

    def __init__(self, min_score: float) -> None:
        self._min_score = min_score

    @property
    def needs(self) -> Needs:
        """Detections of the unchanged image."""
        return Needs(min_score=self._min_score)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image."""
        return [_row(result, self._min_score) for result in batch]


def detections_of(row: Row, num_classes: int) -> Detections:
    """Return the detections of a recorded row; of the class scores only that of the label is known, the rest are 0."""
    return make_detections(row["boxes"], row["scores"], row["labels"], num_classes)


def make_detections(
    boxes: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[int], num_classes: int
) -> Detections:
    """Return detections from xyxy or rotated boxes, scores and labels; class scores beside the label's own are 0."""
    values, classes = np.asarray(scores, np.float32), np.asarray(labels, np.int64)
    class_scores = np.zeros((len(values), num_classes), np.float32)
    class_scores[np.arange(len(values)), classes] = values
    found = np.asarray(boxes, np.float32).reshape(len(boxes), len(boxes[0]) if len(boxes) else 4)
    return Detections(found, values, classes, class_scores)


def _row(result: ImageResult, min_score: float) -> Row:
    assert result.detections is not None
    found = result.detections.above(min_score)
    return {
        "size": list(result.size),
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "labels": found.labels.tolist(),
    }
