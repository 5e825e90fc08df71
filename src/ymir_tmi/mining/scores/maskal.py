"""MaskAL: whether objects stay what they are when parts of the network are switched off.

Source: Blok et al., "Active learning with MaskAL reduces annotation effort for training Mask R-CNN", 2022;
docs/specs/mining.md, section 6. The detections of T passes, each with other random parts switched off, whose masks
overlap are one object. With n members, the certainty of an object is

    c = c_sem * c_spl * c_n                     in [0, 1]

c_sem = mean of 1 - H / H_max, H the entropy of a member's classes; c_spl = mean overlap of the masks with the mean mask
times mean overlap of the boxes with the mean box; c_n = share of the passes in which the object is seen. The score is
one minus the certainty of the image: what the model is certain of is labelled last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.errors import counted
from ymir_tmi.geometry.mask_groups import common_runs, group_overlaps, runs_of
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.geometry.ragged import spans
from ymir_tmi.mining.algorithm import Algorithm, refuse_option, score_row
from ymir_tmi.mining.objects import ObjectAlgorithm, Region
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import ImageResult, Needs, Row

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

_MEAN_MASK = 0.25  # share of the members that must cover a pixel for it to belong to the mean mask
_EMPTY = -1.0  # below every other score


class Observations(NamedTuple):
    """The n detections of all passes, and the G objects that they are seen as.

    Attributes:
        found: the detections, in the order in which they were grouped.
        masks: theirs.
        passes: (n,) pass of each.
        groups: (n,) object of each, from 0.
    """

    found: Detections
    masks: Masks
    passes: Whole
    groups: Whole


class Certainty(NamedTuple):
    """How certain the model is of each of G objects, every array (G,) in [0, 1].

    Attributes:
        semantic: of its class.
        masks: of its mask.
        boxes: of its box.
        occurrence: that it is there.
    """

    semantic: Floats
    masks: Floats
    boxes: Floats
    occurrence: Floats

    @property
    def total(self) -> Floats:
        """The product."""
        return self.semantic * self.masks * self.boxes * self.occurrence


def observe(passes: Sequence[Detections], iou: float, *, worst_first: bool = False) -> Observations | None:
    """Group the detections of several passes, or return None if there are none.

    In the order of the passes, and best first in each, a detection joins the first object of which any member's mask
    overlaps its own; masks without pixels are left out.

    Args:
        passes: detections with masks.
        iou: masks that overlap by more are one object.
        worst_first: the order inside a pass that the form 'yolov5' has.
    """
    ordered = [found[::-1] if worst_first else found for found in passes if len(found)]
    if not ordered:
        return None
    numbers = [number for number, found in enumerate(passes) if len(found)]
    joined = Detections(
        boxes=np.concatenate([found.boxes for found in ordered]),
        scores=np.concatenate([found.scores for found in ordered]),
        labels=np.concatenate([found.labels for found in ordered]),
        class_scores=np.concatenate([found.class_scores for found in ordered]),
    )
    masks = Masks.concatenate([found.masks for found in ordered if found.masks is not None])
    kept = masks.areas() > 0
    if not kept.any():
        return None
    masks = masks[kept]
    pass_of = np.repeat(numbers, [len(found) for found in ordered])[kept]
    return Observations(joined[kept], masks, pass_of, group_by_overlap(masks.iou(masks), iou))


def group_by_overlap(ious: Floats, threshold: float) -> Whole:
    """Return (n,) groups from (n, n) overlaps: each joins the first group of a member before it that it overlaps."""
    groups = np.zeros(len(ious), np.int64)
    count = 0
    for row in range(len(ious)):
        overlapped = groups[:row][ious[row, :row] > threshold]
        groups[row] = overlapped.min() if len(overlapped) else count
        count = max(count, int(groups[row]) + 1)
    return groups


def class_certainty(class_scores: npt.NDArray[np.float32]) -> Floats:
    """Return (n,) one minus the entropy of classes and background, by its largest value.

    The background has what the largest score leaves, so that low scores are not certain; with one class this is the
    entropy of yes or no.

    Args:
        class_scores: (n, C) independent scores.
    """
    scores = class_scores.astype(np.float64)
    return _one_minus_entropy(np.column_stack([scores, 1 - scores.max(1)]))


def class_certainty_of_port(class_scores: npt.NDArray[np.float32]) -> Floats:
    """Return the same without background, as the form 'yolov5' has it: 0 for every detection if there is one class."""
    if class_scores.shape[1] == 1:
        return np.zeros(len(class_scores))
    return _one_minus_entropy(class_scores.astype(np.float64))


def spatial_certainty(seen: Observations) -> tuple[Floats, Floats]:
    """Return (G,) the mean overlap of the masks with the mean mask, and of the boxes with the mean box."""
    width, height = seen.masks.size
    overlaps = group_overlaps(runs_of(seen.masks), seen.groups, width * height, _MEAN_MASK)
    union = seen.masks.areas() + overlaps.areas[seen.groups] - overlaps.shared
    boxes = seen.found.boxes.astype(np.float64)
    mean_boxes = np.stack([_group_means(column, seen.groups) for column in boxes.T], axis=1)
    return (
        _group_means(overlaps.shared / union, seen.groups),
        _group_means(_inclusive_iou(boxes, mean_boxes[seen.groups]), seen.groups),
    )


def certainty_of(seen: Observations, passes: int) -> Certainty:
    """Return how certain the model is of each object that was seen in so many passes."""
    semantic = _group_means(class_certainty(seen.found.class_scores), seen.groups)
    pairs = np.unique(np.stack([seen.groups, seen.passes]), axis=1)
    return Certainty(semantic, *spatial_certainty(seen), np.bincount(pairs[0]) / passes)


def port_certainty_of(seen: Observations, passes: int) -> Certainty:
    """Return the same as the form 'yolov5' has it: detections are counted, not passes."""
    semantic = _group_means(class_certainty_of_port(seen.found.class_scores), seen.groups)
    return Certainty(semantic, *spatial_certainty(seen), np.minimum(1, np.bincount(seen.groups) / passes))


class MaskAl(ObjectAlgorithm):
    """Scores an image by one minus its certainty; one without objects ranks last, with -1.

    Args:
        class_names: for the regions and reasons.
        min_score: detections count above this.
        passes: T.
        group_iou: masks that overlap by more are one object.
        worst: whether the least certain object decides, or their mean.
    """

    name = "maskal"

    def __init__(
        self, class_names: Sequence[str], *, min_score: float, passes: int, group_iou: float, worst: bool
    ) -> None:
        super().__init__("max" if worst else "mean", empty=_EMPTY)
        self._class_names = class_names
        self._min_score = min_score
        self._passes = passes
        self._group_iou = group_iou

    @property
    def needs(self) -> Needs:
        """The detections of all passes with random parts of the network switched off."""
        return Needs(outputs=frozenset(), min_score=self._min_score, passes=self._passes)

    def objects(self, result: ImageResult) -> list[Region]:
        """Return the objects with their mean box and one minus their certainty."""
        seen = self._observe(result)
        if seen is None:
            return []
        certainty = certainty_of(seen, self._passes)
        best = [int(np.flatnonzero(seen.groups == group)[0]) for group in range(len(certainty.total))]
        boxes = [_group_means(column, seen.groups) for column in seen.found.boxes.T.astype(np.float64)]
        return [
            {
                "box": [float(column[group]) for column in boxes],
                "label": self._class_names[int(seen.found.labels[row])],
                "score": float(1 - certainty.total[group]),
                "passes": round(float(certainty.occurrence[group]) * self._passes),
            }
            for group, row in enumerate(best)
        ]

    def describe(self, objects: Sequence[Region]) -> str:
        """Return how many objects there are, and which is the least certain."""
        worst = objects[0]
        seen = f"seen in {worst['passes']} of {self._passes} passes"
        return f"{counted(len(objects), 'object', 'objects')}, the least certain a '{worst['label']}', {seen}"

    def heat_map(self, result: ImageResult) -> npt.NDArray[np.float32]:
        """Return (height, width) one minus the certainty of the object at each pixel, or the largest of several."""
        width, height = result.size
        heat = np.zeros(width * height, np.float32)  # column by column, as runs are
        seen = self._observe(result)
        if seen is not None:
            runs = common_runs(runs_of(seen.masks), seen.groups, width * height, _MEAN_MASK)
            values = (1 - certainty_of(seen, self._passes).total).astype(np.float32)[runs.owners]
            order = np.argsort(values, kind="stable")  # of several values for a pixel the last one, the largest, stays
            starts, ends = runs.starts[order], runs.ends[order]
            heat[spans(starts, ends)] = np.repeat(values[order], ends - starts)
        return np.ascontiguousarray(heat.reshape(width, height).T)

    def _observe(self, result: ImageResult) -> Observations | None:
        assert len(result.passes) == self._passes
        return observe([found.above(self._min_score) for found in result.passes], self._group_iou)


class _MaskAlPort(Algorithm):
    """The form 'yolov5': the certainty itself, so that the images that teach least come first.

    Args:
        min_score: detections count above this.
        passes: T.
        group_iou: masks that overlap by more are one object.
    """

    name = "maskal"

    def __init__(self, *, min_score: float, passes: int, group_iou: float) -> None:
        self._min_score = min_score
        self._passes = passes
        self._group_iou = group_iou

    @property
    def needs(self) -> Needs:
        """The detections of all passes with random parts of the network switched off."""
        return Needs(outputs=frozenset(), min_score=self._min_score, passes=self._passes)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image."""
        return [self._row(result) for result in batch]

    def _row(self, result: ImageResult) -> Row:
        found = [of_pass.above(self._min_score) for of_pass in result.passes]
        seen = observe(found, self._group_iou, worst_first=True)
        if seen is None:
            return score_row(result, _EMPTY, {"objects": 0}, "nothing found")
        certainty = port_certainty_of(seen, self._passes).total
        reason = f"mean of {counted(len(certainty), 'object', 'objects')}"
        return score_row(result, certainty.mean(), {"objects": len(certainty)}, reason)


