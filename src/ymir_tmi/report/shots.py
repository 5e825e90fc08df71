"""Pictures with their captions, boxes and legends, as several pages show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ymir_tmi.evaluation.matching import Found
from ymir_tmi.report.pictures import Mark, Picture, class_colour

MOST_BOXES = 25
"""Boxes drawn in one picture, those with the highest scores; more would hide what is under them."""


@dataclass(frozen=True)
class ClassKey:
    """A class and the colour of its boxes."""

    name: str
    colour: str


@dataclass(frozen=True)
class Shot:
    """A picture and what is said about it; `picture` is None where it cannot be read."""

    path: str
    caption: str
    picture: Picture | None
    title: str = ""


def detection_marks(found: Found, class_names: Sequence[str]) -> list[Mark]:
    """Return the boxes of the first `MOST_BOXES` detections, coloured by class, labelled with class and score."""
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    marks = [Mark(tuple(box), f"{class_names[label]} {score:.2f}", class_colour(label)) for box, score, label in rows]
    return marks[:MOST_BOXES]


def class_legend(parts: Iterable[Found], class_names: Sequence[str]) -> list[ClassKey]:
    """Return the colours of the classes that were found."""
    labels = {label for found in parts for label in found.labels.tolist()}
    return [ClassKey(class_names[label], class_colour(label)) for label in sorted(labels)]


def describe(counts: Mapping[str, int]) -> str:
    """Return counts in words, the largest first: "3 car, 1 person"."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
