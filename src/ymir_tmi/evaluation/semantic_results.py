"""What an evaluation of label maps found: the content of `evaluation.json` of a semantic model.

A number is None where the data cannot tell it: a class that is neither in the data nor predicted has no IoU, one that
is not in the data no accuracy. Means are taken over the classes that have the number.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from ymir_tmi.errors import counted
from ymir_tmi.evaluation.records import Record, format_number, format_table, read_record
from ymir_tmi.evaluation.results import EvaluationResult, UnreadableImage

_TABLE_CLASSES = 40  # a terminal shows no more; evaluation.json has them all


class SemanticSettings(Record):
    """What the numbers depend on besides model and data; None where it is not known."""

    image_size: int | None = None
    """Longer side of the network input, in pixels."""
    precision: str | None = None
    """Arithmetic of the network."""


class PixelNumbers(Record):
    """One class. Counts are sums over all images, of pixels that count."""

    name: str
    pixels: int
    """Pixels of the class."""
    predicted: int
    """Pixels that were taken for it."""
    images: int
    """Images with at least one pixel of the class."""
    IoU: float | None = None
    """Pixels of the class that were taken for it / pixels of which at least one of both holds."""
    Acc: float | None = None
    """Pixels of the class that were taken for it / pixels of the class."""


class PixelConfusion(Record):
    """What pixels were taken for.

    Attributes:
        names: of the columns: K class names, then "other" where the model has classes that the data does not have.
        matrix: K rows of pixel counts. Row: class in the data, column: predicted class.
    """

    names: list[str]
    matrix: list[list[int]]


class PixelScore(Record):
    """How well one image went."""

    position: int
    """Row of the image in the data."""
    path: str
    score: float
    """Mean IoU over the classes that are in the image or were predicted in it."""
    accuracy: float
    """Part of the pixels that count whose class is right."""


class SemanticResult(Record):
    """Every number of one evaluation of label maps.

    Attributes:
        goal: the number by which models are compared.
    """

    goal: ClassVar[str] = "mIoU"
    task: Literal["semantics"] = "semantics"
    settings: SemanticSettings
    images: int
    pixels: int
    """Pixels that count, over all images."""
    mIoU: float | None  # noqa: N815, the name that it has everywhere
    """Mean of the classes' IoU."""
    mAcc: float | None  # noqa: N815
    """Mean of the classes' accuracy."""
    aAcc: float | None  # noqa: N815
    """Part of all pixels whose class is right."""
    classes: list[PixelNumbers]
    confusion: PixelConfusion
    ranking: list[PixelScore]
    """Images from best to worst. Images in which no pixel counts are left out."""
    unreadable: list[UnreadableImage] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    """Sentences that a reader of the numbers must know, such as classes that the model does not have."""
    run: Path | None = Field(default=None, exclude=True)
    """The folder that the run made; not in the file, since folders move."""

    def scalars(self) -> dict[str, float]:
        """Return the numbers that fit one row of a table (None left out)."""
        numbers = {"mIoU": self.mIoU, "mAcc": self.mAcc, "aAcc": self.aAcc}
        return {name: value for name, value in numbers.items() if value is not None}

    def to_text(self) -> str:
        """Return a short table for a terminal."""
        end = [str(self.run)] if self.run is not None else []
        return "\n\n".join([_headline(self), _totals(self), _class_table(self), *_remarks(self), *end])


Evaluation = EvaluationResult | SemanticResult


def read_any_evaluation(path: Path) -> Evaluation:
    """Read `evaluation.json` of any task.

    Raises:
        DataError: the file is missing or is not an evaluation.
    """
    content = read_record(path)
    if isinstance(content, dict) and content.get("task") == "semantics":
        return SemanticResult.from_dict(content, where=path)
    return EvaluationResult.from_dict(content, where=path)


def _headline(result: SemanticResult) -> str:
    settings = result.settings
    parts = [f"{counted(result.images, 'image', 'images')}, {result.pixels:,} pixels that count"]
    if settings.image_size is not None:
        parts.append(f"{settings.image_size} pixels")
    if settings.precision is not None:
        parts.append(settings.precision)
    return "; ".join(parts)


def _totals(result: SemanticResult) -> str:
    return "  ".join(f"{name} {format_number(getattr(result, name))}" for name in ("mIoU", "mAcc", "aAcc"))


def _class_table(result: SemanticResult) -> str:
    header = ["class", "images", "of all pixels", "IoU", "Acc"]
    rows = [
        [
            row.name,
            str(row.images),
            f"{row.pixels / max(1, result.pixels):.1%}",
            *map(format_number, (row.IoU, row.Acc)),
        ]
        for row in result.classes[:_TABLE_CLASSES]
    ]
    more = len(result.classes) - len(rows)
    return format_table([header, *rows], left=(0,)) + (f"\n... and {more} more classes" if more else "")


def _remarks(result: SemanticResult) -> Iterable[str]:
    remarks = [f"Warning: {warning}" for warning in result.warnings]
    if result.unreadable:
        remarks.append(f"Warning: images that cannot be read: {len(result.unreadable)}, see evaluation.json")
    return ["\n".join(remarks)] if remarks else []
