"""The page of an evaluation, and the same as a part of the page of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ymir_tmi.errors import DataError
from ymir_tmi.evaluation.results import CocoNumbers, Confusion, EvaluationResult, read_evaluation
from ymir_tmi.report.charts import SERIES, Chart, Line, line_chart
from ymir_tmi.report.examples import examples
from ymir_tmi.report.page import Fact, number
from ymir_tmi.report.pictures import OUTCOME_COLOURS
from ymir_tmi.report.source import RunFiles

_MATRIX_CLASSES = 20  # a larger matrix cannot be read; its largest entries are listed in any case
_CONFUSIONS = 8
_MISSED, _NO_OBJECT = "missed", "no object"  # what the background is called as a detection, and as an object


@dataclass(frozen=True)
class Measure:
    """One of COCO's twelve numbers."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True)
class ClassRow:
    """A line of the table of classes: AP, AP50, precision, recall, F1 and threshold as text."""

    name: str
    objects: int
    images: int
    values: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """A count of the confusion matrix and its part of the row in [0, 1]."""

    count: int
    share: float


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix: names of the columns, and a name and the cells of every row."""

    columns: list[str]
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class Mistake:
    """A frequent entry of the confusion matrix beside the diagonal."""

    truth: str
    taken_for: str
    count: int


def evaluate_page(run: RunFiles) -> dict[str, Any]:
    """Return what `evaluate.html` shows."""
    result = load_evaluation(run)
    return {"facts": evaluation_facts(result) if result else [], "evaluation": evaluation_part(run, result)}


def load_evaluation(run: RunFiles) -> EvaluationResult | None:
    """Return the run's evaluation, or None (noted) where it has none."""
    path = run.layout.evaluation
    if not path.is_file():
        run.missing.append(f"No measures: the run has no {path.name}.")
        return None
    try:
        return read_evaluation(path)
    except DataError as error:
        run.missing.append(f"No measures: {error}")
        return None


def evaluation_facts(result: EvaluationResult) -> list[Fact]:
    """Return the headline numbers."""
    overall = result.overall
    at = "no object was found" if overall.threshold is None else f"at score {overall.threshold:.3f}"
    return [
        Fact("AP", number(result.coco.AP), "mean over IoU 0.50 to 0.95"),
        Fact("AP50", number(result.coco.AP50), "at IoU 0.50"),
        Fact("Precision", number(overall.precision), at),
        Fact("Recall", number(overall.recall), at),
        Fact("Images", f"{result.images:,}", f"{result.objects:,} objects"),
    ]


def evaluation_part(run: RunFiles, result: EvaluationResult | None) -> dict[str, Any] | None:
    """Return what `evaluation.html` shows, None where there is no evaluation."""
    if result is None:
        return None
    return {
        "result": result,
        "settings": _settings_line(result),
        "counted": _counted_line(result),
        "measures": _measures(result.coco, result.settings.max_dets),
        "classes": _class_rows(result),
        "curves": _curves(result),
        "matrix": _matrix(result.confusion),
        "mistakes": _mistakes(result.confusion),
        "examples": examples(run, result),
        "outcomes": OUTCOME_COLOURS,
    }


def _settings_line(result: EvaluationResult) -> str:
    settings = result.settings
    parts = [f"at most {settings.max_dets} detections per image"]
    if settings.conf is not None:
        parts.append(f"detections that score above {settings.conf:g}")
    if settings.iou is not None:
        parts.append(f"NMS at IoU {settings.iou:g}")
    if settings.image_size is not None:
        parts.append(f"network input of {settings.image_size} pixels")
    if settings.precision is not None:
        parts.append(f"arithmetic in {settings.precision}")
    return ", ".join(parts)


def _counted_line(result: EvaluationResult) -> str:
    """Say which detections the confusion matrix counts."""
    iou = f"A detection belongs to an object from IoU {result.confusion.iou:.2f} on."
    if result.overall.threshold is None:
        return f"{iou} No detection found an object, so confusions are counted among all of them."
    threshold = f"{result.confusion.threshold:.3f}"
    return f"{iou} Confusions are counted at scores from {threshold} on, where the F1 over all classes is highest."


def _measures(coco: CocoNumbers, max_dets: int) -> list[Measure]:
    rows = [
        ("AP", coco.AP, "mean over IoU 0.50, 0.55, …, 0.95"),
        ("AP50", coco.AP50, "IoU 0.50"),
        ("AP75", coco.AP75, "IoU 0.75"),
        ("AP small", coco.AP_small, "objects below 32 × 32 pixels"),
        ("AP medium", coco.AP_medium, "from 32 × 32 to 96 × 96 pixels"),
        ("AP large", coco.AP_large, "objects above 96 × 96 pixels"),
        ("AR 1", coco.AR_1, "1 detection per class and image"),
        ("AR 10", coco.AR_10, "10 detections"),
        (f"AR {max_dets}", coco.AR_max, f"{max_dets} detections"),
        ("AR small", coco.AR_small, "objects below 32 × 32 pixels"),
        ("AR medium", coco.AR_medium, "from 32 × 32 to 96 × 96 pixels"),
        ("AR large", coco.AR_large, "objects above 96 × 96 pixels"),
    ]
    return [Measure(name, number(value), meaning) for name, value, meaning in rows]


def _class_rows(result: EvaluationResult) -> list[ClassRow]:
    return [
        ClassRow(
            row.name,
            row.objects,
            row.images,
            tuple(map(number, (row.AP, row.AP50, row.precision, row.recall, row.f1, row.threshold))),
        )
        for row in result.classes
    ]


def _curves(result: EvaluationResult) -> Chart | None:
    """Draw one line a class; where there are many, the classes with the lowest AP50 stand out from the rest."""
    classes = [row for row in result.classes if row.pr is not None]
    if not any(row.AP50 for row in classes):
        return None
    outstanding = {row.name for row in sorted(classes, key=lambda row: row.AP50 or 0.0)[:SERIES]}
    lines = [
        Line(
            row.name if row.name in outstanding else "",
            row.pr.recall,
            [value or math.nan for value in row.pr.precision],
        )
        for row in classes
        if row.pr
    ]
    return line_chart(
        "Precision over recall at IoU 0.50",
        lines,
        x_label="recall",
        y_label="precision",
        x_range=(0, 1.01),
        y_range=(0, 1.04),
    )


def _matrix(confusion: Confusion) -> Matrix | None:
    names = confusion.names[:-1]  # the last is the background
    if len(names) > _MATRIX_CLASSES:
        return None
    rows = []
    for name, counts in zip([*names, _NO_OBJECT], confusion.matrix, strict=True):
        total = sum(counts) or 1
        rows.append((name, [Cell(count, count / total) for count in counts]))
    return Matrix([*names, _MISSED], rows)


def _mistakes(confusion: Confusion) -> list[Mistake]:
    names, last = confusion.names, len(confusion.names) - 1
    counts = [
        Mistake(_NO_OBJECT if row == last else names[row], _MISSED if column == last else names[column], count)
        for row, columns in enumerate(confusion.matrix)
        for column, count in enumerate(columns)
        if row != column and count
    ]
    return sorted(counts, key=lambda mistake: -mistake.count)[:_CONFUSIONS]