def build_maskal(settings: MineSettings, class_names: Sequence[str]) -> Algorithm:
    """Return the algorithm in the form that `settings.compat` says.

    Raises:
        ConfigError: an option is set that the form does not have.
    """
    if settings.compat is None:
        return MaskAl(
            class_names,
            min_score=settings.conf,
            passes=settings.passes,
            group_iou=settings.group_iou,
            worst=settings.certainty == "min",
        )
    refuse_option(settings, "certainty", f"form '{settings.compat}' is a mean")
    refuse_option(settings, "kept", f"form '{settings.compat}' chooses no regions")
    return _MaskAlPort(min_score=settings.conf, passes=settings.passes, group_iou=settings.group_iou)


def _one_minus_entropy(weights: Floats) -> Floats:
    p = weights / weights.sum(1, keepdims=True)
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(1)
    return np.asarray(np.clip(1 - entropy / np.log(p.shape[1]), 0, 1))


def _group_means(values: Floats, groups: Whole) -> Floats:
    return np.asarray(np.bincount(groups, values) / np.bincount(groups))


def _inclusive_iou(boxes: Floats, others: Floats) -> Floats:
    """Return (n,) overlaps of boxes whose last row and column count as well."""
    corners = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    shared = np.clip(corners[1] - corners[0] + 1, 0, None).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1) + (others[:, 2:] - others[:, :2] + 1).prod(1)
    return np.asarray(shared / (areas - shared))
