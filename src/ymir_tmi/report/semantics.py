"""The part of a page about the class of every pixel: numbers, confusions, and pictures of where they are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import IGNORED, DatasetIndex
from ymir_tmi.data.palette import class_colours
from ymir_tmi.data.semantics import read_label_map
from ymir_tmi.errors import ImageError
from ymir_tmi.evaluation.label_maps import EXAMPLES
from ymir_tmi.evaluation.semantic_results import PixelScore, SemanticResult
from ymir_tmi.imaging import image_size, read_values
from ymir_tmi.report.page import Fact, number
from ymir_tmi.report.pictures import Picture
from ymir_tmi.report.shots import Shot, map_legend
from ymir_tmi.report.source import RunFiles

_MATRIX_CLASSES = 20  # a larger matrix cannot be read; its largest entries are listed in any case
_CONFUSIONS = 8
_WRONG, _NOT_COUNTED = (255, 70, 70), (90, 110, 150)

LabelMap = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PixelRow:
    """A line of the table of classes; `share` is the length of the bar of its IoU in [0, 1]."""

    name: str
    images: str
    pixels: str
    iou: str
    acc: str
    share: float


@dataclass(frozen=True)
class PixelMistake:
    """A frequent confusion: classes, and the part of the pixels of `truth` that it is."""

    truth: str
    taken_for: str
    part: str


def semantic_facts(result: SemanticResult) -> list[Fact]:
    """Return the three measures."""
    return [
        Fact("mIoU", number(result.mIoU), "intersection over union, mean over the classes"),
        Fact("mAcc", number(result.mAcc), "part of a class that is right, mean over the classes"),
        Fact("aAcc", number(result.aAcc), "part of all pixels that is right"),
    ]


def semantics_part(run: RunFiles, result: SemanticResult | None) -> dict[str, Any] | None:
    """Return what `semantics.html` shows, None where there is no such evaluation."""
    if result is None:
        return None
    best, worst = _examples(run, result)
    return {
        "result": result,
        "classes": _class_rows(result),
        "matrix": _matrix(result),
        "columns": result.confusion.names,
        "mistakes": _mistakes(result),
        "best": best,
        "worst": worst,
        "legend": map_legend(range(len(result.classes)), [row.name for row in result.classes]),
        "wrong": "#" + bytes(_WRONG).hex(),
        "not_counted": "#" + bytes(_NOT_COUNTED).hex(),
    }


def _class_rows(result: SemanticResult) -> list[PixelRow]:
    total = max(1, result.pixels)
    return [
        PixelRow(
            row.name, f"{row.images:,}", f"{row.pixels / total:.1%}", number(row.IoU), number(row.Acc), row.IoU or 0.0
        )
        for row in result.classes
    ]


def _matrix(result: SemanticResult) -> list[tuple[str, list[float]]] | None:
    """Return the rows of the confusion matrix as parts of each class, or None where there are too many classes."""
    if len(result.classes) > _MATRIX_CLASSES:
        return None
    rows = zip(result.classes, result.confusion.matrix, strict=True)
    return [(row.name, [count / max(1, sum(counts)) for count in counts]) for row, counts in rows]


def _mistakes(result: SemanticResult) -> list[PixelMistake]:
    names = result.confusion.names
    cells = [
        (count, row, column)
        for row, counts in enumerate(result.confusion.matrix)
        for column, count in enumerate(counts)
        if row != column and count
    ]
    return [
        PixelMistake(names[row], names[column], f"{count / result.classes[row].pixels:.1%}")
        for count, row, column in sorted(cells, reverse=True)[:_CONFUSIONS]
    ]


def _examples(run: RunFiles, result: SemanticResult) -> tuple[list[Shot], list[Shot]]:
    """Return the best images, from the best on, and the worst, from the worst on; none is among both."""
    half = min(EXAMPLES, (len(result.ranking) + 1) // 2)
    best, worst = result.ranking[:half], result.ranking[half:][-half:][::-1]
    truth = run.label_maps([row.name for row in result.classes]) if result.ranking else None
    shots = [_shot(run, result, truth, score) for score in (*best, *worst)]
    return shots[:half], shots[half:]


def _shot(run: RunFiles, result: SemanticResult, truth: DatasetIndex | None, score: PixelScore) -> Shot:
    caption = f"{score.accuracy:.1%} of the pixels are right"
    right, predicted = _truth(run, truth, score), _predicted(run, score)
    picture = run.picture(score.path, f"{score.path}: the picture")
    colours = class_colours(len(result.classes))
    more = {
        "What the data says": _tinted(run, score, right, colours, "the data's classes"),
        "What the model says": _tinted(run, score, predicted, colours, "the model's classes"),
    }
    if right is not None and predicted is not None and right.shape == predicted.shape:
        difference = np.full(right.shape, IGNORED, np.uint8)
        difference[right != predicted], difference[right == IGNORED] = 0, 1
        marks = np.array([_WRONG, _NOT_COUNTED], np.uint8)
        more["Where they differ"] = _tinted(run, score, difference, marks, "wrong pixels", grey=True)
    shown = {name: each for name, each in more.items() if each is not None}
    return Shot(score.path, caption, picture, f"mIoU {number(score.score)}", shown)


def _truth(run: RunFiles, truth: DatasetIndex | None, score: PixelScore) -> LabelMap | None:
    """Return the label map of the data, or None (noted) where it cannot be read."""
    if truth is None or score.position >= len(truth) or truth.paths[score.position] != score.path:
        return None
    try:
        size = truth.size(score.position) or image_size(score.path)
        return read_label_map(truth, score.position, size)
    except ImageError as error:
        run.missing.append(f"No label map of {score.path}: {error}.")
        return None


def _predicted(run: RunFiles, score: PixelScore) -> LabelMap | None:
    """Return what the model said, or None where the run did not keep it."""
    try:
        return read_values(run.layout.label_maps / f"{score.position}.png")
    except ImageError:
        return None


def _tinted(
    run: RunFiles,
    score: PixelScore,
    label_map: LabelMap | None,
    colours: npt.NDArray[np.uint8],
    what: str,
    *,
    grey: bool = False,
) -> Picture | None:
    if label_map is None:
        return None
    return run.tinted(score.path, f"{score.path}: {what}", label_map, colours, grey=grey)
