"""The best and the worst images of an evaluation, with what was found, missed and imagined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.evaluation.detected import in_form
from ymir_tmi.evaluation.masks import ObjectMasks, object_masks
from ymir_tmi.evaluation.matching import Found, Matches, match, overlapping_pairs
from ymir_tmi.evaluation.results import EvaluationResult, ImageScore
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.report.page import number
from ymir_tmi.report.pictures import OUTCOME_COLOURS, Mark, Style, class_colour
from ymir_tmi.report.predictions import Predictions
from ymir_tmi.report.shots import Shot, rings_of
from ymir_tmi.report.source import RunFiles

_SHOWN = 6

Boxes = Literal["outcomes", "masks", "objects", "none"]


@dataclass(frozen=True)
class Examples:
    """Pictures of an evaluation; none is both among the best and the worst.

    Attributes:
        best: from the best on.
        worst: from the worst on.
        boxes: what is drawn: what was found, missed and imagined, as boxes or masks; where there are no detections,
            only the annotations.
    """

    best: list[Shot]
    worst: list[Shot]
    boxes: Boxes


def examples(run: RunFiles, result: EvaluationResult) -> Examples:
    """Return the best and the worst images, at most `_SHOWN` of each."""
    half = min(_SHOWN, (len(result.ranking) + 1) // 2)
    best, worst = result.ranking[:half], result.ranking[half:][-half:][::-1]
    chosen = [*best, *worst]
    objects = _objects(run, result, chosen) if chosen else None
    boxes, marks = _draw(run, result, objects, chosen)
    shots = []
    for row, (image, drawn) in enumerate(zip(chosen, marks, strict=True)):
        caption = f"{image.true_positives} found, {image.missed} missed, {image.false_positives} false"
        size = objects.size(row) if objects is not None else None
        picture = run.picture(image.path, caption, drawn, size=size)
        shots.append(Shot(image.path, caption, picture, f"quality {number(image.score)}"))
    return Examples(shots[: len(best)], shots[len(best) :], boxes)


def _objects(run: RunFiles, result: EvaluationResult, images: Sequence[ImageScore]) -> DatasetIndex | None:
    """Return the annotations of `images`, or None (noted) where they are gone or are not those that were measured."""
    truth = run.truth([row.name for row in result.classes])
    if truth is None:
        return None
    truth = in_form(truth, rotated=result.dota is not None)
    if len(truth) == result.images:
        objects = truth.take([image.position for image in images])
        counts = np.bincount(objects.image_of_box()[objects.flags == 0], minlength=len(images))
        if counts.tolist() == [image.true_positives + image.missed for image in images]:
            return objects
    run.missing.append("No boxes of annotations: they have changed since.")
    return None


def _draw(
    run: RunFiles, result: EvaluationResult, objects: DatasetIndex | None, images: Sequence[ImageScore]
) -> tuple[Boxes, list[list[Mark]]]:
    """Return what can be drawn, and the boxes of every image."""
    if objects is None:
        return "none", [[] for _ in images]
    predictions = run.predictions() if run.layout.predictions.is_file() else None
    if predictions is None:
        return "objects", _object_marks(objects)
    threshold = result.overall.threshold or 0.0
    found = _found(predictions, [image.path for image in images], objects.class_names).at_least(threshold)
    if result.masks is None or found.masks is None:
        return "outcomes", _outcome_marks(objects, found, match(objects, found))
    masks = object_masks(objects)
    matches = match(objects, found, pairs=overlapping_pairs(objects, found, masks))
    return "masks", _outcome_marks(objects, found, matches, masks)


def _found(predictions: Predictions, paths: Sequence[str], class_names: Sequence[str]) -> Found:
    """Return the detections of the images with these paths, in terms of `paths` and `class_names`."""
    row_of = {image.path: row for row, image in enumerate(predictions.images)}
    label_of = {name: label for label, name in enumerate(class_names)}
    labels = np.array([label_of.get(name, -1) for name in predictions.class_names], np.int64)
    parts = [predictions.of(row_of[path]) if path in row_of else predictions.of(-1) for path in paths]
    masks = [part.masks for part in parts if part.masks is not None]
    found = Found(
        images=np.repeat(np.arange(len(paths)), [len(part) for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        labels=labels[np.concatenate([part.labels for part in parts])],
        masks=np.concatenate(masks) if masks else None,
    )
    return found[found.labels >= 0]


def _outcome_marks(
    objects: DatasetIndex, found: Found, matches: Matches, masks: ObjectMasks | None = None
) -> list[list[Mark]]:
    """Return what to draw in every image: false detections first, whose labels matter most, then misses and hits."""
    names = objects.class_names
    marks: list[list[Mark]] = [[] for _ in range(len(objects))]
    for row in np.flatnonzero(~matches.hit & ~matches.ignored).tolist():
        text = f"{names[found.labels[row]]} {found.scores[row]:.2f}"
        marks[found.images[row]].append(_outcome(found.boxes[row], text, "false", _found_mask(found, row, masks)))
    taken, boxes = set(matches.objects.tolist()), _boxes(objects)
    for row, image in enumerate(objects.image_of_box().tolist()):
        if row not in taken and not objects.flags[row]:
            mask = None if masks is None else masks.of(image, slice(row, row + 1))
            marks[image].append(_outcome(boxes[row], names[objects.labels[row]], "missed", mask))
    for row in np.flatnonzero(matches.hit).tolist():
        text = f"{names[found.labels[row]]} {found.scores[row]:.2f}"
        marks[found.images[row]].append(_outcome(found.boxes[row], text, "found", _found_mask(found, row, masks)))
    return marks


def _found_mask(found: Found, row: int, masks: ObjectMasks | None) -> Masks | None:
    if masks is None or found.masks is None:
        return None
    return Masks(masks.size(int(found.images[row])), (found.masks[row],))


def _object_marks(objects: DatasetIndex) -> list[list[Mark]]:
    marks: list[list[Mark]] = [[] for _ in range(len(objects))]
    boxes = _boxes(objects)
    for row, image in enumerate(objects.image_of_box().tolist()):
        label = int(objects.labels[row])
        marks[image].append(Mark(tuple(boxes[row].tolist()), objects.class_names[label], class_colour(label)))
    return marks


def _boxes(objects: DatasetIndex) -> npt.NDArray[np.float32]:
    """Return (M, 4) upright or (M, 5) rotated boxes, whichever the annotations are."""
    return objects.boxes if objects.rotated is None else objects.rotated


def _outcome(box: npt.NDArray[Any], text: str, style: Style, mask: Masks | None) -> Mark:
    [rings] = rings_of(mask, 1)
    return Mark(tuple(box.tolist()), text, OUTCOME_COLOURS[style], style, rings)
