"""CALD: whether the detections survive small changes of the image (docs/specs/mining.md, section 4).

Source: Yu et al., "Consistency-based active learning for object detection", CVPR workshops 2022. Five forward passes:
the image and four changed copies. A detection and its counterpart in a copy agree by

    M = IoU + (c + c') / 2 * (1 - JS)        in [0, 2]

with their confidences c and c' and the Jensen-Shannon divergence JS of their class scores. Detections that agree
perfectly (2) teach nothing, and those that hardly have a counterpart are mostly noise; the informative ones lie
between, near 1.3. The score is minus the distance from there, so 0 is the most informative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.mining.algorithm import Algorithm, refuse_option, score_row
from ymir_tmi.mining.consistency import BETA, agreement, best_matches
from ymir_tmi.mining.scores.cald_ports import PORTS, CaldPort
from ymir_tmi.mining.views import Cutout, Flip, Rotate, Shrink
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import ImageResult, Needs, Row, View, WindowConsumer

MOST_BOXES = 50
"""Detections of an image that are followed into the copies, where there are many: evenly spaced by rank."""


class ViewScore(NamedTuple):
    """What one copy says about the image.

    Attributes:
        distance: in [0, 1], the smallest distance of a detection's agreement from `BETA`; 0 if nothing is found in it.
        reason: the detection it belongs to, in words.
    """

    distance: float
    reason: str


class Cald(Algorithm, WindowConsumer):
    """Scores an image by minus the mean distance over the copies, in [-1, 0].

    Args:
        class_names: for the reasons.
        min_score: detections count above this.
        empty_first: whether images without detections rank first, as in the paper, or last.
    """

    name = "cald"

    def __init__(self, class_names: Sequence[str], *, min_score: float, empty_first: bool) -> None:
        self._class_names = class_names
        self._empty = 0.0 if empty_first else -BETA
        self._min_score = min_score
        self._views: tuple[View, ...] = (Flip(), Cutout(lambda plain: self._originals(plain).boxes), Rotate(), Shrink())

    @property
    def needs(self) -> Needs:
        """The detections in the image and in its four copies."""
        return Needs(views=self._views, min_score=self._min_score)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image; its components are the distances of the copies."""
        return [self._row(result) for result in batch]

    def join(self, image: ImageResult, rows: Sequence[Row]) -> Row:
        """Return the row of a large image: the mean over the windows in which something is found.

        The smallest distance of all windows would be near 0 for every image that has many.
        """
        assert image.detections is not None
        found = [row for row in rows if row["components"]["detections"]]
        if not found:
            return score_row(image, self._empty, {"detections": 0}, "nothing found")
        components = {
            view.name: sum(row["components"][view.name] for row in found) / len(found) for view in self._views
        }
        components = {"detections": len(image.detections.above(self._min_score)), **components}
        best = max(found, key=lambda row: float(row["score"]))
        score = sum(row["score"] for row in found) / len(found)
        return score_row(image, score, components, best["reason"])

    def _row(self, result: ImageResult) -> Row:
        assert result.detections is not None
        originals = self._originals(result.detections)
        if not len(originals):
            return score_row(result, self._empty, {"detections": 0}, "nothing found")
        views = {view.name: self._view_score(result, originals, view) for view in self._views}
        decisive = min(views.values(), key=lambda view: view.distance)
        components = {name: view.distance for name, view in views.items()}
        score = -sum(components.values()) / len(components)
        return score_row(result, score, {"detections": len(originals), **components}, decisive.reason)

    def _originals(self, plain: Detections) -> Detections:
        return evenly_spaced(plain.above(self._min_score))

    def _view_score(self, result: ImageResult, originals: Detections, view: View) -> ViewScore:
        found = result.views[view.name].above(self._min_score)
        if not len(found):
            return ViewScore(0.0, f"nothing is found in the copy '{view.name}'")
        match = best_matches(view.map_boxes(originals.boxes, result.size), found.boxes)
        distances = np.abs(agreement(originals, found, match) - BETA)
        box = int(distances.argmin())
        before, now = self._describe(originals, box), self._describe(found, int(match.rows[box]))
        reason = f"in the copy '{view.name}', {before} overlaps {now} by {match.ious[box]:.0%}"
        return ViewScore(min(1.0, float(distances[box])), reason)

    def _describe(self, found: Detections, row: int) -> str:
        return f"'{self._class_names[int(found.labels[row])]}' {found.scores[row]:.2f}"


def evenly_spaced(found: Detections) -> Detections:
    """Return the detections, or 50 of them evenly spaced from the first to the last where there are more."""
    if len(found) <= MOST_BOXES:
        return found
    return found[np.linspace(0, len(found) - 1, MOST_BOXES).round().astype(np.int64)]


def build_cald(settings: MineSettings, class_names: Sequence[str]) -> Algorithm:
    """Return the algorithm in the form that `settings.compat` says.

    Raises:
        ConfigError: `empty_first` is set together with `compat`.
    """
    if settings.compat is None:
        return Cald(class_names, min_score=settings.conf, empty_first=settings.empty_first)
    refuse_option(settings, "empty_first", f"form '{settings.compat}' ranks images without detections last")
    return CaldPort(PORTS[settings.compat], min_score=settings.conf)
