"""Drawn samples: every object is a rectangle of one colour, exactly under its box."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ymir_tmi import imaging
from ymir_tmi.data.index import DatasetIndex, Strings
from ymir_tmi.data.rotated import rectangles, rotated_columns
from ymir_tmi.data.sample import Sample
from ymir_tmi.geometry.polygons import Polygons
from ymir_tmi.imaging import Image

GROUND = (40, 40, 40)
# Far from one another, from the ground and from the grey of the padding.
COLOURS = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250], [250, 250, 20], [20, 250, 250], [250, 20, 250]])

Box = tuple[float, float, float, float]


def draw(width: int, height: int, boxes: Sequence[Box], labels: Sequence[int] | None = None) -> Sample:
    """Return a picture with a rectangle of colour `COLOURS[label]` under each box of whole pixels."""
    labels = range(len(boxes)) if labels is None else labels
    image = np.full((height, width, 3), GROUND, np.uint8)
    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        image[int(y1) : int(y2), int(x1) : int(x2)] = COLOURS[label]
    return Sample(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64))


def draw_rotated(width: int, height: int, boxes: Sequence[Sequence[float]], labels: Sequence[int]) -> Sample:
    """Return a picture with a filled rectangle under each (cx, cy, w, h, angle), and corners as its boxes."""
    image, corners = np.full((height, width, 3), GROUND, np.uint8), []
    for (cx, cy, w, h, angle), label in zip(boxes, labels, strict=True):
        cos, sin = np.cos(angle), np.sin(angle)
        along, across = w / 2 * np.array([cos, sin]), h / 2 * np.array([-sin, cos])
        corners.append([(cx, cy) + i * along + j * across for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
        image[under(corners[-1], width, height)] = COLOURS[label]
    return Sample(image, np.array(corners, np.float32).reshape(-1, 4, 2), np.array(labels, np.int64))


def draw_outlined(
    width: int, height: int, objects: Sequence[Sequence[Sequence[float]]], labels: Sequence[int]
) -> Sample:
    """Return a picture in which the pixels inside of each object have its colour; objects are lists of polygons."""
    image, outlines = np.full((height, width, 3), GROUND, np.uint8), Polygons.from_rings(objects)
    for row, label in enumerate(labels):
        image[outlines.take([row]).bitmap(width, height)] = COLOURS[label]
    return Sample(image, outlines.hulls(), np.array(labels, np.int64), outlines)


def under(corners: npt.ArrayLike, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Return (height, width) which pixels have their centre inside a convex polygon."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    points = np.asarray(corners, float)
    sides = [
        (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)
        for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True)
    ]
    return (np.array(sides) >= 0).all(axis=0) | (np.array(sides) <= 0).all(axis=0)


def coloured(image: Image, label: int) -> npt.NDArray[np.bool_]:
    """Return (H, W) which pixels are nearer to the colour of `label` than half way to anything else."""
    return np.abs(image.astype(int) - COLOURS[label]).sum(axis=2) < 120


def measure(image: Image, label: int) -> np.ndarray | None:
    """Return the box around the pixels that are nearer to the colour of `label` than half way to anything else."""
    near = coloured(image, label)
    if not near.any():
        return None
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def write_index(folder: Path, samples: Sequence[Sample], flags: Sequence[Sequence[int]] | None = None) -> DatasetIndex:
    """Write the pictures losslessly and return the index of them."""
    paths = [folder / f"{row}.png" for row in range(len(samples))]
    for path, sample in zip(paths, samples, strict=True):
        imaging.write_image(path, sample.image)
    boxes = np.concatenate([sample.boxes for sample in samples])
    shapes = {"boxes": boxes, "areas": np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)}
    if boxes.ndim == 3:
        shapes = rotated_columns(rectangles(boxes))
    if all(sample.outlines is not None for sample in samples):
        shapes["segments"] = Strings.pack(
            json.dumps([ring for part in sample.outlines.rings(row) for ring in part])
            for sample in samples
            for row in range(len(sample.boxes))
        )
    counts = [len(sample.boxes) for sample in samples]
    return DatasetIndex(
        class_names=tuple("abcdef"),
        paths=Strings.pack(map(str, paths)),
        sizes=np.array([sample.size for sample in samples], np.int32),
        image_ids=np.arange(len(samples)),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        labels=np.concatenate([sample.labels for sample in samples]).astype(np.int32),
        flags=np.array([f for image in flags for f in image] if flags else [0] * len(boxes), np.uint8),
        **shapes,
    )
