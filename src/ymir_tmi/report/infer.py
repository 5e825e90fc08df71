"""The page of an inference run: what was found how often, and how it looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ymir_tmi.report.charts import Chart, histogram
from ymir_tmi.report.page import Fact, number
from ymir_tmi.report.shots import Shot, class_legend, describe, detection_marks
from ymir_tmi.report.source import ImageDetections, RunFiles

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
    class_names, images = run.predictions() or ((), [])
    readable = [image for image in images if image.error is None]
    sample = _sample(readable)
    return {
        "facts": _facts(run, images, readable),
        "classes": _class_counts(class_names, readable),
        "chart": _score_chart(readable),
        "shots": [_shot(run, image, class_names) for image in sample],
        "legend": class_legend(class_names, sample),
        "failed": [{"path": image.path, "error": image.error} for image in images if image.error is not None],
    }


def _facts(run: RunFiles, images: Sequence[ImageDetections], readable: Sequence[ImageDetections]) -> list[Fact]:
    failed = len(images) - len(readable)
    detections = sum(len(image.found) for image in readable)
    empty = sum(not image.found for image in readable)
    per_image = number(detections / len(readable), 1) if readable else "–"
    return [
        Fact("Images", f"{len(images):,}", f"{failed:,} could not be read" if failed else ""),
        Fact("Detections", f"{detections:,}", f"that score above {run.settings.get('conf', '–')}"),
        Fact("Per image", per_image, "detections on average"),
        Fact("Without any", f"{empty:,}", "images in which nothing was found"),
    ]


def _class_counts(class_names: Sequence[str], images: Sequence[ImageDetections]) -> list[ClassCount]:
    scores: list[list[float]] = [[] for _ in class_names]
    holding = [0] * len(class_names)
    for image in images:
        for label, score, _ in image.found:
            scores[label].append(score)
        for label in {label for label, _, _ in image.found}:
            holding[label] += 1
    most = max(map(len, scores), default=0) or 1
    return [
        ClassCount(
            name, len(found), holding[label], number(float(np.mean(found)) if found else None), len(found) / most
        )
        for label, (name, found) in enumerate(zip(class_names, scores, strict=True))
    ]


def _score_chart(images: Sequence[ImageDetections]) -> Chart | None:
    scores = [score for image in images for _, score, _ in image.found]
    if not scores:
        return None
    return histogram("Scores", scores, x_label="score", y_label="detections", x_range=(0, 1))


def _sample(images: Sequence[ImageDetections]) -> list[ImageDetections]:
    """Return pictures at even distances through the images in which something was found."""
    holding = [image for image in images if image.found] or list(images)
    count = min(_SAMPLE, len(holding))
    return [holding[row * len(holding) // count] for row in range(count)]


def _shot(run: RunFiles, image: ImageDetections, class_names: Sequence[str]) -> Shot:
    counts = Counter(class_names[label] for label, _, _ in image.found)
    caption = describe(counts) or "nothing found"
    marks = detection_marks(image, class_names)
    return Shot(image.path, caption, run.picture(image.path, f"Detections: {caption}", marks, size=image.size))
