"""Small data sets on disk, and what of an index is compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.imaging import write_image

WIDTH, HEIGHT = 60, 40


def write_picture(path: Path, seed: int | None = None, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """Write random blocks: different for each name, so that no two pictures are the same by accident."""
    rng = np.random.default_rng(list(path.name.encode()) if seed is None else seed)
    blocks = rng.integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    write_image(path, np.kron(blocks, np.ones((10, 10, 1), np.uint8)))
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def coco(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]] = (), names: Sequence[str] = ("cat",)
) -> dict[str, Any]:
    """Return a COCO data set; categories are numbered from 1."""
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    return {"images": list(images), "annotations": list(annotations), "categories": categories}


def write_coco_file(folder: Path, content: Any, name: str = "a.json") -> Path:
    """Write a COCO file, and those of its pictures that are not there yet."""
    for image in content["images"]:
        if not (folder / image["file_name"]).exists():
            write_picture(folder / image["file_name"])
    return write_text(folder / name, json.dumps(content))


def objects(index: DatasetIndex) -> dict[str, list[tuple[Any, ...]]]:
    """Return (class, box, area, flags, segment) of each object, sorted, by the name of the picture."""
    found = {}
    for image in range(len(index)):
        rows = range(*index.rows(image).indices(len(index.boxes)))
        found[Path(index.paths[image]).name] = sorted(
            (
                index.class_names[index.labels[row]],
                tuple(round(float(value), 3) for value in index.boxes[row]),
                round(float(index.areas[row]), 2),
                int(index.flags[row]),
                json.loads(index.segments[row] or "null") if index.segments is not None else None,
            )
            for row in rows
        )
    return found


def random_index(folder: Path, seed: int = 0, images: int = 12, names: Sequence[str] = ("cat", "dog", "hen")) -> Path:
    """Write a COCO file with random boxes that have two digits; some pictures have none. Returns the file."""
    rng = np.random.default_rng(seed)
    entries, annotations = [], []
    for image in range(images):
        entries.append({"id": 100 + image, "file_name": f"p{image:02d}.png", "width": WIDTH, "height": HEIGHT})
        for _ in range(rng.integers(0, 4)):
            x, y = rng.uniform(0, WIDTH - 12), rng.uniform(0, HEIGHT - 12)
            box = [round(float(value), 2) for value in (x, y, *rng.uniform(2, 12, 2))]
            category = int(rng.integers(1, len(names) + 1))
            key = len(annotations) + 1
            annotations.append({"id": key, "image_id": 100 + image, "category_id": category, "bbox": box})
    return write_coco_file(folder, coco(entries, annotations, names))
