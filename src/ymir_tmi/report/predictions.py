"""`predictions.json` as columns: a page about a million images needs numbers of all of them and boxes of a few."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.formats.jsonstream import stream_lists
from ymir_tmi.evaluation.matching import Floats, Found


@dataclass(frozen=True)
class PredictedImage:
    """An image of `predictions.json`.

    Attributes:
        path: the picture file, as the run named it.
        size: (width, height) in pixels, None where it is not known.
        error: why the picture could not be read, or None.
    """

    path: str
    size: tuple[int, int] | None
    error: str | None


@dataclass(frozen=True)
class Predictions:
    """What a run found.

    Attributes:
        class_names: the classes in the order of the labels.
        images: one entry for each image of the data.
        found: the detections, image after image and the best of each first; `found.images` are positions in `images`.
    """

    class_names: tuple[str, ...]
    images: list[PredictedImage]
    found: Found

    def of(self, image: int) -> Found:
        """Return what was found in one image, best first."""
        start, end = np.searchsorted(self.found.images, (image, image + 1))
        return take(self.found, slice(start, end))


def read_predictions(path: Path) -> Predictions:
    """Read the predictions of a run.

    Raises:
        DataError: the file cannot be read or is not JSON.
    """
    images: dict[int, PredictedImage] = {}
    classes: dict[int, str] = {}
    image_ids, category_ids, scores, boxes = array("q"), array("q"), array("d"), array("d")
    for batch in stream_lists(path):
        if batch.key == "images":
            images |= {item["id"]: _image(item) for item in batch.items}
        elif batch.key == "categories":
            classes |= {item["id"]: item["name"] for item in batch.items}
        elif batch.key == "annotations":
            image_ids.extend(item["image_id"] for item in batch.items)
            category_ids.extend(item["category_id"] for item in batch.items)
            scores.extend(item["score"] for item in batch.items)
            boxes.extend(number for item in batch.items for number in item.get("rotated_box", item["bbox"]))
    found = Found(
        _positions(image_ids, images),
        _boxes(boxes, len(scores)),
        np.array(scores, np.float64),
        _positions(category_ids, classes),
    )
    order = np.lexsort((-found.scores, found.images))
    return Predictions(tuple(classes.values()), list(images.values()), take(found, order))


def take(found: Found, rows: Any) -> Found:
    """Return the chosen detections (a slice, a mask or row numbers)."""
    return Found(found.images[rows], found.boxes[rows], found.scores[rows], found.labels[rows])


def _boxes(numbers: array[float], count: int) -> Floats:
    """Return (count, 4) xyxy boxes, or (count, 5) rotated ones where there are five numbers of each."""
    boxes = np.array(numbers, np.float64)
    if count and len(boxes) == 5 * count:
        return boxes.reshape(-1, 5)
    boxes = boxes.reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _image(item: dict[str, Any]) -> PredictedImage:
    size = (item["width"], item["height"]) if item.get("width") and item.get("height") else None
    return PredictedImage(item["file_name"], size, item.get("error"))


def _positions(ids: array[int], known: dict[int, Any]) -> npt.NDArray[np.int64]:
    """Return the position of each id among the keys of `known`."""
    positions = {key: position for position, key in enumerate(known)}
    return np.fromiter((positions[key] for key in ids), np.int64, len(ids))
