"""What a file of predictions says of one image: boxes, upright or rotated, and masks in any of COCO's forms.

A polygon of four corners is a rotated box if all detections of the file are given so, and else a mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ymir_tmi.errors import DataError
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.geometry.rotated import from_corners
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import Row
from ymir_tmi.pool.recorder import make_detections

ImageId = int | str
Polygons = list[list[float]]
"""Each [x1, y1, x2, y2, ...]."""


@dataclass
class FoundInImage:
    """What was found in one image.

    Attributes:
        boxes: xyxy.
        rotated: five numbers, or the eight of a polygon, x and y in turns; None of a box that is an upright one.
        masks: of each box, None of one without; polygons until it is known that they are no rotated boxes.
        scores, categories: of each box.
    """

    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    rotated: list[Sequence[float] | None] = field(default_factory=list)
    masks: list[Masks | Polygons | None] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    categories: list[int] = field(default_factory=list)

    def add(self, item: Any) -> None:
        """Take one annotation; raise if it is not sound."""
        mask = _mask(item)
        x, y, width, height = map(float, item["bbox"] if mask is None or "bbox" in item else _around(mask))
        score, category = float(item["score"]), int(item["category_id"])
        rotated = _rotated(item)
        if not np.isfinite([x, y, width, height, score, *(rotated or ())]).all():
            raise ValueError
        self.boxes.append((x, y, x + width, y + height))
        self.rotated.append(rotated)
        self.masks.append(mask)
        self.scores.append(score)
        self.categories.append(category)

    def draw_masks(self, size: tuple[int, int]) -> None:
        """Make masks of a picture of a size (width, height) of polygons; raise ValueError where they are none."""
        self.masks = [Masks.from_segmentation(mask, size) if isinstance(mask, list) else mask for mask in self.masks]

    def detections(self, label_of: dict[int, int], *, rotated: bool) -> Detections:
        """Return them with labels, best first."""
        labels = [label_of[category] for category in self.categories]
        boxes = _rectangles(self.rotated) if rotated else self.boxes
        masks = [mask for mask in self.masks if isinstance(mask, Masks)]
        together = Masks.concatenate(masks) if masks else None
        found = make_detections(boxes, self.scores, labels, len(label_of), together)
        return found[np.argsort(-found.scores, kind="stable")]


def settle_forms(found: Mapping[ImageId, FoundInImage], images: Mapping[ImageId, Row], path: Path) -> bool:
    """Decide what polygons are, make masks of them unless they are rotated boxes, and return whether they are.

    Raises:
        DataError: some detections have a form that others lack, or a mask cannot be drawn.
    """
    rotated = _are_rotated(found.values(), path)
    if rotated:
        for image in found.values():
            image.masks = [mask if isinstance(mask, Masks) else None for mask in image.masks]
    else:
        _draw_masks(found, images, path)
    _check_masks(found, path)
    return rotated


def _mask(item: Any) -> Masks | Polygons | None:
    """Return the mask of an annotation, of one with polygons these; raise if they are not sound."""
    segment = item.get("segmentation")
    if segment is None or segment == []:
        return None
    if isinstance(segment, dict):
        height, width = map(int, segment["size"])
        return Masks.from_segmentation(segment, (width, height))
    return [list(map(float, polygon)) for polygon in segment]


def _around(mask: Masks | Polygons) -> list[float]:
    if isinstance(mask, Masks):
        x1, y1, x2, y2 = mask.hulls()[0].tolist()
    else:
        x, y = ([value for polygon in mask for value in polygon[axis::2]] for axis in (0, 1))
        x1, y1, x2, y2 = min(x), min(y), max(x), max(y)
    return [x1, y1, x2 - x1, y2 - y1]


def _rotated(item: Any) -> list[float] | None:
    """Return the rotated box of an annotation, or else its only polygon if that has four corners, or else None."""
    if "rotated_box" in item:
        cx, cy, w, h, angle = map(float, item["rotated_box"])
        return [cx, cy, w, h, angle]
    polygons = item.get("segmentation")
    if isinstance(polygons, list) and len(polygons) == 1 and len(polygons[0]) == 8:
        return [float(number) for number in polygons[0]]
    return None


def _rectangles(rotated: Sequence[Sequence[float] | None]) -> Sequence[Sequence[float]]:
    """Return rotated boxes as five numbers, the smallest ones around polygons."""
    boxes = [box for box in rotated if box is not None]
    rows = [row for row, box in enumerate(boxes) if len(box) == 8]
    if rows:
        polygons = torch.tensor([boxes[row] for row in rows], dtype=torch.float64).view(-1, 4, 2)
        for row, box in zip(rows, from_corners(polygons).tolist(), strict=True):
            boxes[row] = box
    return boxes


def _are_rotated(found: Iterable[FoundInImage], path: Path) -> bool:
    """Return whether boxes are rotated: every one of them is given so.

    Raises:
        DataError: a `rotated_box` stands beside boxes without.
    """
    boxes = [box for image in found for box in image.rotated]
    upright = sum(box is None for box in boxes)
    if upright and any(box is not None and len(box) == 5 for box in boxes):
        raise DataError(
            f"of {len(boxes)} detections {upright} have no rotated box, and the others do",
            where=path,
            fix="Give a 'rotated_box' [cx, cy, w, h, angle] or a polygon of four corners to all of them, or to none.",
        )
    return bool(boxes) and not upright


def _draw_masks(found: Mapping[ImageId, FoundInImage], images: Mapping[ImageId, Row], path: Path) -> None:
    """Make masks of polygons.

    Raises:
        DataError: one is not sound, or the size of its image is not known.
    """
    for key, image in found.items():
        if not any(isinstance(mask, list) for mask in image.masks):
            continue
        width, height = (images.get(key, {}).get(side) for side in ("width", "height"))
        if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
            raise DataError(
                f"a mask of image {key} is a polygon, and the size of the image is not stated",
                where=path,
                fix="Give masks as run lengths, or 'images' with 'width' and 'height' in pixels.",
            )
        try:
            image.draw_masks((width, height))
        except ValueError as error:
            raise DataError(f"a mask of image {key}: {error}", where=path) from error


def _check_masks(found: Mapping[ImageId, FoundInImage], path: Path) -> None:
    """Raise a DataError if some detections have masks and others have none, or two masks of an image differ in size."""
    masks = [mask for image in found.values() for mask in image.masks]
    without = sum(mask is None for mask in masks)
    if 0 < without < len(masks):
        raise DataError(
            f"of {len(masks)} detections {without} have no mask, and the others do",
            where=path,
            fix="Give a 'segmentation' to all of them, or to none.",
        )
    for key, image in found.items():
        if len({mask.size for mask in image.masks if isinstance(mask, Masks)}) > 1:
            raise DataError(f"the masks of image {key} differ in size", where=path)
