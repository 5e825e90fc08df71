"""Pictures with their captions, boxes and legends, as several pages show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ymir_tmi.report.pictures import Mark, Picture, class_colour
from ymir_tmi.report.source import ImageDetections


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


def detection_marks(image: ImageDetections, class_names: Sequence[str]) -> list[Mark]:
    """Return the boxes of an image, coloured by class and labelled with class and score."""
    return [Mark(box, f"{class_names[label]} {score:.2f}", class_colour(label)) for label, score, box in image.found]


def class_legend(class_names: Sequence[str], images: Iterable[ImageDetections]) -> list[ClassKey]:
    """Return the colours of the classes that were found in `images`."""
    labels = {label for image in images for label, _, _ in image.found}
    return [ClassKey(class_names[label], class_colour(label)) for label in sorted(labels)]


def describe(counts: Mapping[str, int]) -> str:
    """Return counts in words, the largest first: "3 car, 1 person"."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
