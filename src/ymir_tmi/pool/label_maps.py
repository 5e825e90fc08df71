"""The consumer that keeps the class of every pixel of each image, as run lengths of each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import IGNORED
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.models.interface import Task
from ymir_tmi.pool.consumer import Consumer, ImageResult, Needs, Row
from ymir_tmi.pool.recorder import DetectionRecorder, masks_of

LabelMap = npt.NDArray[np.uint8]


class LabelMapRecorder(Consumer):
    """Records label maps; `label_map_of` reads a row back.

    A row is `{"size": [width, height], "labels": [...], "masks": [...]}`: the classes that are in the image, and COCO's
    compressed run lengths of each, as text. No two masks share a pixel; pixels of no class are in none of them.
    """

    name = "label_maps"

    @property
    def needs(self) -> Needs:
        """Label maps of the unchanged image."""
        return Needs(frozenset({"label_map"}))

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image."""
        return [_row(result) for result in batch]


def recorder_for(task: Task, min_score: float) -> DetectionRecorder | LabelMapRecorder:
    """Return the consumer that keeps all that a model of a task finds, in objects that score above `min_score`."""
    return LabelMapRecorder() if task == "semantics" else DetectionRecorder(min_score, masks=task == "instances")


def label_map_of(row: Row) -> LabelMap:
    """Return (height, width) uint8 the classes of a recorded row, `IGNORED` for pixels of none."""
    return draw_classes(masks_of(row), row["labels"])


def draw_classes(masks: Masks, labels: Sequence[int]) -> LabelMap:
    """Return (height, width) uint8 the label of the mask that each pixel is in, `IGNORED` for pixels of none."""
    width, height = masks.size
    label_map = np.full((height, width), IGNORED, np.uint8)
    for number, label in enumerate(labels):  # one bitmap at a time
        label_map[masks[[number]].decode()[0]] = label
    return label_map


def _row(result: ImageResult) -> Row:
    label_map = result.label_map
    assert label_map is not None
    labels = [label for label in np.unique(label_map).tolist() if label != IGNORED]
    masks = Masks.of_labels(label_map, labels)
    return {"size": list(result.size), "labels": labels, "masks": [each.decode() for each in masks.counts]}
