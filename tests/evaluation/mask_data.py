"""Pictures with masks of objects, and detections that are near them, for the tests of the evaluation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as reference

from ymir_tmi.data.index import CROWD, DatasetIndex, Strings
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.models.interface import Detections

NAMES = ("class 90", "class 3", "class 17", "class 4")
CATEGORIES = (90, 3, 17, 4)


@dataclass(frozen=True)
class MaskedData:
    """The same in two forms: COCO's own, for pycocotools, and ours."""

    coco: dict[str, Any]
    results: list[dict[str, Any]]
    index: DatasetIndex
    found: list[Detections]


def draw(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return the bitmap of an ellipse with a ragged edge, now and then in two parts."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    shape = np.zeros((height, width), bool)
    for _ in range(rng.choice([1, 1, 2])):
        (cx, cy), (a, b) = rng.uniform(0, size), rng.uniform(2, [60, 40])
        shape |= ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 + rng.uniform(-0.2, 0.2, shape.shape) < 1
    shape[height // 2, width // 2] |= not shape.any()
    return shape


def shifted(rng: np.random.Generator, bitmap: np.ndarray) -> np.ndarray:
    """Return a bitmap that is moved a little, without its last rows."""
    dy, dx = rng.integers(-4, 5, 2)
    moved = np.roll(bitmap, (dy, dx), (0, 1))
    rows = np.flatnonzero(moved.any(1))
    moved[rows[int(len(rows) * rng.uniform(0.6, 1)) :]] = False
    moved[rows[0], 0] |= not moved.any()
    return moved


def polygon_of(rng: np.random.Generator, size: tuple[int, int]) -> list[float]:
    """Return a star with corners at fractions of pixels, partly outside of the picture."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 12)))
    radii = rng.uniform(5, 50, len(angles))
    centre = rng.uniform(0, size)
    points = centre + np.column_stack([np.cos(angles), np.sin(angles)]) * radii[:, None]
    return points.round(2).clip(0, size).flatten().tolist()


def random_masks(seed: int, images: int = 12, detections: int = 40) -> MaskedData:
    """Return pictures of several sizes; objects are run lengths, written in both ways, or polygons; some are crowds."""
    rng = np.random.default_rng(seed)
    sizes = [(int(width), int(height)) for width, height in rng.integers(40, 200, (images, 2))]
    ids = rng.choice(10_000, images, replace=False).tolist()
    annotations, results, segments, found = [], [], [], []
    counts = []
    for image_id, size in zip(ids, sizes, strict=True):
        objects = [_object(rng, size) for _ in range(rng.integers(0, 7))]
        counts.append(len(objects))
        for segment, bitmap in objects:
            rle = reference.encode(np.asfortranarray(bitmap.astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice(CATEGORIES[:3])),
                    "bbox": reference.toBbox(rle).tolist(),
                    "area": float(reference.area(rle)),
                    "iscrowd": int(rng.random() < 0.15),
                    "segmentation": segment,
                }
            )
            segments.append(json.dumps(segment))
        found.append(_detect(rng, annotations[len(annotations) - len(objects) :], objects, size, detections))
        results += _results(found[-1], image_id)
    coco = {
        "images": [
            {"id": key, "width": width, "height": height} for key, (width, height) in zip(ids, sizes, strict=True)
        ],
        "categories": [{"id": key, "name": name} for key, name in zip(CATEGORIES, NAMES, strict=True)],
        "annotations": annotations,
    }
    return MaskedData(coco, results, _index(coco, counts, segments), found)


def _object(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Any, np.ndarray]:
    width, height = size
    kind = rng.integers(3)
    if kind == 0:
        polygons = [polygon_of(rng, size) for _ in range(rng.integers(1, 3))]
        rle = reference.merge(reference.frPyObjects(polygons, height, width))
        if reference.area(rle):
            return polygons, Masks(size, (rle["counts"],)).decode()[0]
    bitmap = draw(rng, size)
    if kind == 1:
        rle = reference.encode(np.asfortranarray(bitmap.astype(np.uint8)))
        return {"size": rle["size"], "counts": rle["counts"].decode()}, bitmap
    column = np.concatenate([[0], bitmap.flatten(order="F").astype(int), [0]])
    edges = np.flatnonzero(np.diff(column)).tolist()
    return {"size": [height, width], "counts": np.diff([0, *edges, width * height]).tolist()}, bitmap


def _detect(
    rng: np.random.Generator, truth: list[dict[str, Any]], objects: list[Any], size: tuple[int, int], count: int
) -> Detections:
    rows = rng.integers(len(objects), size=count) if objects and rng.random() < 0.9 else []
    bitmaps = [shifted(rng, objects[row][1]) for row in rows]
    right = rng.random(len(rows)) < 0.7
    labels = [
        CATEGORIES.index(truth[row]["category_id"]) if ok else int(rng.integers(4))
        for row, ok in zip(rows, right, strict=True)
    ]
    masks = Masks.encode(np.array(bitmaps).reshape(-1, size[1], size[0]))
    scores = np.round(rng.beta(2, 2, len(rows)), 2).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    boxes = masks.hulls() + rng.normal(0, 2, (len(rows), 4)).astype(np.float32)  # as networks do, not around the mask
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return Detections(boxes, scores, np.array(labels, np.int64), np.zeros((len(rows), 0), np.float32), masks)[order]


def _results(found: Detections, image_id: int) -> list[dict[str, Any]]:
    assert found.masks is not None
    return [
        {
            "image_id": image_id,
            "category_id": CATEGORIES[label],
            "segmentation": entry,
            "score": float(score),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
        for entry, score, label, (x1, y1, x2, y2) in zip(
            found.masks.entries(), found.scores, found.labels, found.boxes.astype(float).tolist(), strict=True
        )
    ]


def _index(coco: dict[str, Any], counts: list[int], segments: list[str]) -> DatasetIndex:
    rows = coco["annotations"]
    xywh = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
    return DatasetIndex(
        class_names=NAMES,
        paths=Strings.pack(f"{image['id']}.jpg" for image in coco["images"]),
        sizes=np.array([(image["width"], image["height"]) for image in coco["images"]], np.int32),
        image_ids=np.array([image["id"] for image in coco["images"]]),
        starts=np.cumsum([0, *counts]),
        boxes=np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]).astype(np.float32),
        labels=np.array([CATEGORIES.index(row["category_id"]) for row in rows], np.int32),
        areas=np.array([row["area"] for row in rows], np.float32),
        flags=np.array([CROWD * row["iscrowd"] for row in rows], np.uint8),
        segments=Strings.pack(segments),
        category_ids=CATEGORIES,
    )
