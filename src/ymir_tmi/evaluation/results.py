"""What an evaluation found: the content of `evaluation.json`.

A number is None where the data cannot tell it: a class without objects has no AP, a data set without small objects no
AP_small. Means are taken over the classes that have objects. Objects that are crowd regions or marked as difficult are
not counted: finding them is neither rewarded nor punished.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from ymir_tmi.errors import counted
from ymir_tmi.evaluation.records import Record, format_number, format_table, read_record
from ymir_tmi.files.atomic import write_json

_Cells = tuple[str | float | None, ...]

_TABLE_CLASSES = 40  # a terminal shows no more; evaluation.json has them all


class EvaluationSettings(Record):
    """What the numbers depend on besides model and data; None where it is not known (predictions from a file)."""

    conf: float | None = None
    """Detections score above this."""
    iou: float | None = None
    """IoU above which NMS dropped a box."""
    max_dets: int = 100
    """Detections kept per image."""
    image_size: int | None = None
    """Longer side of the network input, in pixels."""
    precision: str | None = None
    """Arithmetic of the network."""
    tile: int | None = None
    """Side in pixels of the windows that larger images were cut into; None where images were taken whole."""
    overlap: int | None = None
    """Pixels by which these windows overlapped."""


class CocoNumbers(Record):
    """The twelve numbers of COCO: average precision (AP) and average recall (AR), in [0, 1].

    They are averaged over IoU 0.50, 0.55, ..., 0.95 where the name holds no IoU. Small objects have less than 32 x 32
    square pixels, large ones more than 96 x 96.
    """

    AP: float | None
    AP50: float | None
    AP75: float | None
    AP_small: float | None
    AP_medium: float | None
    AP_large: float | None
    AR_1: float | None
    """With the best detection of each class and image."""
    AR_10: float | None
    """With the ten best."""
    AR_max: float | None
    """With all of them, up to `settings.max_dets`."""
    AR_small: float | None
    AR_medium: float | None
    AR_large: float | None


class DotaNumbers(Record):
    """Average precision of rotated boxes by DOTA's rules, in [0, 1].

    It is averaged over IoU 0.50, 0.55, ..., 0.95 where the name holds no IoU: mAP50:95, mAP50 and mAP75 of the
    literature where it is that of all classes. It is the area below precision over recall, or the mean precision at
    the recalls 0, 0.1, ..., 1 (PASCAL VOC 2007), which DOTA's own server reports at IoU 0.5.
    """

    AP: float | None = None
    AP50: float | None = None
    AP75: float | None = None
    AP_11points: float | None = None
    AP50_11points: float | None = None
    AP75_11points: float | None = None


class Curve(Record):
    """Precision over recall at IoU 0.5, as COCO interpolates it (precision never rises with recall)."""

    recall: list[float]
    """0.00, 0.01, ..., 1.00."""
    precision: list[float]
    """Best precision at this recall or more; 0 where it is not reached."""
    scores: list[float]
    """Score threshold that gives this recall; 0 where it is not reached."""


class ClassNumbers(Record):
    """One class. A class without objects has None for every measure."""

    name: str
    objects: int
    """Objects that count, that is without crowd regions and difficult ones."""
    images: int
    """Images with at least one of these objects."""
    AP: float | None = None
    """Of masks, where these are measured, else of boxes."""
    AP50: float | None = None
    AP_box: float | None = None
    """Of boxes, where masks are measured."""
    AP50_box: float | None = None
    precision: float | None = None
    """At `threshold`, IoU 0.5."""
    recall: float | None = None
    """At `threshold`, IoU 0.5."""
    f1: float | None = None
    """2 * precision * recall / (precision + recall), the highest over all thresholds."""
    threshold: float | None = None
    """Score at which `f1` is highest; None if no threshold finds an object."""
    pr: Curve | None = None
    dota: DotaNumbers | None = None
    """Where boxes are rotated, all numbers; `AP` and `AP50` are two of them."""


class OverallNumbers(Record):
    """All classes counted together at IoU 0.5 and the one threshold that gives the highest F1."""

    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    threshold: float | None = None
    """None if no threshold finds an object."""
    true_positives: int = 0
    false_positives: int = 0
    missed: int = 0


class Confusion(Record):
    """What objects were taken for.

    Attributes:
        names: K class names, then "background".
        matrix: (K + 1) x (K + 1) counts. Row: class of the object, column: class of the detection. The last column
            counts objects that were missed, the last row detections where there is no object.
        threshold: detections score at least this.
        iou: overlap from which a detection belongs to an object.
    """

    names: list[str]
    matrix: list[list[int]]
    threshold: float
    iou: float


class ImageScore(Record):
    """How well one image went, at the overall threshold and IoU 0.5."""

    position: int
    """Row of the image in the data."""
    path: str
    score: float
    """Panoptic quality in [0, 1]: sum of the IoUs of the objects found / (found + (missed + false) / 2)."""
    true_positives: int
    missed: int
    false_positives: int


class UnreadableImage(Record):
    """An image that could not be read; it counts as one without detections."""

    position: int
    path: str
    error: str


class EvaluationResult(Record):
    """Every number of one evaluation, curves included.

    Attributes:
        goal: the number by which models are compared.
    """

    goal: ClassVar[str] = "AP"
    settings: EvaluationSettings
    images: int
    objects: int
    """Objects that count, over all classes."""
    coco: CocoNumbers | None
    """Of boxes; None where these are rotated."""
    dota: DotaNumbers | None = None
    """None where boxes are upright."""
    masks: CocoNumbers | None = None
    """Of masks; None where these are not measured. If they are, all that follows is about masks."""
    overall: OverallNumbers
    classes: list[ClassNumbers]
    confusion: Confusion
    ranking: list[ImageScore]
    """Images from best to worst. Images with neither objects nor detections above the threshold are left out."""
    unreadable: list[UnreadableImage] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    """Sentences that a reader of the numbers must know, such as classes that the model does not have."""
    run: Path | None = Field(default=None, exclude=True)
    """The folder that the run made; not in the file, since folders move."""

    @model_validator(mode="after")
    def _check_means(self) -> EvaluationResult:
        if (self.coco is None) == (self.dota is None):
            raise ValueError("it has to have either 'coco' or 'dota'")
        return self

    @property
    def means(self) -> CocoNumbers | DotaNumbers:
        """The numbers over all classes: COCO's of masks or else of upright boxes, DOTA's of rotated boxes."""
        means = self.masks or self.coco or self.dota
        assert means is not None
        return means

    def scalars(self) -> dict[str, float]:
        """Return the numbers that fit one row of a table (None left out): `means`, and those at the best threshold.

        Where masks are measured, `AP_box`, `AP50_box` and `AP75_box` stand beside them.
        """
        numbers = self.means.model_dump()
        if self.masks is not None and self.coco is not None:
            boxes = self.coco.model_dump(include={"AP", "AP50", "AP75"})
            numbers |= {f"{name}_box": value for name, value in boxes.items()}
        numbers |= self.overall.model_dump(include={"precision", "recall", "f1"})
        return {name: value for name, value in numbers.items() if value is not None}

    def to_text(self) -> str:
        """Return a short table for a terminal."""
        end = [str(self.run)] if self.run is not None else []
        return "\n\n".join([_headline(self), _totals(self), _class_table(self), *_remarks(self), *end])


def write_evaluation(path: Path, result: Record) -> None:
    """Write `evaluation.json`."""
    write_json(path, result.to_dict())


def read_evaluation(path: Path) -> EvaluationResult:
    """Read `evaluation.json`.

    Raises:
        DataError: the file is missing or is not an evaluation.
    """
    return EvaluationResult.from_dict(read_record(path), where=path)


def average_columns(result: EvaluationResult) -> dict[str, list[float | None]]:
    """Return the average precisions that a table of the classes has: those of all classes below each heading."""
    if result.dota is None:
        averages = {"AP": [row.AP for row in result.classes], "AP50": [row.AP50 for row in result.classes]}
        if result.masks is None:
            return averages
        boxes = {"box AP": [row.AP_box for row in result.classes], "box AP50": [row.AP50_box for row in result.classes]}
        return {f"mask {name}": values for name, values in averages.items()} | boxes
    rows = [row.dota or DotaNumbers() for row in result.classes]
    return {
        "AP50:95": [row.AP for row in rows],
        "AP50": [row.AP50 for row in rows],
        "AP75": [row.AP75 for row in rows],
        "AP50, 11 points": [row.AP50_11points for row in rows],
    }


def _headline(result: EvaluationResult) -> str:
    settings = result.settings
    counts = f"{counted(result.images, 'image', 'images')}, {counted(result.objects, 'object', 'objects')}"
    parts = [counts, f"at most {settings.max_dets} detections per image"]
    if settings.conf is not None:
        parts.append(f"scores above {settings.conf:g}")
    if settings.iou is not None:
        parts.append(f"NMS at IoU {settings.iou:g}")
    if settings.image_size is not None:
        parts.append(f"{settings.image_size} pixels")
    if settings.tile is not None:
        parts.append(f"tiles of {settings.tile} pixels that overlap by {settings.overlap}")
    if settings.precision is not None:
        parts.append(settings.precision)
    return "; ".join(parts)


def _totals(result: EvaluationResult) -> str:
    means, overall, boxes = result.means, result.overall, result.coco
    rows = [
        *(_dota_rows(means) if isinstance(means, DotaNumbers) else _coco_rows(means, result.settings.max_dets)),
        *([("box AP", boxes.AP, "AP50", boxes.AP50, "AP75", boxes.AP75)] if result.masks and boxes else []),
        ("precision", overall.precision, "recall", overall.recall, "F1", overall.f1),
    ]
    cells = [[format_number(cell) if not isinstance(cell, str) else cell for cell in row] for row in rows]
    cells[-1] += ["at score", format_number(overall.threshold)]
    return format_table(cells, left=(0, 2, 4, 6))


def _coco_rows(coco: CocoNumbers, max_dets: int) -> list[_Cells]:
    return [
        ("AP", coco.AP, "AP50", coco.AP50, "AP75", coco.AP75),
        ("AP small", coco.AP_small, "medium", coco.AP_medium, "large", coco.AP_large),
        ("AR 1", coco.AR_1, "AR 10", coco.AR_10, f"AR {max_dets}", coco.AR_max),
        ("AR small", coco.AR_small, "medium", coco.AR_medium, "large", coco.AR_large),
    ]


def _dota_rows(dota: DotaNumbers) -> list[_Cells]:
    return [
        ("mAP50:95", dota.AP, "mAP50", dota.AP50, "mAP75", dota.AP75),
        ("11 points", dota.AP_11points, "mAP50", dota.AP50_11points, "mAP75", dota.AP75_11points),
    ]


def _class_table(result: EvaluationResult) -> str:
    classes, averages = result.classes[:_TABLE_CLASSES], average_columns(result)
    header = ["class", "objects", "images", *averages, "precision", "recall", "F1", "at score"]
    rows = [
        [row.name, str(row.objects), str(row.images)]
        + [format_number(value) for value in (*average, row.precision, row.recall, row.f1, row.threshold)]
        for row, *average in zip(classes, *averages.values(), strict=False)
    ]
    more = len(result.classes) - len(rows)
    return format_table([header, *rows], left=(0,)) + (f"\n... and {more} more classes" if more else "")


def _remarks(result: EvaluationResult) -> Iterable[str]:
    remarks = [f"Warning: {warning}" for warning in result.warnings]
    if result.unreadable:
        remarks.append(f"Warning: images that cannot be read: {len(result.unreadable)}, see evaluation.json")
    return ["\n".join(remarks)] if remarks else []
