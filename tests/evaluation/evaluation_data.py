"""Small data sets for the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ymir_tmi.data.index import CROWD, DatasetIndex, Strings
from ymir_tmi.geometry.rotated import hulls
from ymir_tmi.models.interface import Detections

Box = tuple[float, float, float, float]


def make_index(
    images: Sequence[Sequence[tuple[Box, int] | tuple[Box, int, int]]], names: Sequence[str] = ("cat", "dog")
) -> DatasetIndex:
    """Return an index of images whose objects are (xyxy, label) or (xyxy, label, flags)."""
    rows = [(*row, 0)[:3] for objects in images for row in objects]
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    return DatasetIndex(
        class_names=tuple(names),
        paths=Strings.pack(f"{number}.jpg" for number in range(len(images))),
        sizes=np.full((len(images), 2), 100, np.int32),
        image_ids=np.arange(len(images)),
        starts=np.cumsum([0, *map(len, images)]),
        boxes=boxes,
        labels=np.array([row[1] for row in rows], np.int32),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        flags=np.array([row[2] for row in rows], np.uint8),
    )


def make_detections(rows: Sequence[tuple[Box, float, int]]) -> Detections:
    """Return detections given as (xyxy, score, label)."""
    return Detections(
        boxes=np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        scores=np.array([row[1] for row in rows], np.float32),
        labels=np.array([row[2] for row in rows], np.int64),
        class_scores=np.zeros((len(rows), 0), np.float32),
    )


def make_rotated_index(
    boxes: Sequence[Any], labels: Sequence[Any], flags: Sequence[Any], names: Sequence[str]
) -> DatasetIndex:
    """Return an index of images whose objects are given as (n, 5) rotated boxes, n labels and n flags."""
    rotated = np.concatenate([np.asarray(part, np.float32).reshape(-1, 5) for part in boxes])
    return DatasetIndex(
        class_names=tuple(names),
        paths=Strings.pack(f"{number}.png" for number in range(len(boxes))),
        sizes=np.full((len(boxes), 2), 1000, np.int32),
        image_ids=np.arange(len(boxes)),
        starts=np.cumsum([0, *map(len, boxes)]),
        boxes=hulls(torch.from_numpy(rotated)).numpy(),
        labels=np.concatenate(labels).astype(np.int32),
        areas=rotated[:, 2] * rotated[:, 3],
        flags=np.concatenate(flags).astype(np.uint8),
        rotated=rotated,
    )


def rotated_detections(boxes: Any, scores: Any, labels: Any) -> Detections:
    """Return detections with (n, 5) rotated boxes."""
    found = np.asarray(boxes, np.float32).reshape(-1, 5)
    classes = np.asarray(labels, np.int64)
    return Detections(found, np.asarray(scores, np.float32), classes, np.zeros((len(found), 0), np.float32))


def random_coco(seed: int, images: int = 30, detections: int = 60) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a COCO data set and results for it.

    Image and category ids have gaps and are not in order, some images have no objects and some no detections, one class
    has no objects and one no detections, there are crowd regions, areas differ from those of the boxes, and scores have
    two digits, so that many are equal.
    """
    rng = np.random.default_rng(seed)
    image_ids = rng.choice(10_000, images, replace=False).tolist()
    category_ids = [90, 3, 17, 4]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id in image_ids:
        corners = np.round(rng.uniform(0, 300, (rng.integers(0, 9), 2)))
        sizes = np.round(rng.uniform(4, 60, corners.shape) * rng.choice([0.3, 1, 4], (len(corners), 1))) + 1
        for xywh in np.hstack([corners, sizes]).tolist():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice(category_ids[:3])),
                    "bbox": xywh,
                    "area": round(xywh[2] * xywh[3] * rng.choice([1, 0.75])),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
        objects = annotations[len(annotations) - len(corners) :]
        for _ in range(detections if objects and rng.random() < 0.9 else 0):
            near = objects[rng.integers(len(objects))]
            xywh = np.array(near["bbox"]) + np.round(rng.normal(0, 0.12, 4) * near["bbox"][2] * 4) / 4
            right = rng.random() < 0.7 and near["category_id"] != 17
            category = near["category_id"] if right else int(rng.choice([90, 3, 4]))
            box = [*xywh[:2].tolist(), *np.maximum(xywh[2:], 1).tolist()]
            score = round(float(rng.beta(3 if right else 1, 2)), 2)
            results.append({"image_id": image_id, "category_id": category, "bbox": box, "score": score})
    data = {
        "images": [{"id": image_id} for image_id in image_ids],
        "categories": [{"id": category_id, "name": f"class {category_id}"} for category_id in category_ids],
        "annotations": annotations,
    }
    return data, results


def coco_index(data: dict[str, Any]) -> DatasetIndex:
    """Return the index of a COCO data set."""
    ids = [image["id"] for image in data["images"]]
    categories = [category["id"] for category in data["categories"]]
    rows = sorted(data["annotations"], key=lambda row: ids.index(row["image_id"]))
    xywh = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
    counts = np.bincount([ids.index(row["image_id"]) for row in rows], minlength=len(ids))
    return DatasetIndex(
        class_names=tuple(category["name"] for category in data["categories"]),
        paths=Strings.pack(f"{image_id}.jpg" for image_id in ids),
        sizes=np.zeros((len(ids), 2), np.int32),
        image_ids=np.array(ids),
        starts=np.cumsum([0, *counts]),
        boxes=np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]).astype(np.float32),
        labels=np.array([categories.index(row["category_id"]) for row in rows], np.int32),
        areas=np.array([row["area"] for row in rows], np.float32),
        flags=np.array([CROWD * row["iscrowd"] for row in rows], np.uint8),
        category_ids=tuple(categories),
    )


def coco_detections(data: dict[str, Any], results: list[dict[str, Any]]) -> list[Detections]:
    """Return the results of each image of a COCO data set."""
    categories = [category["id"] for category in data["categories"]]
    return [
        make_detections(
            [
                ((x, y, x + w, y + h), row["score"], categories.index(row["category_id"]))
                for row in results
                if row["image_id"] == image["id"]
                for x, y, w, h in [row["bbox"]]
            ]
        )
        for image in data["images"]
    ]
