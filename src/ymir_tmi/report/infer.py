"""The page of an inference run: what was found how often, and how it looks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ymir_tmi.report.charts import histogram
from ymir_tmi.report.page import Fact, number
from ymir_tmi.report.predictions import Predictions
from ymir_tmi.report.shots import MOST_BOXES, Shot, class_legend, describe, detection_marks
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
        }
    sample = _sample(predictions)
    names, scores = predictions.class_names, predictions.found.scores
    chart = histogram("Scores", scores, x_label="score", y_label="detections", x_range=(0, 1)) if len(scores) else None
    return {
        "facts": _facts(run, predictions),
        "classes": _class_counts(predictions),
        "chart": chart,
        "shots": [_shot(run, predictions, image) for image in sample],
        "legend": class_legend([predictions.of(image) for image in sample], names),
        "most_boxes": MOST_BOXES,
        "failed": [image for image in predictions.images if image.error is not None],
    }


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
    marks = detection_marks(found, names)
    return Shot(image.path, caption, run.picture(image.path, f"Detections: {caption}", marks, size=image.size))
