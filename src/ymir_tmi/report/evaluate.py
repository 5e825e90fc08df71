"""The page of an evaluation, and the same as a part of the page of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ymir_tmi.errors import DataError
from ymir_tmi.evaluation.results import (
    CocoNumbers,
    Confusion,
    DotaNumbers,
    EvaluationResult,
    average_columns,
)
from ymir_tmi.evaluation.semantic_results import Evaluation, SemanticResult, read_any_evaluation
from ymir_tmi.report.charts import SERIES, Chart, Line, line_chart
from ymir_tmi.report.examples import examples
from ymir_tmi.report.page import Fact, number
from ymir_tmi.report.pictures import OUTCOME_COLOURS
from ymir_tmi.report.semantics import semantic_facts, semantics_part
from ymir_tmi.report.source import RunFiles

_MATRIX_CLASSES = 20  # a larger matrix cannot be read; its largest entries are listed in any case
_CONFUSIONS = 8
_MISSED, _NO_OBJECT = "missed", "no object"  # what the background is called as a detection, and as an object


@dataclass(frozen=True)
class Measure:
    """One of COCO's twelve numbers, or of DOTA's."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True)
class ClassRow:
    """A line of the table of classes: average precisions, precision, recall, F1 and threshold as text."""

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
    return {"facts": evaluation_facts(result) if result else [], **evaluation_parts(run, result)}


def evaluation_parts(run: RunFiles, result: Evaluation | None) -> dict[str, Any]:
    """Return what `evaluation.html` and `semantics.html` show, of which one has nothing to show."""
    objects = result if isinstance(result, EvaluationResult) else None
    pixels = result if isinstance(result, SemanticResult) else None
    return {"evaluation": evaluation_part(run, objects), "pixels": semantics_part(run, pixels)}


def load_evaluation(run: RunFiles) -> Evaluation | None:
    """Return the run's evaluation, or None (noted) where it has none."""
    path = run.layout.evaluation
    if not path.is_file():
        run.missing.append(f"No measures: the run has no {path.name}.")
        return None
    try:
        return read_any_evaluation(path)
    except DataError as error:
        run.missing.append(f"No measures: {error}")
        return None


def evaluation_facts(result: Evaluation) -> list[Fact]:
    """Return the headline numbers."""
    if isinstance(result, SemanticResult):
        return [*average_facts(result), Fact("Images", f"{result.images:,}", f"{result.pixels:,} pixels that count")]
    overall = result.overall
    at = "no object was found" if overall.threshold is None else f"at score {overall.threshold:.3f}"
    return [
        *average_facts(result),
        Fact("Precision", number(overall.precision), at),
        Fact("Recall", number(overall.recall), at),
        Fact("Images", f"{result.images:,}", f"{result.objects:,} objects"),
    ]


def average_facts(result: Evaluation | None) -> list[Fact]:
    """Return the numbers that are looked at first."""
    if isinstance(result, SemanticResult):
        return semantic_facts(result)
    if result is not None and result.masks is not None and result.coco is not None:
        return [
            Fact("Mask AP", number(result.masks.AP), "mean over IoU 0.50 to 0.95"),
            Fact("Mask AP50", number(result.masks.AP50), "at IoU 0.50"),
            Fact("Box AP", number(result.coco.AP), "mean over IoU 0.50 to 0.95"),
        ]
    means = result.means if result else None
    names = ("mAP50:95", "mAP50") if isinstance(means, DotaNumbers) else ("AP", "AP50")
    return [
        Fact(names[0], number(means.AP if means else None), "mean over IoU 0.50 to 0.95"),
        Fact(names[1], number(means.AP50 if means else None), "at IoU 0.50"),
    ]


def evaluation_part(run: RunFiles, result: EvaluationResult | None) -> dict[str, Any] | None:
    """Return what `evaluation.html` shows, None where there is no evaluation."""
    if result is None:
        return None
    return {
        "result": result,
        "settings": _settings_line(result),
        "counted": _counted_line(result),
        "measures": _measures(result),
        "averages": list(average_columns(result)),
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
    if settings.tile is not None:
        parts.append(f"larger images cut into tiles of {settings.tile} pixels that overlap by {settings.overlap}")
    if settings.precision is not None:
        parts.append(f"arithmetic in {settings.precision}")
    return ", ".join(parts)


def _counted_line(result: EvaluationResult) -> str:
    """Say which detections the confusion matrix counts."""
    kind = "the masks' IoU" if result.masks is not None else "IoU"
    iou = f"A detection belongs to an object from {kind} {result.confusion.iou:.2f} on."
    if result.overall.threshold is None:
        return f"{iou} No detection found an object, so confusions are counted among all of them."
    threshold = f"{result.confusion.threshold:.3f}"
    return f"{iou} Confusions are counted at scores from {threshold} on, where the F1 over all classes is highest."


def _measures(result: EvaluationResult) -> dict[str, list[Measure]]:
    """Return the lines of the two tables of measures, by their headings."""
    if isinstance(result.means, DotaNumbers):
        return _dota_measures(result.means)
    measures = _coco_measures(result.means, result.settings.max_dets)
    if result.masks is not None and result.coco is not None:
        boxes = _coco_measures(result.coco, result.settings.max_dets)
        return {
            f"{heading} of {kind}": part
            for kind, each in (("masks", measures), ("boxes", boxes))
            for heading, part in each.items()
        }
    return measures


def _coco_measures(coco: CocoNumbers, max_dets: int) -> dict[str, list[Measure]]:
    small, medium, large = (
        "objects below 32 × 32 pixels",
        "from 32 × 32 to 96 × 96 pixels",
        "objects above 96 × 96 pixels",
    )
    return {
        "Average precision": [
            Measure("AP", number(coco.AP), "mean over IoU 0.50, 0.55, …, 0.95"),
            Measure("AP50", number(coco.AP50), "IoU 0.50"),
            Measure("AP75", number(coco.AP75), "IoU 0.75"),
            Measure("AP small", number(coco.AP_small), small),
            Measure("AP medium", number(coco.AP_medium), medium),
            Measure("AP large", number(coco.AP_large), large),
        ],
        "Average recall": [
            Measure("AR 1", number(coco.AR_1), "1 detection per class and image"),
            Measure("AR 10", number(coco.AR_10), "10 detections"),
            Measure(f"AR {max_dets}", number(coco.AR_max), f"{max_dets} detections"),
            Measure("AR small", number(coco.AR_small), small),
            Measure("AR medium", number(coco.AR_medium), medium),
            Measure("AR large", number(coco.AR_large), large),
        ],
    }


def _dota_measures(dota: DotaNumbers) -> dict[str, list[Measure]]:
    every = "mean over IoU 0.50, 0.55, …, 0.95"
    return {
        "Area below precision over recall": [
            Measure("mAP50:95", number(dota.AP), every),
            Measure("mAP50", number(dota.AP50), "IoU 0.50"),
            Measure("mAP75", number(dota.AP75), "IoU 0.75"),
        ],
        "Mean precision at 11 recalls": [
            Measure("mAP50:95", number(dota.AP_11points), every),
            Measure("mAP50", number(dota.AP50_11points), "IoU 0.50; as DOTA's server"),
            Measure("mAP75", number(dota.AP75_11points), "IoU 0.75"),
        ],
    }


def _class_rows(result: EvaluationResult) -> list[ClassRow]:
    return [
        ClassRow(
            row.name,
            row.objects,
            row.images,
            tuple(map(number, (*averages, row.precision, row.recall, row.f1, row.threshold))),
        )
        for row, *averages in zip(result.classes, *average_columns(result).values(), strict=True)
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
