"""CALD as earlier implementations computed it (docs/specs/mining.md, section 4.1), for comparisons only.

Their score is not negated, so the least informative images rank first, and it grows with the number of detections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ymir_tmi.errors import counted
from ymir_tmi.mining.algorithm import Algorithm, score_row
from ymir_tmi.mining.consistency import BETA, best_matches, jensen_shannon, two_way
from ymir_tmi.mining.views import Cutout, Flip, PortRotate, PortShrink
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import ImageResult, Needs, Row, View

Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Port:
    """How the earlier implementations differ.

    Attributes:
        whole: turns the boxes of the image into whole numbers.
        whole_in_copies: turns the boxes found in a copy into whole numbers.
        truncate_shrunk: whether the boxes mapped into the shrunk copy become whole numbers.
        compares_confidences: whether the divergence of two confidences counts; else it is 0.
    """

    whole: Callable[[Boxes], Boxes]
    whole_in_copies: Callable[[Boxes], Boxes]
    truncate_shrunk: bool
    compares_confidences: bool


def _unchanged(boxes: Boxes) -> Boxes:
    return boxes


PORTS: Mapping[str, Port] = {
    "yolov5": Port(np.rint, np.rint, truncate_shrunk=True, compares_confidences=True),
    "mmdet": Port(np.trunc, np.trunc, truncate_shrunk=False, compares_confidences=True),
    "detectron2": Port(np.trunc, _unchanged, truncate_shrunk=False, compares_confidences=False),
}


class CaldPort(Algorithm):
    """Sums, over the copies and the detections in their order, the smallest distance so far.

    Args:
        port: which implementation.
        min_score: detections count above this.
    """

    name = "cald"

    def __init__(self, port: Port, *, min_score: float) -> None:
        self._port = port
        self._min_score = min_score
        self._views: tuple[View, ...] = (
            Flip(),
            Cutout(lambda plain: port.whole(plain.above(min_score).boxes)),
            PortRotate(),
            PortShrink(truncate=port.truncate_shrunk),
        )

    @property
    def needs(self) -> Needs:
        """The detections in the image and in its four copies."""
        return Needs(views=self._views, min_score=self._min_score)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image; its components are the sums of the copies."""
        return [self._row(result) for result in batch]

    def _row(self, result: ImageResult) -> Row:
        assert result.detections is not None
        originals = result.detections.above(self._min_score)
        if not len(originals):
            return score_row(result, -BETA, {"detections": 0}, "nothing found")
        boxes = self._port.whole(originals.boxes)
        totals = {
            view.name: self._total(
                originals, view.map_boxes(boxes, result.size), result.views[view.name].above(self._min_score)
            )
            for view in self._views
        }
        reason = f"sum over {counted(len(originals), 'detection', 'detections')} in four copies"
        return score_row(result, sum(totals.values()) / len(totals), {"detections": len(originals), **totals}, reason)

    def _total(self, originals: Detections, mapped: Boxes, found: Detections) -> float:
        if not len(found):
            return BETA
        match = best_matches(mapped, self._port.whole_in_copies(found.boxes))
        before, now = originals.scores, found.scores[match.rows]
        divergence = jensen_shannon(two_way(now), two_way(before)) if self._port.compares_confidences else 0.0
        distances = np.abs(match.ious + 0.5 * (before.astype(np.float64) + now) * (1 - divergence) - BETA)
        distances = np.where(match.ious == 0, np.minimum(distances, BETA), distances)
        return float(np.minimum(np.minimum.accumulate(distances), 2.0).sum())
