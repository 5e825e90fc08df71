"""The page of an inference run: what was found how often, and how it looks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ymir_tmi.data.palette import class_colours
from ymir_tmi.pool.label_maps import draw_classes
from ymir_tmi.report.charts import histogram
from ymir_tmi.report.page import Fact, number
from ymir_tmi.report.predictions import Predictions
from ymir_tmi.report.shots import MOST_BOXES, Shot, class_legend, describe, detection_marks, map_legend
from ymir_tmi.report.source import RunFiles

_SAMPLE = 12


@dataclass(frozen=True)
class ClassCount:
    """How often a class was found. `share` is in [0, 1] of the most frequent class."""

    name: str
    detections: int
    images: int
    mean_score: str
    share: float


def infer_page(run: RunFiles) -> dict[str, Any]:
    """Return what `infer.html` shows."""
    predictions = run.predictions()
    if predictions is None:
        return {
            "facts": [],
            "classes": [],
            "chart": None,
            "shots": [],
            "legend": [],
            "failed": [],
            "most_boxes": MOST_BOXES,
            "cover": [],
        }
    if predictions.semantic:
        return _label_map_page(predictions, run)
    sample = _sample(predictions)
    names, scores = predictions.class_names, predictions.found.scores
    chart = histogram("Scores", scores, x_label="score", y_label="detections", x_range=(0, 1)) if len(scores) else None
    return {
        "facts": _facts(run, predictions),
        "classes": _class_counts(predictions),
        "cover": [],
        "chart": chart,
        "shots": [_shot(run, predictions, image) for image in sample],
        "legend": class_legend([predictions.of(image) for image in sample], names),
        "most_boxes": None if predictions.found.masks is not None else MOST_BOXES,
        "failed": [image for image in predictions.images if image.error is not None],
    }


def _label_map_page(predictions: Predictions, run: RunFiles) -> dict[str, Any]:
    """Return what the page shows of label maps: how much of the pictures each class covers, and how that looks."""
    sample = _sample(predictions)
    labels = {label for image in sample for label in predictions.of(image).labels.tolist()}
    failed = [image for image in predictions.images if image.error is not None]
    images = Fact("Images", f"{len(predictions.images):,}", f"{len(failed):,} could not be read" if failed else "")
    return {
        "facts": [images, Fact("Classes", f"{len(predictions.class_names):,}", "of every pixel one")],
        "classes": [],
        "cover": _cover(predictions),
        "chart": None,
        "shots": [_label_map_shot(run, predictions, image) for image in sample],
        "legend": map_legend(labels, predictions.class_names),
        "most_boxes": None,
        "failed": failed,
    }


def _cover(predictions: Predictions) -> list[ClassCount]:
    """Return which part of all pixels each class covers, as `mean_score`, and in how many images it is."""
    found, names = predictions.found, predictions.class_names
    pixels, total = np.zeros(len(names), np.int64), 0
    for image in np.unique(found.images).tolist():
        masks = predictions.masks_of(image)
        if masks is not None:
            areas = masks.areas()
            pixels += np.bincount(predictions.of(image).labels, areas, len(names)).astype(np.int64)
            total += masks.size[0] * masks.size[1]
    images = np.bincount(found.labels, minlength=len(names)).tolist()
    shares = (pixels / max(total, 1)).tolist()
    return [
        ClassCount(name, 0, images[label], f"{shares[label]:.1%}", shares[label] / max(max(shares), 1e-9))
        for label, name in enumerate(names)
    ]


def _label_map_shot(run: RunFiles, predictions: Predictions, row: int) -> Shot:
    image, found, names = predictions.images[row], predictions.of(row), predictions.class_names
    masks = predictions.masks_of(row)
    caption = ", ".join(names[label] for label in found.labels.tolist())
    if masks is None or image.size is None:
        return Shot(image.path, caption, None)
    label_map = draw_classes(masks, found.labels.tolist())
    alt = f"Classes of the pixels: {caption}"
    return Shot(image.path, caption, run.tinted(image.path, alt, label_map, class_colours(len(names))))


def _facts(run: RunFiles, predictions: Predictions) -> list[Fact]:
    images, detections = len(predictions.images), len(predictions.found)
    failed = sum(image.error is not None for image in predictions.images)
    empty = images - failed - len(np.unique(predictions.found.images))
    per_image = number(detections / (images - failed), 1) if images > failed else "–"
    return [
        Fact("Images", f"{images:,}", f"{failed:,} could not be read" if failed else ""),
        Fact("Detections", f"{detections:,}", f"that score above {run.settings.get('conf', '–')}"),
        Fact("Per image", per_image, "detections on average"),
        Fact("Without any", f"{empty:,}", "images in which nothing was found"),
    ]


def _class_counts(predictions: Predictions) -> list[ClassCount]:
    found, names = predictions.found, predictions.class_names
    detections = np.bincount(found.labels, minlength=len(names))
    sums = np.bincount(found.labels, weights=found.scores, minlength=len(names))
    pairs = np.unique(found.images * len(names) + found.labels)  # each image and class once
    images = np.bincount(pairs % max(len(names), 1), minlength=len(names))
    most = max(detections.max(initial=0), 1)
    return [
        ClassCount(
            name=name,
            detections=int(detections[label]),
            images=int(images[label]),
            mean_score=number(sums[label] / detections[label] if detections[label] else None),
            share=float(detections[label] / most),
        )
        for label, name in enumerate(names)
    ]


def _sample(predictions: Predictions) -> list[int]:
    """Return images at even distances through those in which something was found, or else through all readable ones."""
    holding = np.unique(predictions.found.images).tolist()
    holding = holding or [row for row, image in enumerate(predictions.images) if image.error is None]
    count = min(_SAMPLE, len(holding))
    return [holding[row * len(holding) // count] for row in range(count)]


def _shot(run: RunFiles, predictions: Predictions, row: int) -> Shot:
    image, found, names = predictions.images[row], predictions.of(row), predictions.class_names
    caption = describe(Counter(names[label] for label in found.labels.tolist())) or "nothing found"
    marks = detection_marks(found, names, predictions.masks_of(row))
    return Shot(image.path, caption, run.picture(image.path, f"Detections: {caption}", marks, size=image.size))
