"""The score threshold with the best balance of precision and recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class OperatingPoint:
    """Detections that score `threshold` or more, counted.

    If no threshold finds an object, `threshold` is None and every detection is a false positive.
    """

    threshold: float | None
    true_positives: int
    false_positives: int
    missed: int

    @property
    def precision(self) -> float:
        """True positives per detection; 0 without detections."""
        return self.true_positives / max(1, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """True positives per object."""
        return self.true_positives / (self.true_positives + self.missed)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.true_positives / (2 * self.true_positives + self.false_positives + self.missed)


def best_point(scores: npt.NDArray[np.float64], hits: npt.NDArray[np.bool_], objects: int) -> OperatingPoint:
    """Return the point with the highest F1, of equal ones that with the highest threshold.

    The threshold lies half way between the lowest score it takes and the next lower one (or 0), so that it means the
    same whether detections must reach or exceed it.

    Args:
        scores: (n,) of the detections, in any order.
        hits: (n,) which of them are true positives.
        objects: how many objects there are to find, at least 1.
    """
    if not hits.any():
        return OperatingPoint(None, 0, len(hits), objects)
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], np.cumsum(hits[order])
    # Detections of equal score pass or fail together.
    last_of_score = np.flatnonzero(np.diff(scores, append=-np.inf))
    f1 = 2 * found[last_of_score] / (last_of_score + 1 + objects)
    last = int(last_of_score[np.argmax(f1)])
    below = float(scores[last + 1]) if last + 1 < len(scores) else 0.0
    hit = int(found[last])
    return OperatingPoint((float(scores[last]) + below) / 2, hit, last + 1 - hit, objects - hit)
