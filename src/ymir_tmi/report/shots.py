"""Pictures with their captions, boxes and legends, as several pages show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ymir_tmi.data.drawing import mask_rings
from ymir_tmi.data.palette import class_colours
from ymir_tmi.evaluation.matching import Found
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.report.pictures import Floats, Mark, Picture, class_colour

MOST_BOXES = 25
"""Boxes drawn in one picture, those with the highest scores; more would hide what is under them."""


MOST_MASKS = 500
"""Masks drawn in one picture; unlike boxes they hide no more than the objects themselves."""


@dataclass(frozen=True)
class ClassKey:
    """A class and the colour of its boxes."""

    name: str
    colour: str


@dataclass(frozen=True)
class Shot:
    """A picture and what is said about it; `picture` is None where it cannot be read.

    `more` are further pictures of the same, by what they show.
    """

    path: str
    caption: str
    picture: Picture | None
    title: str = ""
    more: Mapping[str, Picture | None] = field(default_factory=dict)


def detection_marks(found: Found, class_names: Sequence[str], masks: Masks | None = None) -> list[Mark]:
    """Return the first detections, coloured by class, labelled with class and score.

    They are boxes, at most `MOST_BOXES` of them, or masks where these are given.
    """
    shown = found[: MOST_BOXES if masks is None else MOST_MASKS]
    rings = rings_of(None if masks is None else masks[:MOST_MASKS], len(shown))
    rows = zip(shown.boxes.tolist(), shown.scores.tolist(), shown.labels.tolist(), rings, strict=True)
    return [
        Mark(tuple(box), f"{class_names[label]} {score:.2f}", class_colour(label), rings=lines)
        for box, score, label, lines in rows
    ]


def rings_of(masks: Masks | None, count: int) -> list[tuple[Floats, ...]]:
    """Return the lines around each of `count` masks; none where boxes have no masks."""
    return [()] * count if masks is None else [tuple(rings) for rings in mask_rings(masks)]


def class_legend(parts: Iterable[Found], class_names: Sequence[str]) -> list[ClassKey]:
    """Return the colours of the classes that were found."""
    labels = {label for found in parts for label in found.labels.tolist()}
    return [ClassKey(class_names[label], class_colour(label)) for label in sorted(labels)]


def map_legend(labels: Iterable[int], class_names: Sequence[str]) -> list[ClassKey]:
    """Return the colours in which label maps show these classes."""
    colours = class_colours(len(class_names))
    return [ClassKey(class_names[label], "#" + bytes(colours[label]).hex()) for label in sorted(set(labels))]


def describe(counts: Mapping[str, int]) -> str:
    """Return counts in words, the largest first: "3 car, 1 person"."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
