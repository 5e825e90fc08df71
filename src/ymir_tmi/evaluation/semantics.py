"""How good label maps are: counts of pixels, summed over the images first, then intersections over unions.

Facts: docs/specs/segmentation.md, section "Metric". Of an image no more is kept than how often each class was taken
for which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import IGNORED, DatasetIndex
from ymir_tmi.evaluation.results import UnreadableImage
from ymir_tmi.evaluation.semantic_results import (
    PixelConfusion,
    PixelNumbers,
    PixelScore,
    SemanticResult,
    SemanticSettings,
)

OTHER = 254
"""In a predicted label map: a class that the data does not have."""

_COUNTED_AT_ONCE = 1 << 20  # pixels, of which some copies are made that are larger than a label map

LabelMap = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ConfusedPixels:
    """How many pixels of an image that are of one class were taken for another, or rightly for the same.

    Attributes:
        truth: (n,) int64, class in the data.
        predicted: (n,) int64, predicted class; as many as there are classes stands for classes that the data lacks.
        pixels: (n,) int64, never 0.
    """

    truth: Counts
    predicted: Counts
    pixels: Counts

    @classmethod
    def between(cls, predicted: LabelMap, truth: LabelMap, num_classes: int) -> ConfusedPixels:
        """Count the pixels of two (H, W) label maps, but those that are `IGNORED` in `truth`.

        Predicted pixels of any class that the data does not have are counted as one class.
        """
        assert predicted.shape == truth.shape
        pairs = np.zeros((256, 256), np.int64)
        rows = max(1, _COUNTED_AT_ONCE // max(1, truth.shape[1]))
        for top in range(0, len(truth), rows):
            cells = truth[top : top + rows].astype(np.uint16) * np.uint16(256) + predicted[top : top + rows]
            pairs += np.bincount(cells.ravel(), minlength=pairs.size).reshape(pairs.shape)
        other = pairs[:, num_classes:].sum(axis=1, keepdims=True)
        counts = np.concatenate([pairs[:, :num_classes], other], axis=1)[:IGNORED]
        labels, taken_for = np.nonzero(counts)
        return cls(labels, taken_for, counts[labels, taken_for])

    def add_to(self, matrix: Counts) -> None:
        """Add the counts to a (K, K + 1) confusion matrix."""
        matrix[self.truth, self.predicted] += self.pixels


class SemanticEvaluator:
    """Collects label maps image by image, in any order, and measures them against those of the data.

    Args:
        index: The images. A label is a position in its `class_names`.
        settings: What is reported as the conditions of the measurement; it has no effect.
    """

    def __init__(self, index: DatasetIndex, settings: SemanticSettings | None = None) -> None:
        self.index = index
        self.settings = settings or SemanticSettings()
        self.reset()

    def reset(self) -> None:
        """Forget everything that was given."""
        self._counts: dict[int, ConfusedPixels] = {}
        self._errors: dict[int, str] = {}

    def update(self, position: int, predicted: LabelMap, truth: LabelMap) -> None:
        """Give the label maps of the image in row `position` of the index; given again, they are replaced.

        Args:
            position: row of the image.
            predicted: (H, W) uint8 predicted class of every pixel, `OTHER` for classes that the data does not have.
            truth: (H, W) uint8 class of every pixel, `IGNORED` where it does not count.
        """
        self.update_counts(position, ConfusedPixels.between(predicted, truth, self.index.num_classes))

    def update_counts(self, position: int, counts: ConfusedPixels) -> None:
        """Give what was counted in an image, in place of its label maps."""
        self._counts[position] = counts

    def fail(self, position: int, error: str) -> None:
        """Say that an image could not be read; its pixels do not count."""
        self._errors[position] = error

    def compute(self, warnings: Sequence[str] = ()) -> SemanticResult:
        """Return every number; `warnings` are passed on to the reader."""
        classes = self.index.num_classes
        matrix = np.zeros((classes, classes + 1), np.int64)
        for counts in self._counts.values():
            counts.add_to(matrix)
        iou, acc = _class_measures(matrix)
        total, right = int(matrix.sum()), int(np.trace(matrix[:, :classes]))
        return SemanticResult(
            settings=self.settings,
            images=len(self.index),
            pixels=total,
            mIoU=_mean(iou),
            mAcc=_mean(acc),
            aAcc=right / total if total else None,
            classes=self._class_numbers(matrix, iou, acc),
            confusion=_confusion(self.index.class_names, matrix),
            ranking=self._ranking(),
            unreadable=[
                UnreadableImage(position=position, path=self.index.paths[position], error=self._errors[position])
                for position in sorted(self._errors)
            ],
            warnings=list(warnings),
        )

    def _class_numbers(self, matrix: Counts, iou: Sequence[float], acc: Sequence[float]) -> list[PixelNumbers]:
        images = np.zeros(len(matrix), np.int64)
        for counts in self._counts.values():
            images[np.unique(counts.truth)] += 1
        return [
            PixelNumbers(
                name=name,
                pixels=int(matrix[label].sum()),
                predicted=int(matrix[:, label].sum()),
                images=int(images[label]),
                IoU=_known(iou[label]),
                Acc=_known(acc[label]),
            )
            for label, name in enumerate(self.index.class_names)
        ]

    def _ranking(self) -> list[PixelScore]:
        scores = []
        for position, counts in sorted(self._counts.items()):
            score = _score(counts, self.index.num_classes)
            if score is not None:
                right = int(counts.pixels[counts.truth == counts.predicted].sum())
                accuracy = right / int(counts.pixels.sum())
                path = self.index.paths[position]
                scores.append(PixelScore(position=position, path=path, score=score, accuracy=accuracy))
        return sorted(scores, key=lambda row: (-row.score, -row.accuracy))


def _class_measures(matrix: Counts) -> tuple[list[float], list[float]]:
    """Return IoU and accuracy of each class from a (K, K + 1) confusion matrix; NaN for 0 / 0."""
    classes = len(matrix)
    hits, truth, predicted = np.diag(matrix), matrix.sum(1), matrix[:, :classes].sum(0)
    with np.errstate(invalid="ignore"):
        return (hits / (truth + predicted - hits)).tolist(), (hits / truth).tolist()


def _score(counts: ConfusedPixels, classes: int) -> float | None:
    """Return the mean IoU of one image, None where no pixel counts."""
    matrix = np.zeros((classes, classes + 1), np.int64)
    counts.add_to(matrix)
    return _mean(_class_measures(matrix)[0])


def _mean(values: Sequence[float]) -> float | None:
    known = np.array(values)[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _confusion(class_names: Sequence[str], matrix: Counts) -> PixelConfusion:
    """Return the matrix; the column of classes that the data does not have is left out where it is empty."""
    if matrix[:, -1].any():
        return PixelConfusion(names=[*class_names, "other"], matrix=matrix.tolist())
    return PixelConfusion(names=list(class_names), matrix=matrix[:, :-1].tolist())
