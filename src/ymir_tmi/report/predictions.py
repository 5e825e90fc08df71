"""`predictions.json` as columns: a page about a million images needs numbers of all of them and boxes of a few."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.formats.jsonstream import stream_lists
from ymir_tmi.evaluation.masks import as_column
from ymir_tmi.evaluation.matching import Floats, Found
from ymir_tmi.geometry.masks import Masks


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
        semantic: whether they are label maps: `found` then has one mask for each class and image, which all score 1.
    """

    class_names: tuple[str, ...]
    images: list[PredictedImage]
    found: Found
    semantic: bool = False

    def masks_of(self, image: int) -> Masks | None:
        """Return the masks of what was found in one image, in the same order; None where there are none."""
        counts, size = self.of(image).masks, self.images[image].size
        return None if counts is None or size is None else Masks(size, tuple(counts))

    def of(self, image: int) -> Found:
        """Return what was found in one image, best first."""
        start, end = np.searchsorted(self.found.images, (image, image + 1))
        return self.found[slice(start, end)]


def read_predictions(path: Path) -> Predictions:
    """Read the predictions of a run.

    Raises:
        DataError: the file cannot be read or is not JSON.
    """
    images: dict[int, PredictedImage] = {}
    classes: dict[int, str] = {}
    image_ids, category_ids, scores, boxes = array("q"), array("q"), array("d"), array("d")
    masks: list[bytes] = []
    scored = False
    for batch in stream_lists(path):
        if batch.key == "images":
            images |= {item["id"]: _image(item) for item in batch.items}
        elif batch.key == "categories":
            classes |= {item["id"]: item["name"] for item in batch.items}
        elif batch.key == "annotations":
            image_ids.extend(item["image_id"] for item in batch.items)
            category_ids.extend(item["category_id"] for item in batch.items)
            scores.extend(item.get("score", 1.0) for item in batch.items)
            scored |= any("score" in item for item in batch.items)
            segments = (item.get("segmentation") for item in batch.items)
            masks.extend(segment["counts"].encode() for segment in segments if isinstance(segment, dict))
            boxes.extend(number for item in batch.items for number in item.get("rotated_box", item["bbox"]))
    found = Found(
        _positions(image_ids, images),
        _boxes(boxes, len(scores)),
        np.array(scores, np.float64),
        _positions(category_ids, classes),
        as_column(masks) if masks and len(masks) == len(scores) else None,
    )
    order = np.lexsort((-found.scores, found.images))
    semantic = found.masks is not None and not scored
    return Predictions(tuple(classes.values()), list(images.values()), found[order], semantic)


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
