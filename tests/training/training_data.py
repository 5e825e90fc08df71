"""A data set that a small network learns in seconds: bright rectangles of two colours on a dark ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ymir_tmi import imaging
from ymir_tmi.files.atomic import write_json, write_text

CLASSES = ("red", "blue")
_COLOURS = ((230, 40, 40), (40, 60, 230))


def write_rectangles(folder: Path, *, train: int, val: int, seed: int = 0) -> Path:
    """Write two COCO splits of 64 x 64 pictures and return the data set description."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        images, annotations = [], []
        for number in range(1, count + 1):
            picture = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            for label in rng.permutation(2)[: rng.integers(1, 3)]:
                width, height = (int(side) for side in rng.integers(20, 36, 2))
                x, y = int(rng.integers(0, 64 - width)), int(rng.integers(0, 64 - height))
                picture[y : y + height, x : x + width] = _COLOURS[label]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": int(label) + 1,
                        "bbox": [x, y, width, height],
                        "area": width * height,
                        "iscrowd": 0,
                    }
                )
            imaging.write_image(folder / split / f"{number}.png", picture)
            images.append({"id": number, "file_name": f"{split}/{number}.png", "width": 64, "height": 64})
        categories = [{"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)]
        write_json(folder / f"{split}.json", {"images": images, "annotations": annotations, "categories": categories})
    write_text(folder / "data.yaml", "train: train.json\nval: val.json\n")
    return folder / "data.yaml"
